#include "worker/packed_ring.h"

#include <algorithm>
#include <utility>

#include "common/packed_inflight_wire.h"
#include "common/verify.h"
#include "worker/ring_parts.h"

namespace worker {
using common::GuestAddr;
using common::Le16;
using common::Le32;
using common::Le64;
using common::PackedBase;
using common::PackedPlace;
using common::WirePackedDesc;
using common::ipc::WorkerFault;

PackedRing::PackedRing(std::uint16_t size, bool event_idx, const PackedBase& base)
    : size_(size),
      event_idx_(event_idx),
      next_avail_(base.avail),
      next_used_(base.used),
      published_(base.used),
      decided_place_(base.used),
      free_(size),
      handles_(size),
      taken_(std::make_unique<Taken[]>(size)),
      order_(std::make_unique_for_overwrite<std::uint16_t[]>(size)),
      copies_(std::make_unique_for_overwrite<WirePackedDesc[]>(size)) {}

common::Result<PackedRing, RingFault> PackedRing::create(const common::GuestMemory& memory,
                                                         const common::ipc::RingStart& start,
                                                         std::span<std::byte> inflight,
                                                         std::span<std::byte> log) noexcept {
  const PackedBase base = common::unpack_vring_base(start.next_avail);
  if (start.queue_size == 0 || start.queue_size > common::kQueueSizeMax ||
      !common::packed_base_is_sane(base, start.queue_size) ||
      !inflight_is_sane(start, inflight, common::inflight::packed_queue_bytes)) {
    return common::fail(RingFault{WorkerFault::kBadMessage, start.kind, sizeof(start)});
  }
  const auto size = static_cast<std::uint16_t>(start.queue_size);
  PackedRing ring(size, (start.features & common::kFeatureEventIdx) != 0, base);
  TRY_LET(ring.ring_, map_part(memory, RingPart::kDesc, start.desc_addr,
                               common::packed_ring_bytes(size), common::kPackedDescAlign));
  TRY_LET(ring.driver_area_, map_part(memory, RingPart::kAvail, start.avail_addr,
                                      common::kPackedEventBytes, common::kPackedEventAlign));
  TRY_LET(ring.device_area_, map_part(memory, RingPart::kUsed, start.used_addr,
                                      common::kPackedEventBytes, common::kPackedEventAlign));
  TRY_LET(ring.log_, DirtyLog::create(memory, start, log, common::kPackedEventBytes));
  ring.ring_addr_ = GuestAddr{start.desc_addr};
  const std::uint32_t entries = inflight.empty() ? start.queue_size : start.inflight_entries;
  ring.inflight_ = PackedInflight(inflight, static_cast<std::uint16_t>(entries), size,
                                  !inflight.empty() && start.inflight_resume != 0);
  return ring;
}

PackedRing::Begin PackedRing::begin() noexcept {
  log_.begin();
  if (log_.on()) log_.mark(ring_addr_, ring_.bytes());
  const bool fresh = base() == common::kPackedBaseFresh;
  settle_base();
  const auto was_used = inflight_.begin(ring_, {next_avail_, next_used_});
  if (!was_used) {
    fault_ = was_used.error();
    return Begin::kFault;
  }
  // Whatever the front-end believes.
  if (*was_used) go_on_at(inflight_.base());
  free_ = size_ - common::packed_distance(next_used_, next_avail_, size_);
  kicks_enabled_ = true;
  disable_kicks();
  return fresh && !*was_used ? Begin::kFresh : Begin::kUsed;
}

void PackedRing::go_on_at(const PackedBase& base) noexcept {
  next_avail_ = base.avail;
  next_used_ = published_ = decided_place_ = base.used;
}

// Where these differ, who served the ring before us died while it showed answers. If the descriptor
// that shows them is still available, the driver has not seen them, and what they answered is done
// again. That is right where answers come in order; where they do not, the in-flight region knows.
void PackedRing::settle_base() noexcept {
  if (next_avail_ == next_used_) return;
  const PackedPlace place = is_available(next_used_) ? next_used_ : next_avail_;
  go_on_at({place, place});
}

std::uint32_t PackedRing::base(std::uint32_t held) const noexcept {
  common::verify(held == 0 || held == chains_);
  return common::pack_vring_base({held == 0 ? next_avail_ : next_used_, published_});
}

// --- what is available ---------------------------------------------------------------------------

PackedRing::Peek PackedRing::refuse(RingFault fault) noexcept {
  fault_ = fault;
  return Peek::kFault;
}

PackedRing::Peek PackedRing::peek() noexcept {
  if (peeked_) return Peek::kHead;
  if (replaying()) [[unlikely]] {
    chain_ = inflight_.replay().descriptors;
    return found_chain();
  }
  // All of the ring is ours: nothing can be available, whatever it says.
  if (free_ == 0) return Peek::kEmpty;
  const std::uint16_t flags = load_flags(next_avail_.index);
  if (!common::packed_is_available(flags, next_avail_.wrap)) return Peek::kEmpty;
  return fetch_chain(flags);
}

// The only fetch of a descriptor's other fields: its flags are what let it be looked at.
inline WirePackedDesc PackedRing::fetch(std::uint16_t index, std::uint16_t flags) const noexcept {
  const std::uint64_t at = offset_of(index);
  return {.addr = ring_.load<Le64>(at),
          .len = ring_.load<Le32>(at + common::kPackedDescLenOffset),
          .id = ring_.load<Le16>(at + common::kPackedDescIdOffset),
          .flags = Le16(flags)};
}

// 2.8.6: a list ends with the first descriptor that has no NEXT.
PackedRing::Peek PackedRing::fetch_chain(std::uint16_t flags) noexcept {
  copies_[0] = fetch(next_avail_.index, flags);
  std::uint16_t count = 1;
  PackedPlace at = next_avail_;
  while ((flags & common::kDescNext) != 0) {
    // 2.8.17: no longer than the queue; and what we have and did not answer is none of its.
    if (count == free_) [[unlikely]]
      return refuse({WorkerFault::kChainTooLong, next_avail_.index, free_});
    at = after(at, 1);
    flags = load_flags(at.index);
    // 2.8.17: the first becomes available after all the others.
    if (!common::packed_is_available(flags, at.wrap)) [[unlikely]]
      return refuse({WorkerFault::kChainNotAvailable, at.index, flags});
    copies_[count++] = fetch(at.index, flags);
  }
  chain_ = {copies_.get(), count};
  if (seen_descriptors_ < count) {
    seen_descriptors_ = count;
    seen_chains_ = 1;
    look_ahead();
  }
  return found_chain();
}

PackedRing::Peek PackedRing::found_chain() noexcept {
  head_ = static_cast<std::uint16_t>(handles_.take());
  peeked_ = true;
  return Peek::kHead;
}

// Counts what is available, each descriptor once. Only a measure of how much there is to do: what
// it finds is checked when it is taken.
void PackedRing::look_ahead() noexcept {
  PackedPlace at = after(next_avail_, seen_descriptors_);
  for (; seen_descriptors_ < free_; ++seen_descriptors_) {
    const std::uint16_t flags = load_flags(at.index);
    if (!common::packed_is_available(flags, at.wrap)) return;
    if ((flags & common::kDescNext) == 0) ++seen_chains_;
    at = after(at, 1);
  }
}

void PackedRing::take() noexcept {
  peeked_ = false;
  ++chains_;
  const auto count = static_cast<std::uint16_t>(chain_.size());
  // 2.8.6: the last descriptor has the buffer's id.
  const std::uint16_t id = chain_.back().id.get();
  if (replaying()) [[unlikely]] {
    taken_[head_] = {id, count, inflight_.replay().entry};
    inflight_.replayed();
    return;
  }
  taken_[head_] = {id, count, inflight_.take(chain_)};
  order_[order_next_] = head_;
  order_next_ = static_cast<std::uint16_t>(order_next_ + 1 == size_ ? 0 : order_next_ + 1);
  next_avail_ = after(next_avail_, count);
  free_ -= count;
  seen_descriptors_ -= std::min<std::uint32_t>(seen_descriptors_, count);
  if (seen_chains_ != 0) --seen_chains_;
}

// What is undone lies behind all that was answered, so its descriptors are still there.
void PackedRing::put_back(std::uint16_t count) noexcept {
  if (std::exchange(peeked_, false)) handles_.put(head_);
  for (; count > 0; --count) {
    order_next_ = static_cast<std::uint16_t>((order_next_ == 0 ? size_ : order_next_) - 1);
    Taken& chain = taken_[order_[order_next_]];
    common::verify(chain.descriptors != 0);
    next_avail_ = before(next_avail_, chain.descriptors);
    free_ += std::exchange(chain.descriptors, std::uint16_t{0});
    --chains_;
    handles_.put(order_[order_next_]);
  }
  seen_descriptors_ = seen_chains_ = 0;
}

// --- answers -------------------------------------------------------------------------------------

void PackedRing::add_used(std::uint16_t head, std::uint32_t written) noexcept {
  common::verify(head < size_ && taken_[head].descriptors != 0);
  const Taken chain = std::exchange(taken_[head], Taken{});
  handles_.put(head);

  const std::uint64_t at = offset_of(next_used_.index);
  ring_.store(at + common::kPackedDescLenOffset, Le32(written));
  ring_.store(at + common::kPackedDescIdOffset, Le16(chain.id));
  // 2.8.3: WRITE says that something was written, and that `len` counts.
  const auto flags = static_cast<std::uint16_t>(
      (next_used_.wrap ? common::kPackedAvail | common::kPackedUsed : 0) |
      (written != 0 ? common::kDescWrite : 0));
  // 2.8.2: the driver looks at one place only, so nobody sees the later ones of a batch before the
  // first is shown.
  if (unshown_) {
    ring_.store(at + common::kPackedDescFlagsOffset, Le16(flags));
  } else {
    published_flags_ = flags;
    unshown_ = true;
  }
  next_used_ = after(next_used_, chain.descriptors);
  unshown_descriptors_ += chain.descriptors;
  --chains_;
  ++answered_;
  inflight_.answer(chain.entry);
}

bool PackedRing::show_used() noexcept {
  if (!std::exchange(unshown_, false)) return false;
  inflight_.before_publish();
  ring_.store16_release(offset_of(published_.index) + common::kPackedDescFlagsOffset,
                        published_flags_);
  const std::uint32_t count = std::exchange(unshown_descriptors_, 0);
  if (log_.on()) [[unlikely]]
    log_answers(published_.index, count);
  inflight_.after_publish();
  published_ = next_used_;
  free_ += count;
  undecided_ += count;
  shown_ = answered_;
  return true;
}

// The descriptors of the chains whose answers have just been shown: those answers among them.
void PackedRing::log_answers(std::uint16_t first, std::uint32_t count) noexcept {
  const auto mark = [this](std::uint32_t index, std::uint32_t descriptors) {
    const std::uint64_t offset = index * sizeof(WirePackedDesc);
    log_.mark(GuestAddr{ring_addr_.value + offset}, descriptors * sizeof(WirePackedDesc));
  };
  const std::uint32_t in_row = std::min<std::uint32_t>(count, size_ - first);
  mark(first, in_row);
  mark(0, count - in_row);
}

PackedRing::Publish PackedRing::take_call() noexcept {
  if (decided_ == shown_) return Publish::kNothing;
  decided_ = shown_;
  const PackedPlace from = std::exchange(decided_place_, published_);
  return wants_call(from, std::exchange(undecided_, 0)) ? Publish::kCall : Publish::kQuiet;
}

bool PackedRing::wants_call(PackedPlace from, std::uint32_t count) const noexcept {
  // Store of a used descriptor's flags before load of the driver's wish. The driver stores that
  // before it looks at the flags for the last time, so one of us sees the other.
  full_fence();
  const std::uint32_t both = driver_area_.load32(0);
  const auto flags = static_cast<std::uint16_t>(both >> 16) & common::kPackedEventFlagsMask;
  if (flags == common::kPackedEventDisable) return false;
  // 2.8.10: one place is named only with EVENT_IDX; what is reserved says nothing.
  if (!event_idx_ || flags != common::kPackedEventDesc) return true;
  // Is it among the `count` from `from` on? Places repeat after two rounds.
  const auto event = PackedPlace::from(static_cast<std::uint16_t>(both));
  std::uint32_t ahead = event.index + (event.wrap == from.wrap ? 0U : size_);
  ahead += ahead < from.index ? 2U * size_ : 0U;
  return ahead - from.index < count;
}

// --- kicks ---------------------------------------------------------------------------------------

// What we tell the driver beside answers. The flags say whether off_wrap counts, so they come last.
inline void PackedRing::store_notice(std::uint16_t flags) noexcept {
  if (flags == common::kPackedEventDesc) {
    device_area_.store16_release(common::kPackedEventOffWrapOffset, next_avail_.word());
  }
  device_area_.store16_release(common::kPackedEventFlagsOffset, flags);
  if (log_.on()) [[unlikely]]
    log_.mark_used(0, common::kPackedEventBytes);
}

void PackedRing::disable_kicks() noexcept {
  if (!kicks_enabled_) return;
  kicks_enabled_ = false;
  store_notice(common::kPackedEventDisable);
}

bool PackedRing::enable_kicks() noexcept {
  kicks_enabled_ = true;
  store_notice(event_idx_ ? common::kPackedEventDesc : common::kPackedEventEnable);
  // Store of our wish before load of the next descriptor's flags. The driver stores these before it
  // looks whether we want a kick (2.8.21.3), so one of us sees the other.
  full_fence();
  return has_new();
}

}  // namespace worker
