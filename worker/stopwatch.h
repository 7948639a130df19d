// worker/stopwatch.h: the CPU's counter in nanoseconds, for the latency histogram.
#pragma once

#include <cstdint>

#include "common/ticks.h"

namespace worker {

class Stopwatch {
 public:
  // Without `ticks_per_us` time stands still; the broker, which did not know it, looks at no
  // latency then.
  explicit Stopwatch(std::uint32_t ticks_per_us) noexcept
      : first_(common::read_ticks()),
        ns_per_tick_(ticks_per_us == 0 ? 0.0 : 1000.0 / ticks_per_us) {}

  // Since it was made: a double has room for every nanosecond of a hundred days.
  [[nodiscard]] double nanoseconds(std::uint64_t ticks) const noexcept {
    return static_cast<double>(static_cast<std::int64_t>(ticks - first_)) * ns_per_tick_;
  }

 private:
  std::uint64_t first_;
  double ns_per_tick_;
};

}  // namespace worker
