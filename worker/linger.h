// worker/linger.h: a last look around before a sleep, after a burst: who offered so much is just
// waking up and likely to go on, and a look shorter than a wake-up is cheaper than one.
//
// Not for polling (poller.h): it is done without being asked for, so it has to pay. Where nothing
// came, the next bursts go without it, twice as many each time.
#pragma once

#include <algorithm>
#include <cstdint>

#include "worker/poller.h"

namespace worker {

class Linger {
 public:
  explicit Linger(std::uint32_t ticks_per_us) noexcept
      : ticks_(std::uint64_t{kLingerUs} * ticks_per_us) {}

  // Requests or packets were taken since the last look, or sleep.
  void worked(std::uint32_t count) noexcept { burst_ += count; }
  [[nodiscard]] bool due() const noexcept { return burst_ >= kBurst && skip_ == 0 && ticks_ != 0; }

  // True if `what()` came true meanwhile. Only where due().
  template <typename What>
  [[nodiscard]] bool look(What&& what) noexcept {
    burst_ = 0;
    const std::uint64_t since = read_ticks();
    do {
      if (what()) {
        skipped_ = 0;
        return true;
      }
      relax_cpu();
    } while (read_ticks() - since < ticks_);
    skip_ = skipped_ = std::min(skipped_ * 2 + 1, kSkippedMax);
    return false;
  }

  void slept() noexcept {
    if (burst_ >= kBurst && skip_ != 0) --skip_;
    burst_ = 0;
  }

 private:
  static constexpr std::uint32_t kLingerUs = 20;
  static constexpr std::uint32_t kBurst = 16;
  static constexpr std::uint32_t kSkippedMax = 63;

  std::uint64_t ticks_;
  std::uint32_t burst_ = 0;
  std::uint32_t skip_ = 0;     // Bursts that go without it from now on,
  std::uint32_t skipped_ = 0;  // and how many of them followed the last look in vain.
};

}  // namespace worker
