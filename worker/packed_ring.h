// worker/packed_ring.h: our half of a packed virtqueue (virtio 1.2, 2.8): which descriptors are
// available, where answers go, and who wants to be notified of what. It offers what SplitRing does.
//
// Not trusted: every descriptor and the driver's event area. A chain is copied out of the ring
// once, each field by one fetch, when it is looked at; segments are made of the copy
// (packed_chain.h). What we wrote is never read back, but for one look at the start.
//
// A head, as the queues know it, is a handle of ours below the queue's size, which stands for one
// chain that was taken. The driver's buffer id is only given back: any 16 bits, and two buffers
// that have the same one are two buffers. How many descriptors are ours is counted, so that a chain
// is never longer than what the driver can have had to offer, whatever it writes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "common/guest_memory.h"
#include "common/ipc/worker_messages.h"
#include "common/result.h"
#include "common/virtqueue_wire.h"
#include "worker/dirty_log.h"
#include "worker/packed_inflight.h"
#include "worker/ring.h"
#include "worker/ring_fault.h"
#include "worker/slots.h"

namespace worker {

class PackedRing {
 public:
  using Peek = SplitRing::Peek;
  using Begin = SplitRing::Begin;
  using Publish = SplitRing::Publish;

  // Refuses a size beyond kQueueSizeMax (2.8.10.1: it need be no power of two), a base outside the
  // ring, and parts that are unmapped or misaligned. Looks at no byte of the guest's. `start` has
  // the driver's event area as avail_addr, ours as used_addr and a PackedBase as next_avail.
  [[nodiscard]] static common::Result<PackedRing, RingFault> create(
      const common::GuestMemory& memory, const common::ipc::RingStart& start,
      std::span<std::byte> inflight = {}, std::span<std::byte> log = {}) noexcept;

  // First touch: goes on where the base says, or the in-flight region, and turns notifications off.
  [[nodiscard]] Begin begin() noexcept;

  // The next chain, which stays in the ring until take(). It is fetched once, however often it is
  // looked at.
  [[nodiscard]] Peek peek() noexcept;
  [[nodiscard]] std::uint16_t head() const noexcept { return head_; }
  // Of the chain that was peeked at: its descriptors, copied, and where the first of them is.
  [[nodiscard]] std::span<const common::WirePackedDesc> chain() const noexcept { return chain_; }
  [[nodiscard]] std::uint16_t place() const noexcept { return next_avail_.index; }
  [[nodiscard]] const RingFault& fault() const noexcept { return fault_; }
  void take() noexcept;
  // The next chain is one that was taken before, by a worker that has died since. Its descriptors
  // come from the in-flight region: in the ring, answers to others may lie over them.
  [[nodiscard]] bool replaying() const noexcept { return inflight_.replays_left() != 0; }

  // Undoes the last `count` take()s of chains that were not answered: they are read anew.
  void put_back(std::uint16_t count) noexcept;

  // Answers a chain; the guest sees it with the next publish(). `written`: see 2.8.4.
  void add_used(std::uint16_t head, std::uint32_t written) noexcept;

  // Shows the guest all answers so far. False if there were none since the last time.
  bool show_used() noexcept;
  [[nodiscard]] std::uint16_t uncalled() const noexcept {
    return static_cast<std::uint16_t>(shown_ - decided_);
  }
  // Whether the guest wants an interrupt for those; kNothing where there are none.
  [[nodiscard]] Publish take_call() noexcept;
  [[nodiscard]] Publish publish() noexcept {
    (void)show_used();
    return take_call();
  }

  // How many chains the guest has offered, as far as we have looked, that are not taken yet. There
  // is no index to read it from: what is available is counted ahead, each descriptor once.
  [[nodiscard]] std::uint16_t waiting() const noexcept {
    return static_cast<std::uint16_t>(seen_chains_ + inflight_.replays_left());
  }
  // The same, and looks again.
  [[nodiscard]] std::uint16_t offered() noexcept {
    look_ahead();
    return seen_chains_;
  }

  // The guest need not kick: we look at the ring anyway.
  void disable_kicks() noexcept;
  // Asks for a kick with the next chain. True if one has arrived meanwhile: do not sleep then.
  [[nodiscard]] bool enable_kicks() noexcept;

  // True if there is something to peek at: for busy polling. Says nothing about sanity.
  [[nodiscard]] bool has_new() const noexcept {
    return peeked_ || (free_ != 0 && is_available(next_avail_)) || replaying();
  }

  [[nodiscard]] DirtyLog& log() noexcept { return log_; }

  // Where another worker goes on, as RingStart::next_avail has it, if the last `held` chains taken,
  // which are all that are not answered or none, are to be read anew. As long as answers are not
  // shown, it has them only as what was done, and not as what was returned: begin() then looks
  // whether they were.
  [[nodiscard]] std::uint32_t base(std::uint32_t held = 0) const noexcept;
  // So it changes with show_used().
  static constexpr bool kBaseFollowsShown = true;
  [[nodiscard]] std::uint16_t size() const noexcept { return size_; }

 private:
  // A chain that was taken. `descriptors` is 0 where the handle is free.
  struct Taken {
    std::uint16_t id;
    std::uint16_t descriptors;
    std::uint16_t entry;  // Of the in-flight region.
  };

  PackedRing(std::uint16_t size, bool event_idx, const common::PackedBase& base);

  [[nodiscard]] static std::uint64_t offset_of(std::uint16_t index) noexcept {
    return std::uint64_t{index} * sizeof(common::WirePackedDesc);
  }
  [[nodiscard]] std::uint16_t load_flags(std::uint16_t index) const noexcept {
    return ring_.load16_acquire(offset_of(index) + common::kPackedDescFlagsOffset);
  }
  [[nodiscard]] bool is_available(common::PackedPlace at) const noexcept {
    return common::packed_is_available(load_flags(at.index), at.wrap);
  }
  // `count` is at most the ring's size.
  [[nodiscard]] common::PackedPlace after(common::PackedPlace at,
                                          std::uint32_t count) const noexcept {
    return common::packed_ahead(at, count, size_);
  }
  [[nodiscard]] common::PackedPlace before(common::PackedPlace at,
                                           std::uint32_t count) const noexcept {
    if (at.index >= count) return {static_cast<std::uint16_t>(at.index - count), at.wrap};
    return {static_cast<std::uint16_t>(at.index + size_ - count), !at.wrap};
  }
  [[nodiscard]] common::WirePackedDesc fetch(std::uint16_t index,
                                             std::uint16_t flags) const noexcept;
  [[nodiscard]] Peek fetch_chain(std::uint16_t flags) noexcept;
  [[nodiscard]] Peek found_chain() noexcept;
  [[nodiscard]] Peek refuse(RingFault fault) noexcept;
  void look_ahead() noexcept;
  void go_on_at(const common::PackedBase& base) noexcept;
  void settle_base() noexcept;
  [[nodiscard]] bool wants_call(common::PackedPlace from, std::uint32_t count) const noexcept;
  void store_notice(std::uint16_t flags) noexcept;
  void log_answers(std::uint16_t first, std::uint32_t count) noexcept;

  common::GuestWindow ring_;
  common::GuestWindow driver_area_;
  common::GuestWindow device_area_;
  common::GuestAddr ring_addr_;
  std::uint16_t size_;
  bool event_idx_;
  bool kicks_enabled_ = true;
  bool peeked_ = false;
  bool unshown_ = false;  // There are answers that the guest does not see yet.
  std::uint16_t head_ = 0;

  common::PackedPlace next_avail_;         // The next descriptor that we take.
  common::PackedPlace next_used_;          // Where the next answer goes.
  common::PackedPlace published_;          // The first answer that the guest does not see yet,
  std::uint16_t published_flags_ = 0;      // and, where there is one, what it will see.
  common::PackedPlace decided_place_;      // published_, when take_call() looked last.
  std::uint32_t unshown_descriptors_ = 0;  // From published_ to next_used_.
  std::uint32_t undecided_ = 0;            // Descriptors from there to published_.
  std::uint32_t free_;          // Descriptors that are not ours: taken, and no answer shown.
  std::uint16_t chains_ = 0;    // Taken and not answered.
  std::uint16_t answered_ = 0;  // Chains, ever,
  std::uint16_t shown_ = 0;     // shown to the guest,
  std::uint16_t decided_ = 0;   // and decided about.
  std::uint32_t seen_descriptors_ = 0;  // From next_avail_ on, as far as we have looked ahead:
  std::uint16_t seen_chains_ = 0;       // what is available.
  std::uint16_t order_next_ = 0;        // Of order_.

  FreeList handles_;
  std::unique_ptr<Taken[]> taken_;                    // By handle.
  std::unique_ptr<std::uint16_t[]> order_;            // The last handles taken, in a ring.
  std::unique_ptr<common::WirePackedDesc[]> copies_;  // Of what was peeked at in the ring.
  std::span<const common::WirePackedDesc> chain_;     // There, or in the in-flight region.
  PackedInflight inflight_;
  DirtyLog log_;
  RingFault fault_;
};

}  // namespace worker
