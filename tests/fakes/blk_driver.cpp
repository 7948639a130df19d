#include "tests/fakes/blk_driver.h"

namespace fakes {

using common::GuestAddr;
using common::Le32;
using common::Le64;
using common::blk::RequestType;
using common::blk::WireRange;
using common::blk::WireRequestHeader;

namespace {
constexpr std::uint32_t kRangesRoom = common::blk::kRangeSegmentsMax + 1;
}  // namespace

WireRange make_range(std::uint64_t sector, std::uint32_t sectors, std::uint32_t flags) {
  return {Le64(sector), Le32(sectors), Le32(flags)};
}

BlkDriver::BlkDriver(GuestRam& ram, GuestDriver& ring)
    : ram_(ram), ring_(ring), by_head_(ring.options().queue_size) {
  for (std::uint32_t i = 0; i < ring.options().queue_size; ++i) {
    envelopes_.push_back({ram.alloc(sizeof(WireRequestHeader)), ram.alloc(1, 1), GuestAddr{}});
  }
}

std::optional<std::uint16_t> BlkDriver::add_raw(std::uint32_t type, std::uint64_t sector,
                                                std::span<const Buffer> data, Layout layout) {
  if (envelopes_.empty()) return std::nullopt;
  const Envelope envelope = envelopes_.back();
  ram_.put(envelope.header, WireRequestHeader{Le32(type), Le32(0), Le64(sector)});
  ram_.put(envelope.status, kNoStatus);

  std::vector<Buffer> chain;
  chain.push_back({envelope.header, sizeof(WireRequestHeader), false});
  chain.insert(chain.end(), data.begin(), data.end());
  chain.push_back({envelope.status, 1, true});
  const auto head = ring_.add(chain, layout);
  if (!head) return std::nullopt;
  envelopes_.pop_back();
  by_head_.at(*head) = envelope;
  return head;
}

std::optional<std::uint16_t> BlkDriver::add(RequestType type, std::uint64_t sector,
                                            std::span<const Buffer> data, Layout layout) {
  return add_raw(static_cast<std::uint32_t>(type), sector, data, layout);
}

std::optional<std::uint16_t> BlkDriver::read(std::uint64_t sector, GuestAddr to,
                                             std::uint32_t bytes, Layout layout) {
  const Buffer data{to, bytes, true};
  return add(RequestType::kIn, sector, {&data, 1}, layout);
}

std::optional<std::uint16_t> BlkDriver::write(std::uint64_t sector, GuestAddr from,
                                              std::uint32_t bytes, Layout layout) {
  const Buffer data{from, bytes, false};
  return add(RequestType::kOut, sector, {&data, 1}, layout);
}

std::optional<std::uint16_t> BlkDriver::flush() { return add(RequestType::kFlush, 0, {}); }

std::optional<std::uint16_t> BlkDriver::ranges(RequestType type, std::span<const WireRange> ranges,
                                               Layout layout) {
  if (envelopes_.empty() || ranges.size() > kRangesRoom) return std::nullopt;
  Envelope& envelope = envelopes_.back();
  if (envelope.ranges.value == 0) envelope.ranges = ram_.alloc(kRangesRoom * sizeof(WireRange));
  for (std::size_t i = 0; i < ranges.size(); ++i) {
    ram_.put(GuestAddr{envelope.ranges.value + i * sizeof(WireRange)}, ranges[i]);
  }
  const Buffer data{envelope.ranges, static_cast<std::uint32_t>(ranges.size_bytes()), false};
  return add(type, 0, {&data, 1}, layout);
}

std::optional<BlkAnswer> BlkDriver::next() {
  const auto used = ring_.next_used();
  if (!used) return std::nullopt;
  BlkAnswer answer{used->head, used->written, kNoStatus};
  if (used->head < by_head_.size() && by_head_[used->head].status.value != 0) {
    Envelope& envelope = by_head_[used->head];
    answer.status = ram_.get<std::uint8_t>(envelope.status);
    envelopes_.push_back(envelope);
    envelope = Envelope{};
  }
  return answer;
}

}  // namespace fakes
