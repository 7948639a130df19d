// broker/limit_text.h: rate limits as people write them:
// "iops=1000,bps=50M,read-iops=500,read-iops-burst=50".
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>

#include "broker/config.h"
#include "broker/limits.h"
#include "common/device_kind.h"

namespace broker {

// "read-iops", or "rx-packets".
[[nodiscard]] std::string_view rate_name(common::Rate rate, common::DeviceKind kind);
[[nodiscard]] std::string rate_names(common::DeviceKind kind);

// What an operator wants changed. What is not named stays.
struct LimitChange {
  static constexpr std::uint64_t kKeep = UINT64_MAX;
  std::array<std::uint64_t, common::kRateCount> per_second = all_kept();
  std::array<std::uint64_t, common::kRateCount> burst = all_kept();

  [[nodiscard]] static constexpr std::array<std::uint64_t, common::kRateCount> all_kept() {
    std::array<std::uint64_t, common::kRateCount> kept{};
    kept.fill(kKeep);
    return kept;
  }
};

// "iops=1000,bps=50M,burst=200ms"; with "none", what is not named beside it has no limit. K, M, G
// and T are powers of 1000, Ki and so on of 1024. An error continues "--limit …".
[[nodiscard]] Answer<LimitChange> parse_limit_change(std::string_view text,
                                                     common::DeviceKind kind);
// The limits as they are then, checked.
[[nodiscard]] Answer<DeviceLimits> changed_limits(DeviceLimits limits, const LimitChange& change,
                                                  common::DeviceKind kind);
// Both, from nothing.
[[nodiscard]] Answer<DeviceLimits> parse_limits(std::string_view text, common::DeviceKind kind);

// What parse_limits() reads as these; empty where nothing is limited.
[[nodiscard]] std::string limits_text(const DeviceLimits& limits, common::DeviceKind kind);

}  // namespace broker
