// broker/budget.h: how often somebody untrusted may make us do something that others notice: write
// a line, start a session.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <utility>

namespace broker {

// `burst` at once, and then `per_second`; what is refused is counted.
class Budget {
 public:
  using Clock = std::chrono::steady_clock;
  Budget(double per_second, double burst) : per_second_(per_second), burst_(burst), left_(burst) {}

  [[nodiscard]] bool take(Clock::time_point now = Clock::now()) {
    const std::chrono::duration<double> passed = now - std::exchange(last_, now);
    left_ = std::min(burst_, left_ + passed.count() * per_second_);
    if (left_ >= 1) {
      left_ -= 1;
      return true;
    }
    ++dropped_;
    return false;
  }
  // How many were refused since this was asked last.
  [[nodiscard]] std::uint64_t take_dropped() noexcept { return std::exchange(dropped_, 0); }

 private:
  double per_second_;
  double burst_;
  double left_;
  std::uint64_t dropped_ = 0;
  Clock::time_point last_{};
};

}  // namespace broker
