// tests/bench/queue_load.h: one queue under load: the guest driver's loop with everything it could
// do beforehand done beforehand, so that the client is not what is measured.
#pragma once

#include <atomic>
#include <cstdint>
#include <vector>

#include "common/fd.h"
#include "tests/bench/histogram.h"
#include "tests/fakes/split_driver.h"
#include "tests/fakes/vm_memory.h"

namespace bench {

struct LoadPlan {
  bool write = false;
  bool sequential = false;
  bool poll = false;
  bool indirect = false;
  bool event_idx = false;
  std::uint32_t block_bytes = 4096;
  std::uint16_t depth = 1;
  std::uint16_t queue_size = 256;
  std::uint64_t first_block = 0;  // This queue's share of the disk.
  std::uint64_t blocks = 0;
  double rate = 0;  // Of this queue; 0: closed loop.
  std::uint32_t burst = 1;
  std::uint64_t seed = 1;
};

// All times are CLOCK_MONOTONIC nanoseconds. What happens outside [begin, end) is not counted.
struct Window {
  std::uint64_t begin = 0;
  std::uint64_t end = 0;
};

struct LoadResult {
  std::uint64_t requests = 0;
  std::uint64_t failed = 0;      // Status other than OK, at any time.
  std::uint64_t kicks = 0;       // Writes to the kick eventfd.
  std::uint64_t interrupts = 0;  // Writes of the back-end to the call eventfd.
  std::uint64_t wakeups = 0;     // Times the client woke up for one.
  Histogram latency_ns;
};

[[nodiscard]] std::uint64_t now_ns() noexcept;

class QueueLoad {
 public:
  [[nodiscard]] static std::uint64_t bytes_needed(const LoadPlan& plan) noexcept;
  QueueLoad(const LoadPlan& plan, const fakes::VmMemory& memory, std::uint64_t guest_addr);

  [[nodiscard]] const fakes::RingPlace& place() const noexcept { return place_; }
  [[nodiscard]] common::FdRef kick_fd() const noexcept { return kick_.ref(); }
  [[nodiscard]] common::FdRef call_fd() const noexcept { return call_.ref(); }

  // Runs until `window.end`, then waits for what is in flight. Fails if an answer never comes.
  [[nodiscard]] LoadResult run(const Window& window);
  // From another thread: the window is over now.
  void stop() noexcept { stopped_.store(true, std::memory_order_relaxed); }

 private:
  void prepare_slot(std::uint16_t slot);
  void submit(std::uint16_t slot, std::uint64_t now) noexcept;
  void submit_due(std::uint64_t now) noexcept;
  [[nodiscard]] std::uint32_t harvest(std::uint64_t now, bool resubmit);
  void publish();
  void sleep_until(std::uint64_t deadline);
  void wait_for_more(std::uint64_t deadline);
  [[nodiscard]] std::uint64_t next_block() noexcept;
  void count_interrupts() noexcept;
  [[nodiscard]] bool counting() const noexcept { return now_ >= window_.begin && !over(); }
  [[nodiscard]] bool over() const noexcept {
    return now_ >= window_.end || stopped_.load(std::memory_order_relaxed);
  }

  LoadPlan plan_;
  const fakes::VmMemory& memory_;
  fakes::RingPlace place_;
  fakes::SplitDriver driver_;
  common::Fd kick_;
  common::Fd call_;
  std::uint64_t slots_addr_ = 0;
  std::uint64_t data_addr_ = 0;
  std::byte* slots_host_ = nullptr;
  std::vector<std::uint64_t> submitted_ns_;
  std::vector<std::uint16_t> head_of_slot_;
  std::vector<std::uint16_t> slot_of_head_;
  std::vector<std::uint16_t> idle_slots_;  // With a rate.
  double interval_ns_ = 0;                 // Between two bursts.
  double due_ns_ = 0;
  std::uint64_t position_ = 0;
  std::uint64_t random_ = 1;
  std::uint32_t in_flight_ = 0;
  std::uint64_t now_ = 0;
  Window window_;
  std::atomic<bool> stopped_{false};
  LoadResult result_;
};

}  // namespace bench
