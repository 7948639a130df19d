// tests/fakes/rates.h: the memory of rate limits, as the broker writes it.
#pragma once

#include <cstddef>
#include <cstdint>

#include "common/rate_page.h"
#include "worker/rate_limiter.h"

namespace fakes {

struct Rates {
  Rates& set(common::Rate rate, std::uint64_t per_second, std::uint64_t burst) {
    settings.per_second[static_cast<std::size_t>(rate)] = per_second;
    settings.burst[static_cast<std::size_t>(rate)] = burst;
    settings.state = (settings.state + 2) | 1;
    return *this;
  }
  void lift() {
    for (auto& rate : settings.per_second) rate = 0;
    settings.state = 0;
  }
  [[nodiscard]] worker::RateMemory view() { return {&settings, &buckets}; }

  common::RateSettings settings{};
  common::RateBuckets buckets{};
};

// Ticks in a microsecond, so many that a second takes many: with one request or byte a second, time
// stands still for a test.
inline constexpr std::uint32_t kFrozenClock = 50'000;

}  // namespace fakes
