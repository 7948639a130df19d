// broker/calibrate.h: how fast the CPU's time stamp counter runs, for workers that poll: they have
// no clock but that one once they are sealed.
#pragma once

#include <cstdint>

namespace broker {

// Costs two clock reads when made and two when asked; what passes between them is the measurement.
class TscClock {
 public:
  TscClock() noexcept;

  // Ticks per microsecond, at least 1. Waits until 200 us have passed since construction.
  [[nodiscard]] std::uint32_t ticks_per_us() const noexcept;

 private:
  std::uint64_t ticks_;
  std::uint64_t nanoseconds_;
};

}  // namespace broker
