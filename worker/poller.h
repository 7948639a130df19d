// worker/poller.h: how long to look at the ring before sleeping: adaptive, bounded, off by default.
#pragma once

#include <algorithm>
#include <cstdint>

#include "common/ticks.h"

namespace worker {

using common::read_ticks;

inline void relax_cpu() noexcept {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// A wake-up costs some 20 us, so polling pays as long as the next request comes within the longest
// poll allowed. Grows when it would have come in time, shrinks to nothing when the guest is idle;
// so an idle queue costs one short poll for each of a few wake-ups, and none while it sleeps.
//
// Where work comes soon after each poll and never during one, it may be the poll that holds it up:
// who brings it, the guest or the worker of the card's other direction, waits for our CPU. Then
// there is a rest without polls, a longer one each time.
class Poller {
 public:
  Poller(std::uint32_t poll_us, std::uint32_t ticks_per_us) noexcept
      : longest_(std::uint64_t{poll_us} * ticks_per_us),
        shortest_(std::min(longest_, std::uint64_t{kShortestUs} * ticks_per_us)),
        window_(longest_) {}

  [[nodiscard]] bool enabled() const noexcept { return longest_ != 0; }
  // 0: do not poll.
  [[nodiscard]] std::uint64_t window() const noexcept { return window_; }

  // Work came while polling.
  void hit() noexcept {
    in_vain_ = rested_ = 0;
    grow();
  }

  // None came within the window, and it was `idle` ticks in all from the end of the last work until
  // there was some again.
  void slept(std::uint64_t idle) noexcept {
    if (longest_ == 0) return;
    if (rest_ != 0) {
      --rest_;
      return;
    }
    if (idle <= longest_) return missed();
    window_ /= 2;
    if (window_ < shortest_) window_ = 0;
  }

 private:
  static constexpr std::uint32_t kShortestUs = 4;
  static constexpr std::uint32_t kInVainMax = 8;
  static constexpr std::uint32_t kRestMax = 1023;

  void grow() noexcept { window_ = std::min(longest_, std::max(shortest_, window_ * 2)); }
  // It would have come in time.
  void missed() noexcept {
    if (window_ != 0 && ++in_vain_ == kInVainMax) {
      in_vain_ = 0;
      window_ = 0;
      rest_ = rested_ = std::min(rested_ * 2 + 1, kRestMax);
      return;
    }
    grow();
  }

  std::uint64_t longest_;
  std::uint64_t shortest_;
  std::uint64_t window_;
  std::uint32_t in_vain_ = 0;  // Polls that just missed it, since one did not.
  std::uint32_t rest_ = 0;     // Sleeps without a poll from now on,
  std::uint32_t rested_ = 0;   // and how many there were the last time.
};

}  // namespace worker
