#include "worker/ring.h"

#include <algorithm>
#include <utility>

#include "common/checked.h"
#include "common/virtqueue_wire.h"
#include "worker/ring_parts.h"

namespace worker {
namespace {

using common::ipc::WorkerFault;

constexpr std::uint64_t used_event_offset(std::uint16_t size) noexcept {
  return common::kAvailRingOffset + std::uint64_t{size} * 2;
}
constexpr std::uint64_t avail_event_offset(std::uint16_t size) noexcept {
  return common::kUsedRingOffset + std::uint64_t{size} * sizeof(common::WireUsedElem);
}

}  // namespace

common::Result<SplitRing, RingFault> SplitRing::create(const common::GuestMemory& memory,
                                                       const common::ipc::RingStart& start,
                                                       std::span<std::byte> inflight,
                                                       std::span<std::byte> log) noexcept {
  // 2.7: the queue size is a power of two.
  if (!common::is_power_of_two(start.queue_size) || start.queue_size > common::kQueueSizeMax ||
      start.next_avail > 0xffff ||
      !inflight_is_sane(start, inflight, common::inflight::queue_bytes)) {
    return common::fail(RingFault{WorkerFault::kBadMessage, start.kind, sizeof(start)});
  }
  const auto size = static_cast<std::uint16_t>(start.queue_size);
  const bool event_idx = (start.features & common::kFeatureEventIdx) != 0;

  SplitRing ring;
  TRY_LET(ring.desc_, map_part(memory, RingPart::kDesc, start.desc_addr,
                               common::desc_table_bytes(size), common::kDescAlign));
  TRY_LET(ring.avail_, map_part(memory, RingPart::kAvail, start.avail_addr,
                                common::avail_bytes(size, event_idx), common::kAvailAlign));
  TRY_LET(ring.used_, map_part(memory, RingPart::kUsed, start.used_addr,
                               common::used_bytes(size, event_idx), common::kUsedAlign));
  TRY_LET(ring.log_, DirtyLog::create(memory, start, log, common::used_bytes(size, event_idx)));
  ring.size_ = size;
  ring.event_idx_ = event_idx;
  ring.next_avail_ = ring.seen_avail_ = static_cast<std::uint16_t>(start.next_avail);
  const std::uint32_t entries = inflight.empty() ? start.queue_size : start.inflight_entries;
  ring.inflight_ = Inflight(inflight, static_cast<std::uint16_t>(entries), size,
                            !inflight.empty() && start.inflight_resume != 0);
  return ring;
}

SplitRing::Begin SplitRing::begin() noexcept {
  log_.begin();
  // The only time that we believe this index: the front-end gives us the avail side only, and what
  // served this ring before us left its count here. A guest that lies confuses itself.
  next_used_ = published_used_ = decided_used_ = used_.load16(common::kUsedIdxOffset);
  const auto was_used = inflight_.begin(next_used_);
  if (!was_used) {
    fault_ = was_used.error();
    return Begin::kFault;
  }
  // Whatever the front-end believes: it can count what was answered, but not what was taken.
  if (*was_used) {
    next_avail_ = seen_avail_ = static_cast<std::uint16_t>(next_used_ + inflight_.replays_left());
  }
  kicks_enabled_ = true;
  disable_kicks();
  return *was_used || next_used_ != 0 || next_avail_ != 0 ? Begin::kUsed : Begin::kFresh;
}

std::uint16_t SplitRing::load_avail_idx() const noexcept {
  return avail_.load16_acquire(common::kAvailIdxOffset);
}

SplitRing::Peek SplitRing::refuse(RingFault fault) noexcept {
  fault_ = fault;
  return Peek::kFault;
}

SplitRing::Peek SplitRing::peek() noexcept {
  if (peeked_) return Peek::kHead;
  if (replaying()) [[unlikely]] {
    head_ = inflight_.replay_head();
    peeked_ = true;
    return Peek::kHead;
  }
  if (next_avail_ == seen_avail_) {
    const std::uint16_t idx = load_avail_idx();
    // 2.7.13: there are never more chains offered than the ring has entries; nor is idx ever
    // decremented (2.7.6.1), which looks the same from here.
    if (static_cast<std::uint16_t>(idx - next_avail_) > size_) [[unlikely]] {
      return refuse({WorkerFault::kAvailJump, idx, next_avail_});
    }
    seen_avail_ = idx;
    if (next_avail_ == seen_avail_) return Peek::kEmpty;
  }
  const std::uint64_t slot = next_avail_ & (size_ - 1U);
  const std::uint16_t head = avail_.load16(common::kAvailRingOffset + slot * 2);
  if (head >= size_) [[unlikely]]
    return refuse({WorkerFault::kHeadOutsideTable, head, size_});
  head_ = head;
  peeked_ = true;
  return Peek::kHead;
}

void SplitRing::add_used(std::uint16_t head, std::uint32_t written) noexcept {
  const std::uint64_t slot = next_used_ & (size_ - 1U);
  // Nobody looks at it before publish(): it is at or beyond used.idx.
  used_.store(common::kUsedRingOffset + slot * sizeof(common::WireUsedElem),
              common::WireUsedElem{common::Le32(head), common::Le32(written)});
  ++next_used_;
  inflight_.answer(head);
}

bool SplitRing::show_used() noexcept {
  if (next_used_ == published_used_) return false;
  const std::uint16_t before = std::exchange(published_used_, next_used_);
  inflight_.before_publish();
  used_.store16_release(common::kUsedIdxOffset, published_used_);
  if (log_.on()) [[unlikely]]
    log_answers(before, published_used_);
  inflight_.after_publish(published_used_);
  return true;
}

// The elements of the answers that have just been shown, and the index that shows them.
void SplitRing::log_answers(std::uint16_t from, std::uint16_t to) noexcept {
  constexpr std::uint64_t kElement = sizeof(common::WireUsedElem);
  const std::uint32_t count = static_cast<std::uint16_t>(to - from);
  const std::uint32_t first = from & (size_ - 1U);
  const std::uint32_t in_row = std::min<std::uint32_t>(count, size_ - first);
  log_.mark_used(common::kUsedRingOffset + first * kElement, in_row * kElement);
  log_.mark_used(common::kUsedRingOffset, (count - in_row) * kElement);
  log_.mark_used(common::kUsedIdxOffset, sizeof(std::uint16_t));
}

SplitRing::Publish SplitRing::take_call() noexcept {
  if (decided_used_ == published_used_) return Publish::kNothing;
  const std::uint16_t before = std::exchange(decided_used_, published_used_);
  return wants_call(before, published_used_) ? Publish::kCall : Publish::kQuiet;
}

bool SplitRing::wants_call(std::uint16_t before, std::uint16_t now) const noexcept {
  // Store of used.idx before load of used_event (or flags). The driver stores these before it looks
  // at used.idx for the last time, so one of us sees the other.
  full_fence();
  if (!event_idx_) {
    return (avail_.load16(common::kAvailFlagsOffset) & common::kAvailNoInterrupt) == 0;
  }
  // 2.7.7.2: yes if the entry numbered used_event is among [before, now), modulo 2^16.
  const std::uint16_t event = avail_.load16(used_event_offset(size_));
  return static_cast<std::uint16_t>(now - event - 1) < static_cast<std::uint16_t>(now - before);
}

// What we tell the driver in the used ring beside answers.
inline void SplitRing::store_notice(std::uint64_t offset, std::uint16_t value) noexcept {
  used_.store16_release(offset, value);
  if (log_.on()) [[unlikely]]
    log_.mark_used(offset, sizeof(value));
}

void SplitRing::disable_kicks() noexcept {
  if (!kicks_enabled_) return;
  kicks_enabled_ = false;
  if (event_idx_) {
    // One behind the next entry: the driver passes it again only after 65,535 chains. The flags
    // stay 0, as 2.7.10.2 wants it.
    store_notice(avail_event_offset(size_), static_cast<std::uint16_t>(next_avail_ - 1));
  } else {
    store_notice(common::kUsedFlagsOffset, common::kUsedNoNotify);
  }
}

bool SplitRing::enable_kicks() noexcept {
  kicks_enabled_ = true;
  if (event_idx_) {
    store_notice(avail_event_offset(size_), next_avail_);
  } else {
    store_notice(common::kUsedFlagsOffset, 0);
  }
  // Store of avail_event (or flags) before load of avail.idx. The driver stores avail.idx before it
  // looks whether we want a kick (2.7.13.4.1), so one of us sees the other.
  full_fence();
  return has_new();
}

}  // namespace worker
