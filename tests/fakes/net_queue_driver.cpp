#include "tests/fakes/net_queue_driver.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstring>
#include <utility>

#include "tests/fakes/failure.h"
#include "tests/fakes/vhost_frontend.h"

namespace fakes {
namespace {

namespace net = common::net;

constexpr std::uint16_t kNoSlot = 0xffff;
constexpr std::uint64_t kPage = 4096;
constexpr int kPatienceMs = static_cast<int>(std::chrono::milliseconds(kPatience).count());
constexpr std::uint64_t kTableBytes = NetQueueDriver::kPiecesMost * sizeof(common::WireDesc);

std::uint64_t pages(std::uint64_t bytes) { return (bytes + kPage - 1) / kPage * kPage; }

common::Fd make_eventfd() {
  common::Fd fd(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  require_call(fd.valid(), "eventfd");
  return fd;
}

}  // namespace

std::uint64_t NetQueueDriver::slot_bytes_all(const Shape& shape) noexcept {
  return kTableBytes + pages(shape.slot_bytes);
}

std::uint64_t NetQueueDriver::bytes_needed(const Shape& shape) noexcept {
  return pages(RingPlace::packed_from(0, shape.size).end()) + shape.slots * slot_bytes_all(shape);
}

NetQueueDriver::NetQueueDriver(const VmMemory& memory, std::uint64_t guest_addr, const Shape& shape)
    : memory_(memory),
      shape_(shape),
      place_(RingPlace::packed_from(guest_addr, shape.size)),
      kick_(make_eventfd()),
      err_(make_eventfd()) {
  reset();
}

void NetQueueDriver::reset() {
  ring_ = ChainRing(place_, memory_, shape_.packed, shape_.event_idx);
  slots_.assign(shape_.slots, Slot());
  slot_of_token_.assign(shape_.size, kNoSlot);
  order_.clear();
  std::uint64_t next = pages(place_.end());
  for (Slot& slot : slots_) {
    slot.table = next;
    slot.data = next + kTableBytes;
    next += slot_bytes_all(shape_);
  }
}

bool NetQueueDriver::error_signalled() const {
  pollfd waiting{err_.ref().number, POLLIN, 0};
  return ::poll(&waiting, 1, kPatienceMs) == 1;
}

std::optional<std::uint16_t> NetQueueDriver::free_slot() const {
  for (std::size_t i = 0; i < slots_.size(); ++i) {
    if (!slots_[i].busy) return static_cast<std::uint16_t>(i);
  }
  return std::nullopt;
}

std::span<std::byte> NetQueueDriver::data(std::uint16_t slot) const {
  return memory_.span(slots_.at(slot).data, shape_.slot_bytes);
}

void NetQueueDriver::prepare(std::uint16_t number, std::span<const NetPiece> pieces) {
  Slot& slot = slots_.at(number);
  require(!slot.busy && !pieces.empty() && pieces.size() <= kPiecesMost, "not such a chain");
  slot.busy = true;
  std::vector<common::WireDesc> parts;
  for (const NetPiece& piece : pieces) {
    const std::uint16_t flags = piece.device_writes ? common::kDescWrite : std::uint16_t{0};
    parts.push_back({.addr = common::Le64(slot.data + piece.offset),
                     .len = common::Le32(piece.bytes),
                     .flags = common::Le16(flags),
                     .next = common::Le16(0)});
  }
  if (parts.size() > 1 && shape_.indirect) {
    const std::size_t bytes = parts.size() * sizeof(common::WireDesc);
    write_table(memory_.at(slot.table, bytes), parts, shape_.packed);
    parts = {{.addr = common::Le64(slot.table),
              .len = common::Le32(static_cast<std::uint32_t>(bytes)),
              .flags = common::Le16(common::kDescIndirect),
              .next = common::Le16(0)}};
  }
  slot_of_token_[ring_.add(parts)] = number;
  order_.push_back(number);
}

void NetQueueDriver::publish() {
  if (ring_.publish()) kick();
}

void NetQueueDriver::kick() const {
  const std::uint64_t one = 1;
  require_call(::write(kick_.ref().number, &one, sizeof(one)) == sizeof(one), "kick");
}

std::optional<NetDone> NetQueueDriver::harvest() {
  const auto used = ring_.take();
  if (!used) return std::nullopt;
  const NetDone done{std::exchange(slot_of_token_[used->token], kNoSlot), used->len};
  require(done.slot != kNoSlot, "a used element names what was not offered");
  // VIRTIO_F_IN_ORDER is offered, so it must be true.
  require(done.slot == order_.front(), "buffers are not used in the order of the offers");
  order_.pop_front();
  Slot& slot = slots_[done.slot];
  slot.busy = false;
  return done;
}

std::optional<NetDone> NetQueueDriver::wait(int timeout_ms) {
  const auto end = std::chrono::steady_clock::now() + std::chrono::milliseconds(timeout_ms);
  while (true) {
    if (auto done = harvest()) return done;
    if (!ring_.enable_interrupts()) continue;
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(
                          end - std::chrono::steady_clock::now())
                          .count();
    if (left <= 0 || !doorbell_.wait(static_cast<int>(left))) return harvest();
  }
}

// --- receive -------------------------------------------------------------------------------------

void NetQueueDriver::add_buffer(std::uint16_t slot) {
  std::vector<NetPiece> pieces;
  const std::uint32_t each = std::max(shape_.slot_bytes / shape_.buffer_pieces, 1U);
  for (std::uint32_t i = 0; i < shape_.buffer_pieces; ++i) {
    const bool last = i + 1 == shape_.buffer_pieces;
    pieces.push_back({i * each, last ? shape_.slot_bytes - i * each : each, true});
  }
  prepare(slot, pieces);
}

std::size_t NetQueueDriver::offer_buffers(std::size_t most) {
  std::size_t count = 0;
  for (std::size_t i = 0; i < slots_.size() && count < most; ++i) {
    if (slots_[i].busy) continue;
    if (shape_.size == ring_.outstanding()) break;
    add_buffer(static_cast<std::uint16_t>(i));
    ++count;
  }
  publish();
  return count;
}

std::optional<NetPacket> NetQueueDriver::receive(int timeout_ms) {
  auto done = wait(timeout_ms);
  if (!done) return std::nullopt;
  NetPacket packet;
  const std::size_t head = shape_.header_bytes;
  require(done->written >= head, "a received packet is shorter than its header");
  std::memcpy(&packet.header, data(done->slot).data(), head);
  const std::size_t buffers = head == net::kHeaderBytes ? packet.header.num_buffers.get() : 1;
  require(buffers >= 1 && buffers <= slots_.size(), "num_buffers lies");
  last_buffers_ = buffers;
  std::vector<std::uint16_t> used;
  for (std::size_t i = 0; i < buffers; ++i) {
    // All of a packet's buffers come at once (virtio 1.2, 5.1.6.4).
    if (i > 0) done = harvest();
    require(done.has_value(), "a packet's buffers did not come together");
    require(done->written <= shape_.slot_bytes, "more was written than there is room");
    const auto bytes = data(done->slot).first(done->written).subspan(i == 0 ? head : 0);
    packet.frame.insert(packet.frame.end(), bytes.begin(), bytes.end());
    used.push_back(done->slot);
  }
  if (offer_again_) {
    for (const std::uint16_t slot : used) add_buffer(slot);
    publish();
  }
  return packet;
}

// --- transmit ------------------------------------------------------------------------------------

std::uint16_t NetQueueDriver::wait_free_slot() {
  while (true) {
    if (const auto slot = free_slot(); slot && ring_.outstanding() < shape_.size) return *slot;
    publish();
    require(wait(kPatienceMs).has_value(), "what was sent does not come back");
  }
}

void NetQueueDriver::add(const NetPacket& packet, std::span<const std::uint32_t> cuts) {
  while (harvest()) {
  }
  const std::uint16_t slot = wait_free_slot();
  const std::size_t head = shape_.header_bytes;
  const std::size_t total = head + packet.frame.size();
  require(total <= shape_.slot_bytes, "the test's packet does not fit into its slot");
  const std::span<std::byte> to = data(slot);
  std::memcpy(to.data(), &packet.header, head);
  std::copy(packet.frame.begin(), packet.frame.end(),
            to.begin() + static_cast<std::ptrdiff_t>(head));
  std::vector<NetPiece> pieces;
  std::uint32_t begin = 0;
  for (const std::uint32_t cut : cuts) {
    if (cut <= begin || cut >= total) continue;
    pieces.push_back({begin, cut - begin, false});
    begin = cut;
  }
  pieces.push_back({begin, static_cast<std::uint32_t>(total) - begin, false});
  prepare(slot, pieces);
}

void NetQueueDriver::send(const NetPacket& packet, std::span<const std::uint32_t> cuts) {
  add(packet, cuts);
  publish();
}

bool NetQueueDriver::wait_sent() {
  publish();
  while (ring_.outstanding() > 0) {
    if (!wait(kPatienceMs)) return false;
  }
  return true;
}

// --- control -------------------------------------------------------------------------------------

std::optional<std::uint8_t> NetQueueDriver::command(std::uint8_t class_, std::uint8_t command,
                                                    std::span<const std::byte> arguments) {
  constexpr std::uint8_t kUnanswered = 0xee;
  const std::uint16_t slot = wait_free_slot();
  const std::span<std::byte> to = data(slot);
  to[0] = static_cast<std::byte>(class_);
  to[1] = static_cast<std::byte>(command);
  std::copy(arguments.begin(), arguments.end(), to.begin() + 2);
  const auto bytes = static_cast<std::uint32_t>(arguments.size());
  to[2 + bytes] = std::byte{kUnanswered};
  std::vector<NetPiece> pieces = {{0, 2, false}};
  if (bytes > 0) pieces.push_back({2, bytes, false});
  pieces.push_back({2 + bytes, 1, true});
  prepare(slot, pieces);
  publish();
  const auto done = wait(kPatienceMs);
  if (!done) return std::nullopt;
  require(done->slot == slot, "another command was answered");
  return std::to_integer<std::uint8_t>(data(slot)[2 + bytes]);
}

}  // namespace fakes
