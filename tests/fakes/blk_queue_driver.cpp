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
      driver_(place_, memory, shape.event_idx),
      kick_(make_eventfd()),
      err_(make_eventfd()),
      slots_(shape.slots),
      slot_of_head_(shape.size, kNoSlot),
      scratch_(pages(place_.end())) {
  std::uint64_t next = scratch_ + kScratchBytes;
  for (Slot& slot : slots_) {
    slot.header = next;
    slot.status = next + kStatusInPage;
    slot.table = next + kPage;
    slot.data = slot.table + kTableBytes;
    next += slot_bytes_all(shape);
  }
  for (std::uint16_t i = shape.size; i > 0; --i) {
    free_descs_.push_back(static_cast<std::uint16_t>(i - 1));
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

std::uint16_t BlkQueueDriver::take_desc() {
  require(!free_descs_.empty(), "the test's request does not fit into its ring");
  const std::uint16_t index = free_descs_.back();
  free_descs_.pop_back();
  return index;
}

void BlkQueueDriver::chain_direct(Slot& slot, std::span<const common::WireDesc> parts) {
  for (std::size_t i = 0; i < parts.size(); ++i) slot.descs.push_back(take_desc());
  for (std::size_t i = 0; i < parts.size(); ++i) {
    const bool last = i + 1 == parts.size();
    const auto flags =
        static_cast<std::uint16_t>(parts[i].flags.get() | (last ? 0 : common::kDescNext));
    driver_.set_desc(slot.descs[i], parts[i].addr.get(), parts[i].len.get(), flags,
                     last ? std::uint16_t{0} : slot.descs[i + 1]);
  }
}

void BlkQueueDriver::chain_indirect(Slot& slot, std::span<const common::WireDesc> parts) {
  std::vector<common::WireDesc> table(parts.begin(), parts.end());
  for (std::size_t i = 0; i + 1 < table.size(); ++i) {
    table[i].flags = common::Le16(table[i].flags.get() | common::kDescNext);
    table[i].next = common::Le16(static_cast<std::uint16_t>(i + 1));
  }
  const std::size_t bytes = table.size() * sizeof(common::WireDesc);
  std::memcpy(memory_.at(slot.table, bytes), table.data(), bytes);
  slot.descs.push_back(take_desc());
  driver_.set_desc(slot.descs[0], slot.table, static_cast<std::uint32_t>(bytes),
                   common::kDescIndirect, 0);
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
  if (shape_.indirect) {
    chain_indirect(slot, parts);
  } else {
    chain_direct(slot, parts);
  }
  slot.busy = true;
  slot_of_head_[slot.descs[0]] = index;
  driver_.offer(slot.descs[0]);
}

void BlkQueueDriver::send() {
  if (driver_.publish()) kick();
}

void BlkQueueDriver::kick() const {
  const std::uint64_t one = 1;
  // A counter that is full is a kick that nobody has heard yet.
  require_call(::write(kick_.ref().number, &one, sizeof(one)) == sizeof(one) || errno == EAGAIN,
               "kick");
}

std::optional<BlkDone> BlkQueueDriver::harvest() {
  const std::optional<common::WireUsedElem> used = driver_.take();
  if (!used) return std::nullopt;
  const std::uint32_t head = used->id.get();
  require(head < slot_of_head_.size() && slot_of_head_[head] != kNoSlot,
          "the device returned a chain that is not out: " + std::to_string(head));
  const std::uint16_t index = std::exchange(slot_of_head_[head], kNoSlot);
  Slot& slot = slots_[index];
  free_descs_.insert(free_descs_.end(), slot.descs.begin(), slot.descs.end());
  slot.descs.clear();
  slot.busy = false;
  return BlkDone{index, static_cast<std::uint8_t>(*memory_.at(slot.status)), used->len.get()};
}

std::optional<BlkDone> BlkQueueDriver::wait(int timeout_ms) {
  while (true) {
    if (std::optional<BlkDone> done = harvest()) return done;
    if (!driver_.enable_interrupts()) continue;
    if (!doorbell_.wait(timeout_ms)) return std::nullopt;
  }
}

std::optional<BlkDone> BlkQueueDriver::poll(int timeout_ms) {
  const auto give_up = std::chrono::steady_clock::now() + std::chrono::milliseconds(timeout_ms);
  driver_.disable_interrupts();
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
