// broker/limits.h: how much of a device its guest may use each second: what the operator asked for,
// whoever enforces it: the workers (rates.h), and the kernel. As text: limit_text.h.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <string>

#include "common/device_kind.h"
#include "common/rate_page.h"

namespace broker {

struct RateLimit {
  std::uint64_t per_second = 0;  // 0: no limit.
  std::uint64_t burst = 0;       // How much may pass at once; 0: what passes in 100 ms.
  bool operator==(const RateLimit&) const = default;
};

// Of a network card, operations are packets, reads are what the guest receives, and writes what it
// sends.
struct DeviceLimits {
  std::array<RateLimit, common::kRateCount> rates{};

  [[nodiscard]] RateLimit& at(common::Rate rate) { return rates[static_cast<std::size_t>(rate)]; }
  [[nodiscard]] const RateLimit& at(common::Rate rate) const {
    return rates[static_cast<std::size_t>(rate)];
  }
  [[nodiscard]] bool any() const {
    return std::any_of(rates.begin(), rates.end(),
                       [](const RateLimit& rate) { return rate.per_second != 0; });
  }
  bool operator==(const DeviceLimits&) const = default;
};

// Less would make a guest take its disk for dead: its kernel complains of requests after 120 s.
inline constexpr std::uint64_t kBytesPerSecondMin = std::uint64_t{64} * 1024;
// More than any device does: it is a mistake, or meant as "none".
inline constexpr std::uint64_t kOperationsPerSecondMax = 100'000'000;
inline constexpr std::uint64_t kBytesPerSecondMax = 1'000'000'000'000;
// How much a bucket may hold: an hour's.
inline constexpr std::uint64_t kBurstSecondsMax = 3600;

// What passes at once, also where nothing was said of it.
[[nodiscard]] inline std::uint64_t burst_of(const RateLimit& limit) {
  return limit.burst != 0 ? limit.burst : std::max<std::uint64_t>(limit.per_second / 10, 1);
}

// Devices of one tenant that have limits together ([[group]]), beside each one's own.
struct GroupConfig {
  std::string name;
  std::string tenant;
  common::DeviceKind kind = common::DeviceKind::kBlk;
  DeviceLimits limits;
  bool operator==(const GroupConfig&) const = default;
};

}  // namespace broker
