// worker/packed_inflight.h: keeps the in-flight region of one packed queue
// (common/packed_inflight_wire.h), and finds in it what the worker before us had taken and not
// answered. inflight.h does the same for split rings.
//
// Not trusted: the region. It is read once, at the start, and every field of it is checked; from
// then on it is only written: what we need of it ourselves is kept beside it. Whoever changes it
// meanwhile harms nobody but the guest whose requests these are.
//
// A worker is killed between two instructions, and what it has stored by then is seen by the next
// one in the order of the program: a compiler barrier is all the ordering that is needed. The one
// store that the guest sees, the flags of the first descriptor of a batch, is the ring's.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "common/guest_memory.h"
#include "common/packed_inflight_wire.h"
#include "common/result.h"
#include "common/verify.h"
#include "common/virtqueue_wire.h"
#include "worker/ring_fault.h"

namespace worker {

class PackedInflight {
 public:
  // A chain that was taken before us: its descriptors as they were in the ring, in our own memory.
  // All but the last have NEXT. The buffer id is the last one's (2.8.6).
  struct Replay {
    std::span<const common::WirePackedDesc> descriptors;
    std::uint16_t entry = 0;  // For answer(): it is taken already.
  };

  PackedInflight() noexcept = default;
  // `region` is mapped as long as this lives and has room for `entries` descriptors, at least as
  // many as the queue has. Empty: nobody could read what we wrote down, and so nothing is.
  // `resume`: it may know of requests that were taken and not answered. Without, whatever it says
  // is forgotten at once: the session relies on that as soon as it hears that we serve, even if we
  // die right after. With it, no byte of the region is looked at yet.
  PackedInflight(std::span<std::byte> region, std::uint16_t entries, std::uint16_t queue_size,
                 bool resume);

  // Begins to keep the region. `ring` are the descriptors: whether the last batch was shown to the
  // guest can be seen there only. `base`: where the ring goes on, as far as the front-end knows.
  // True if the region was in use before: then it says better than `base` where to go on, and what
  // it knows to be in flight is what replay() brings.
  [[nodiscard]] common::Result<bool, RingFault> begin(const common::GuestWindow& ring,
                                                      const common::PackedBase& base) noexcept;
  // After begin(): where the ring goes on. What is to be replayed lies between the two.
  [[nodiscard]] const common::PackedBase& base() const noexcept { return base_; }

  // What is to be served again, in the order in which it was taken, before anything new.
  [[nodiscard]] std::uint16_t replays_left() const noexcept {
    return static_cast<std::uint16_t>(replay_end_ - replay_next_);
  }
  [[nodiscard]] Replay replay() const noexcept {
    const Found& found = replays_[replay_next_];
    return {{copies_.get() + found.first, chains_[found.entry].count}, found.entry};
  }
  void replayed() noexcept { ++replay_next_; }

  // A chain was taken from the ring, whose descriptors these are; its entry is what answer() wants.
  // The ring has seen to it that what is taken and not published yet is never more than
  // `queue_size` descriptors: a driver may not offer more (2.8.16).
  [[nodiscard]] std::uint16_t take(std::span<const common::WirePackedDesc> descriptors) noexcept {
    return states_ == nullptr ? std::uint16_t{0} : keep(descriptors);
  }

  // It is answered, where nobody looks yet. Entries are answered in the order in which their used
  // descriptors lie in the ring.
  void answer(std::uint16_t entry) noexcept {
    if (states_ == nullptr) return;
    common::verify(batch_count_ < queue_size_);
    batch_[batch_count_++] = entry;
  }

  // Around the store that shows the guest a batch: the flags of its first used descriptor, which
  // come after those of all others. Dying between the two is what the old_ fields are for.
  void before_publish() noexcept {
    if (states_ != nullptr) list_batch();
  }
  void after_publish() noexcept {
    if (states_ != nullptr) finish_batch();
  }

 private:
  // What we know ourselves of each entry.
  struct Entry {
    std::uint16_t next;   // In its list.
    std::uint16_t last;   // Of a head,
    std::uint16_t count;  // likewise.
    bool found;           // When the region is read: in some list,
    bool free;            // and in the free one.
  };
  struct Found {
    std::uint64_t counter;
    std::uint16_t entry;
    std::uint16_t first;  // In copies_.
  };

  static void barrier() noexcept { std::atomic_signal_fence(std::memory_order_seq_cst); }
  [[nodiscard]] std::span<const std::uint16_t> batch() const noexcept {
    return {batch_.get(), batch_count_};
  }
  [[nodiscard]] std::uint16_t keep(std::span<const common::WirePackedDesc> descriptors) noexcept;
  void list_batch() noexcept;
  void finish_batch() noexcept;

  void start_anew(const common::PackedBase& base) noexcept;
  [[nodiscard]] common::Result<void, RingFault> read_heads(
      const common::inflight::PackedHeads& heads, const common::GuestWindow& ring) noexcept;
  [[nodiscard]] common::Result<void, RingFault> read_free_list() noexcept;
  [[nodiscard]] common::Result<void, RingFault> find_in_flight() noexcept;
  [[nodiscard]] common::Result<void, RingFault> read_chain(std::uint16_t head) noexcept;
  void free_the_rest() noexcept;
  void store_heads(std::uint16_t version) noexcept;
  void store_used() noexcept;

  common::inflight::PackedHeader* header_ = nullptr;
  common::inflight::PackedDescState* states_ = nullptr;  // Null: there is no region.
  std::uint64_t counter_ = 0;
  std::uint16_t entries_ = 0;
  std::uint16_t queue_size_ = 0;
  std::uint16_t free_head_ = 0;  // Where the next chain is kept.
  std::uint16_t free_count_ = 0;
  std::uint16_t free_tail_ = 0;      // Only while the region is read.
  std::uint16_t old_free_head_ = 0;  // As the region has it: other than free_head_ in a batch.
  std::uint16_t copied_ = 0;
  std::uint16_t replay_next_ = 0;
  std::uint16_t replay_end_ = 0;
  std::uint16_t batch_count_ = 0;
  common::PackedBase base_;
  common::PackedPlace used_;      // Where the next batch begins,
  common::PackedPlace old_used_;  // and what the region has for it until a batch is finished.
  std::unique_ptr<Entry[]> chains_;
  std::unique_ptr<std::uint16_t[]> batch_;
  std::unique_ptr<Found[]> replays_;
  std::unique_ptr<common::WirePackedDesc[]> copies_;
};

}  // namespace worker
