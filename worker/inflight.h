// worker/inflight.h: keeps the in-flight region of one queue (common/inflight_wire.h), and finds in
// it what the worker before us had taken and not answered.
//
// Not trusted: the region. It is read once, at the start, and every field of it is checked; from
// then on it is only written: what we need of it ourselves is kept beside it. Whoever changes it
// meanwhile harms nobody but the guest whose requests these are.
//
// A worker is killed between two instructions, and what it has stored by then is seen by the next
// one in the order of the program: a compiler barrier is all the ordering that is needed. The one
// store that the guest sees, used.idx, is the ring's.
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <utility>

#include "common/inflight_wire.h"
#include "common/result.h"
#include "common/verify.h"
#include "worker/engine.h"
#include "worker/ring_fault.h"

namespace worker {

class Inflight {
 public:
  Inflight() noexcept = default;
  // `region` is mapped as long as this lives and has room for `entries` heads, at least as many as
  // the queue has. Empty: nobody could read what we wrote down, and so nothing is. `resume`: it may
  // know of requests that were taken and not answered. Without, whatever it says is forgotten at
  // once: the session relies on that as soon as it hears that we serve, even if we die right after.
  // With it, no byte of the region is looked at yet.
  Inflight(std::span<std::byte> region, std::uint16_t entries, std::uint16_t queue_size,
           bool resume);

  // Begins to keep the region. What it knows is what replay_head() brings. True if the region was
  // in use before.
  [[nodiscard]] common::Result<bool, RingFault> begin(std::uint16_t used_idx) noexcept;

  // What is to be served again, in the order in which it was taken, before anything new.
  [[nodiscard]] std::uint16_t replays_left() const noexcept {
    return static_cast<std::uint16_t>(replay_end_ - replay_next_);
  }
  [[nodiscard]] std::uint16_t replay_head() const noexcept { return replays_[replay_next_].head; }
  void replayed() noexcept { ++replay_next_; }

  // A head was taken from the avail ring.
  void take(std::uint16_t head) noexcept {
    if (states_ == nullptr) return;
    common::inflight::DescState* const state = states_ + head;
    state->counter = counter_++;
    barrier();
    state->in_flight = 1;
  }

  // Its answer is in the used ring, where nobody looks yet.
  void answer(std::uint16_t head) noexcept {
    if (states_ == nullptr) return;
    const std::uint32_t count = batch_count_++;
    batch_[count % kRequestsMax] = head;
    states_[head].next = std::exchange(last_batch_head_, head);
  }

  // Around the store of used.idx. Dying between the two is what the list of the last batch is for.
  void before_publish() noexcept {
    if (states_ == nullptr) return;
    header_->last_batch_head = last_batch_head_;
    barrier();
  }
  void after_publish(std::uint16_t used_idx) noexcept {
    if (states_ == nullptr) return;
    barrier();
    // In variables of its own: a store of a byte could change any member, for all the compiler
    // knows.
    common::inflight::DescState* const states = states_;
    const std::uint16_t* const batch = batch_.get();
    const std::uint32_t count = std::min(batch_count_, kRequestsMax);
    for (std::uint32_t i = 0; i < count; ++i) states[batch[i]].in_flight = 0;
    batch_count_ = 0;
    barrier();
    header_->used_idx = used_idx;
  }

 private:
  struct Replay {
    std::uint64_t counter;
    std::uint16_t head;
  };

  static void barrier() noexcept { std::atomic_signal_fence(std::memory_order_seq_cst); }
  void forget() noexcept;
  [[nodiscard]] common::Result<void, RingFault> find_in_flight() noexcept;
  [[nodiscard]] common::Result<void, RingFault> finish_last_batch(std::uint16_t first,
                                                                  std::uint16_t count) noexcept;

  common::inflight::Header* header_ = nullptr;
  common::inflight::DescState* states_ = nullptr;  // Null: there is no region.
  std::uint64_t counter_ = 0;
  std::uint16_t entries_ = 0;
  std::uint16_t queue_size_ = 0;
  std::uint16_t last_batch_head_ = 0;
  std::uint16_t replay_next_ = 0;
  std::uint16_t replay_end_ = 0;
  // Never more than kRequestsMax at once: blk_queue.cpp publishes in every turn.
  std::uint32_t batch_count_ = 0;
  std::unique_ptr<std::uint16_t[]> batch_;
  std::unique_ptr<Replay[]> replays_;
};

}  // namespace worker
