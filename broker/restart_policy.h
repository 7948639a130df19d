// broker/restart_policy.h: how often the dead worker of one queue is replaced. A worker that dies
// now and then is replaced at once. One that dies whenever it is started must not be restarted for
// ever: a guest may have found out how to crash it, and tries it as an attack.
#pragma once

#include <algorithm>
#include <chrono>
#include <cmath>
#include <optional>

namespace broker {

class RestartPolicy {
 public:
  using Seconds = std::chrono::duration<double>;
  using Milliseconds = std::chrono::milliseconds;

  // So many deaths in a row are answered at once, and so many more after a growing delay.
  static constexpr int kAtOnce = 8;
  static constexpr int kInAll = 16;
  static constexpr Milliseconds kFirstDelay{50};
  static constexpr Milliseconds kLongestDelay{1000};
  // A life this long makes one death forgotten.
  static constexpr Seconds kForgetAfter{0.25};

  // A worker has died after so long a life: how long to wait with the next one; nothing where there
  // is to be none.
  [[nodiscard]] std::optional<Milliseconds> after_death(Seconds lived) noexcept {
    deaths_ = std::max(0.0, deaths_ - lived / kForgetAfter) + 1;
    if (deaths_ > kInAll) return std::nullopt;
    Milliseconds delay{0};
    const int over = static_cast<int>(std::ceil(deaths_ - kAtOnce));
    for (int death = 0; death < over; ++death) {
      delay = delay.count() == 0 ? kFirstDelay : std::min(delay * 2, kLongestDelay);
    }
    return delay;
  }

 private:
  double deaths_ = 0;
};

}  // namespace broker
