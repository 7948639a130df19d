#include "tests/fakes/blk_queue_driver.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstring>

#include "tests/fakes/failure.h"

namespace fakes {
namespace {

constexpr std::uint16_t kNoSlot = 0xffff;
constexpr std::uint64_t kPage = 4096;
constexpr int kPatienceMs = static_cast<int>(std::chrono::milliseconds(kPatience).count());
// Header and status of a slot share a page; the indirect table has its own two.
constexpr std::uint64_t kStatusInPage = 64;
constexpr std::uint64_t kTableBytes = 2 * kPage;
static_assert((BlkQueueDriver::kSegmentsMost + 2) * sizeof(common::WireDesc) <= kTableBytes);

std::uint64_t pages(std::uint64_t bytes) { return (bytes + kPage - 1) / kPage * kPage; }

common::Fd make_eventfd() {
  common::Fd fd(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  require_call(fd.valid(), "eventfd");
  return fd;
}

common::WireDesc desc(std::uint64_t addr, std::uint64_t len, std::uint16_t flags) {
  return {.addr = common::Le64(addr),
          .len = common::Le32(static_cast<std::uint32_t>(len)),
          .flags = common::Le16(flags),
          .next = common::Le16(0)};
}

}  // namespace

std::uint64_t BlkQueueDriver::slot_bytes_all(const Shape& shape) noexcept {
  return kPage + kTableBytes + pages(shape.slot_bytes);
}

std::uint64_t BlkQueueDriver::bytes_needed(const Shape& shape) noexcept {
  return pages(RingPlace::packed_from(0, shape.size).end()) + kScratchBytes +
         shape.slots * slot_bytes_all(shape);
}

BlkQueueDriver::BlkQueueDriver(const VmMemory& memory, std::uint64_t guest_addr, const Shape& shape)
    : memory_(memory),
      shape_(shape),
      place_(RingPlace::packed_from(guest_addr, shape.size)),
      ring_(place_, memory, shape.packed, shape.event_idx),
      kick_(make_eventfd()),
      err_(make_eventfd()),
      slots_(shape.slots),
      slot_of_token_(shape.size, kNoSlot),
      scratch_(pages(place_.end())) {
  std::uint64_t next = scratch_ + kScratchBytes;
  for (Slot& slot : slots_) {
    slot.header = next;
    slot.status = next + kStatusInPage;
    slot.table = next + kPage;
    slot.data = slot.table + kTableBytes;
    next += slot_bytes_all(shape);
  }
}

bool BlkQueueDriver::error_signalled() const {
  pollfd waiting{err_.ref().number, POLLIN, 0};
  return ::poll(&waiting, 1, kPatienceMs) == 1;
}

bool BlkQueueDriver::error_signalled_now() const {
  pollfd look{err_.ref().number, POLLIN, 0};
  return ::poll(&look, 1, 0) == 1;
}

void BlkQueueDriver::clear_error() const {
  std::uint64_t count = 0;
  require_call(::read(err_.ref().number, &count, sizeof(count)) == sizeof(count), "read err");
}

std::optional<std::uint16_t> BlkQueueDriver::free_slot() const {
  for (std::size_t i = 0; i < slots_.size(); ++i) {
    if (!slots_[i].busy) return static_cast<std::uint16_t>(i);
  }
  return std::nullopt;
}

std::span<std::byte> BlkQueueDriver::data(std::uint16_t slot) const {
  return memory_.span(slots_.at(slot).data, shape_.slot_bytes);
}

common::WireDesc BlkQueueDriver::indirect(const Slot& slot,
                                          std::span<const common::WireDesc> parts) const {
  write_table(memory_.at(slot.table, parts.size_bytes()), parts, shape_.packed);
  return desc(slot.table, parts.size_bytes(), common::kDescIndirect);
}

void BlkQueueDriver::prepare(std::uint16_t index, common::blk::RequestType type,
                             std::uint64_t sector, std::span<const BlkSegment> segments,
                             bool device_writes) {
  Slot& slot = slots_.at(index);
  require(!slot.busy && segments.size() <= kSegmentsMost, "the test misuses its queue");
  const common::blk::WireRequestHeader header{
      .type = common::Le32(static_cast<std::uint32_t>(type)),
      .reserved = common::Le32(0),
      .sector = common::Le64(sector)};
  std::memcpy(memory_.at(slot.header, sizeof(header)), &header, sizeof(header));
  *memory_.at(slot.status) = std::byte{0xff};

  std::vector<common::WireDesc> parts{desc(slot.header, sizeof(header), 0)};
  for (const BlkSegment& segment : segments) {
    parts.push_back(desc(segment.guest_addr, segment.bytes,
                         device_writes ? common::kDescWrite : std::uint16_t{0}));
  }
  parts.push_back(desc(slot.status, 1, common::kDescWrite));
  if (shape_.indirect) parts = {indirect(slot, parts)};
  slot.busy = true;
  slot_of_token_[ring_.add(parts)] = index;
}

void BlkQueueDriver::send() {
  if (ring_.publish()) kick();
}

void BlkQueueDriver::kick() const {
  const std::uint64_t one = 1;
  // A counter that is full is a kick that nobody has heard yet.
  require_call(::write(kick_.ref().number, &one, sizeof(one)) == sizeof(one) || errno == EAGAIN,
               "kick");
}

std::optional<BlkDone> BlkQueueDriver::harvest() {
  const auto used = ring_.take();
  if (!used) return std::nullopt;
  const std::uint16_t index = std::exchange(slot_of_token_[used->token], kNoSlot);
  require(index != kNoSlot, "the device returned a chain that is not a request's");
  Slot& slot = slots_[index];
  slot.busy = false;
  return BlkDone{index, static_cast<std::uint8_t>(*memory_.at(slot.status)), used->len};
}

std::optional<BlkDone> BlkQueueDriver::wait(int timeout_ms) {
  while (true) {
    if (std::optional<BlkDone> done = harvest()) return done;
    if (!ring_.enable_interrupts()) continue;
    if (!doorbell_.wait(timeout_ms)) return std::nullopt;
  }
}

std::optional<BlkDone> BlkQueueDriver::poll(int timeout_ms) {
  const auto give_up = std::chrono::steady_clock::now() + std::chrono::milliseconds(timeout_ms);
  ring_.disable_interrupts();
  while (std::chrono::steady_clock::now() < give_up) {
    if (std::optional<BlkDone> done = harvest()) return done;
  }
  return std::nullopt;
}

BlkDone BlkQueueDriver::perform(common::blk::RequestType type, std::uint64_t sector,
                                std::span<const BlkSegment> segments, bool device_writes) {
  const std::optional<std::uint16_t> slot = free_slot();
  require(slot.has_value(), "no slot is free");
  prepare(*slot, type, sector, segments, device_writes);
  send();
  const std::optional<BlkDone> done = wait(kPatienceMs);
  require(done.has_value(), "a request was not answered");
  require(done->slot == *slot, "another request was answered");
  return *done;
}

std::uint8_t BlkQueueDriver::read(std::uint64_t sector, std::span<std::byte> to) {
  const std::optional<std::uint16_t> slot = free_slot();
  require(slot.has_value() && to.size() <= shape_.slot_bytes, "the test misuses its queue");
  const BlkSegment segment{data_addr(*slot), static_cast<std::uint32_t>(to.size())};
  std::ranges::fill(data(*slot).first(to.size()), std::byte{0xee});
  const BlkDone done = perform(common::blk::RequestType::kIn, sector, std::span(&segment, 1), true);
  std::ranges::copy(data(done.slot).first(to.size()), to.begin());
  return done.status;
}

std::uint8_t BlkQueueDriver::write(std::uint64_t sector, std::span<const std::byte> from) {
  const std::optional<std::uint16_t> slot = free_slot();
  require(slot.has_value() && from.size() <= shape_.slot_bytes, "the test misuses its queue");
  std::ranges::copy(from, data(*slot).begin());
  const BlkSegment segment{data_addr(*slot), static_cast<std::uint32_t>(from.size())};
  return perform(common::blk::RequestType::kOut, sector, std::span(&segment, 1), false).status;
}

std::uint8_t BlkQueueDriver::flush() {
  return perform(common::blk::RequestType::kFlush, 0, {}, false).status;
}

std::string BlkQueueDriver::get_id() {
  const std::optional<std::uint16_t> slot = free_slot();
  require(slot.has_value(), "no slot is free");
  const BlkSegment segment{data_addr(*slot), common::blk::kIdBytes};
  const BlkDone done = perform(common::blk::RequestType::kGetId, 0, std::span(&segment, 1), true);
  require(done.status == 0, "GET_ID failed");
  const char* const text = reinterpret_cast<const char*>(data(done.slot).data());
  return {text, ::strnlen(text, common::blk::kIdBytes)};
}

std::uint8_t BlkQueueDriver::ranges(common::blk::RequestType type,
                                    std::span<const common::blk::WireRange> ranges) {
  const std::optional<std::uint16_t> slot = free_slot();
  require(slot.has_value() && ranges.size_bytes() <= shape_.slot_bytes, "no room for the ranges");
  std::ranges::copy(std::as_bytes(ranges), data(*slot).begin());
  const BlkSegment segment{data_addr(*slot), static_cast<std::uint32_t>(ranges.size_bytes())};
  return perform(type, 0, std::span(&segment, 1), false).status;
}

}  // namespace fakes
