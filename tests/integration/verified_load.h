// tests/integration/verified_load.h: a guest that does not stop working while the test turns
// screws: reads and writes of its own part of the disk, each checked against what it must be.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "tests/fakes/blk_queue_driver.h"

namespace integration {

class VerifiedLoad {
 public:
  struct Plan {
    std::uint64_t first_sector = 0;
    std::uint64_t blocks = 64;  // Of 4096 bytes.
    std::uint16_t depth = 4;
    bool poll = false;        // No interrupts: looks at the ring.
    int patience_ms = 10000;  // An answer later than this has been lost.
    // How often each block has been written before; a fresh disk where there are none.
    std::vector<std::uint32_t> versions = {};
    std::uint64_t seed = 88172645463325252ULL;
    // Does nothing for that long after every so many answers: leaves the processors to others.
    std::chrono::microseconds rest{0};
    std::uint32_t answers_before_rest = 64;
  };
  VerifiedLoad(fakes::BlkQueueDriver& queue, const Plan& plan);
  VerifiedLoad(const VerifiedLoad&) = delete;
  VerifiedLoad& operator=(const VerifiedLoad&) = delete;
  ~VerifiedLoad();

  // Blocks until this many more requests have been answered; fails if the load has failed.
  void expect_progress(std::uint64_t requests = 50);
  // Waits for what is in flight, and fails if anything was lost or wrong.
  void stop();
  // After stop(): every block reads back as it was written last. Their versions, for a next load.
  [[nodiscard]] std::vector<std::uint32_t> verify_all();
  [[nodiscard]] std::uint64_t answered();
  // The longest time between two answers since this was asked last: what the guest saw of whatever
  // happened meanwhile.
  [[nodiscard]] std::chrono::microseconds take_longest_pause();
  // Why it ended, where it did without being asked; else empty.
  [[nodiscard]] std::string problem();
  // The same, where the queue is expected to die: no complaint.
  void abandon();

 private:
  void run();
  [[nodiscard]] std::optional<fakes::BlkDone> next();
  void submit(std::uint16_t slot);
  void check(const fakes::BlkDone& done);
  void count();

  using Clock = std::chrono::steady_clock;

  fakes::BlkQueueDriver& queue_;
  Plan plan_;
  struct Block {
    std::uint32_t version = 0;
    bool writing = false;
  };
  std::vector<Block> blocks_;
  std::vector<std::uint64_t> block_of_slot_;
  std::uint64_t random_;

  std::mutex mutex_;
  std::condition_variable moved_;
  std::uint64_t answered_ = 0;
  Clock::time_point answered_at_ = Clock::now();
  Clock::duration longest_pause_{0};
  std::string problem_;
  bool ended_ = false;
  std::atomic<bool> stop_ = false;
  std::atomic<bool> abandoned_ = false;
  std::thread thread_;
};

}  // namespace integration
