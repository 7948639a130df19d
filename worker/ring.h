// worker/ring.h: our half of a split virtqueue (virtio 1.2, 2.7): avail and used indices, and who
// wants to be notified of what. Chains are chain.h's.
//
// Not trusted: everything in the rings. An index is loaded once, checked, and kept; what we wrote
// (used.idx) is never read back. All of the guest's bytes that this class looks at are the indices,
// the avail entries and the two event fields.
//
// PackedRing (2.8) offers these same functions and has a chain reader of its own; queues are made
// for the one or the other (ring_kind.h). Nothing outside ring.* and chain.* knows the layout.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "common/addresses.h"
#include "common/guest_memory.h"
#include "common/ipc/worker_messages.h"
#include "common/result.h"
#include "worker/dirty_log.h"
#include "worker/inflight.h"
#include "worker/ring_fault.h"

namespace worker {

class SplitRing {
 public:
  // Whether there is a chain to take.
  enum class Peek : std::uint8_t { kEmpty, kHead, kFault };

  // Refuses a size that is no power of two up to kQueueSizeMax, and parts that are unmapped or
  // misaligned (2.7). Looks at no byte of the guest's. `inflight` and `log` are the in-flight
  // region and the migration's log that `start` speaks of; empty where there are none.
  [[nodiscard]] static common::Result<SplitRing, RingFault> create(
      const common::GuestMemory& memory, const common::ipc::RingStart& start,
      std::span<std::byte> inflight = {}, std::span<std::byte> log = {}) noexcept;

  SplitRing() noexcept = default;

  // First touch: goes on counting where the used ring stands, or where the in-flight region says,
  // and turns notifications off. kUsed: the ring was in use before, and an interrupt may have been
  // lost with whoever served it.
  enum class Begin : std::uint8_t { kFresh, kUsed, kFault };
  [[nodiscard]] Begin begin() noexcept;

  // The next chain's head, which stays in the ring until take(). Each avail entry is fetched once,
  // however often it is looked at.
  [[nodiscard]] Peek peek() noexcept;
  [[nodiscard]] std::uint16_t head() const noexcept { return head_; }
  [[nodiscard]] const RingFault& fault() const noexcept { return fault_; }
  void take() noexcept {
    peeked_ = false;
    if (replaying()) [[unlikely]] {
      inflight_.replayed();
      return;
    }
    inflight_.take(head_);
    ++next_avail_;
  }
  // The next head is one that was taken before, by a worker that has died since.
  [[nodiscard]] bool replaying() const noexcept { return inflight_.replays_left() != 0; }

  // Undoes the last `count` take()s of chains that were not answered: they are read anew.
  void put_back(std::uint16_t count) noexcept {
    next_avail_ = static_cast<std::uint16_t>(next_avail_ - count);
    peeked_ = false;
  }

  // Answers a chain; the guest sees it with the next publish(). `written`: see 2.7.8, len.
  void add_used(std::uint16_t head, std::uint32_t written) noexcept;

  // Shows the guest all answers so far. False if there were none since the last time.
  bool show_used() noexcept;
  // How many of the answers shown have not been decided about by take_call() yet.
  [[nodiscard]] std::uint16_t uncalled() const noexcept {
    return static_cast<std::uint16_t>(published_used_ - decided_used_);
  }
  // Whether the guest wants an interrupt for those; kNothing where there are none.
  enum class Publish : std::uint8_t { kNothing, kQuiet, kCall };
  [[nodiscard]] Publish take_call() noexcept;
  // Both at once.
  [[nodiscard]] Publish publish() noexcept {
    (void)show_used();
    return take_call();
  }
  // How many chains the guest has offered, as far as we have looked, that are not taken yet.
  [[nodiscard]] std::uint16_t waiting() const noexcept {
    return static_cast<std::uint16_t>(seen_avail_ - next_avail_ + inflight_.replays_left());
  }

  // The same, and looks again. Never more than the ring has, whatever the guest says.
  [[nodiscard]] std::uint16_t offered() const noexcept {
    const auto more = static_cast<std::uint16_t>(load_avail_idx() - next_avail_);
    return more > size_ ? size_ : more;
  }

  // The guest need not kick: we look at the ring anyway.
  void disable_kicks() noexcept;
  // Asks for a kick with the next chain. True if one has arrived meanwhile: do not sleep then.
  [[nodiscard]] bool enable_kicks() noexcept;

  // True if the guest has moved avail.idx: for busy polling. Says nothing about sanity.
  [[nodiscard]] bool has_new() const noexcept {
    return next_avail_ != seen_avail_ || load_avail_idx() != next_avail_ || replaying();
  }

  // Where what is written into the guest's buffers is marked; the ring sees to itself.
  [[nodiscard]] DirtyLog& log() noexcept { return log_; }

  [[nodiscard]] std::uint16_t next_avail() const noexcept { return next_avail_; }
  // Where another worker goes on, as RingStart::next_avail has it, if the last `held` chains taken
  // are to be read anew.
  [[nodiscard]] std::uint32_t base(std::uint32_t held = 0) const noexcept {
    return static_cast<std::uint16_t>(next_avail_ - held);
  }
  // After begin(), by who answers in the order in which it takes: what the driver has not seen
  // answered is taken. Whoever served the ring before us may have died between what it told of
  // itself and its store of used.idx; what it was about to answer then would be lost to the driver.
  void take_what_is_unanswered() noexcept {
    if (static_cast<std::uint16_t>(next_avail_ - next_used_) > size_) return;
    next_avail_ = seen_avail_ = next_used_;
  }
  // It does not change with show_used().
  static constexpr bool kBaseFollowsShown = false;
  [[nodiscard]] std::uint16_t size() const noexcept { return size_; }
  [[nodiscard]] const common::GuestWindow& descriptors() const noexcept { return desc_; }

 private:
  [[nodiscard]] std::uint16_t load_avail_idx() const noexcept;
  [[nodiscard]] Peek refuse(RingFault fault) noexcept;
  [[nodiscard]] bool wants_call(std::uint16_t before, std::uint16_t now) const noexcept;
  void store_notice(std::uint64_t offset, std::uint16_t value) noexcept;
  void log_answers(std::uint16_t from, std::uint16_t to) noexcept;

  common::GuestWindow desc_;
  common::GuestWindow avail_;
  common::GuestWindow used_;
  std::uint16_t size_ = 0;
  bool event_idx_ = false;
  bool kicks_enabled_ = true;
  bool peeked_ = false;
  std::uint16_t head_ = 0;
  std::uint16_t next_avail_ = 0;      // The next entry of the avail ring that we take.
  std::uint16_t seen_avail_ = 0;      // avail.idx when we last loaded it, checked.
  std::uint16_t next_used_ = 0;       // Where the next answer goes.
  std::uint16_t published_used_ = 0;  // used.idx as the guest sees it.
  std::uint16_t decided_used_ = 0;    // used.idx when take_call() looked last.
  Inflight inflight_;
  DirtyLog log_;
  RingFault fault_;
};

}  // namespace worker
