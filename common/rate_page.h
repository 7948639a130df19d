// common/rate_page.h: the memory by which the broker limits the rates of a device, or of a group of
// devices: one memfd, which all of its workers map.
//
// The first page is the broker's: what may pass each second. Workers map it read-only. The second
// page has the buckets, which the workers share with nothing but atomic instructions. A hijacked
// worker can write anything into those: it cheats, or delays, itself and the workers that share
// them, which are of the same tenant; what it cannot exceed is the kernel's to say (io.max).
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>

namespace common {

// What can be limited. Of a disk, operations are requests; of a network card, they are packets,
// reading is receiving, and writing is sending.
enum class Rate : std::uint8_t {
  kOperations = 0,
  kReadOperations,
  kWriteOperations,
  kBytes,
  kReadBytes,
  kWriteBytes,
};
inline constexpr std::size_t kRateCount = 6;
[[nodiscard]] constexpr bool counts_bytes(Rate rate) noexcept { return rate >= Rate::kBytes; }
[[nodiscard]] constexpr bool limits_reads(Rate rate) noexcept {
  return rate != Rate::kWriteOperations && rate != Rate::kWriteBytes;
}
[[nodiscard]] constexpr bool limits_writes(Rate rate) noexcept {
  return rate != Rate::kReadOperations && rate != Rate::kReadBytes;
}

// Written by the broker only.
struct RateSettings {
  // 0: nothing limits this device, neither of its own nor of its group's. Else another number after
  // each change, which is stored last.
  std::atomic<std::uint32_t> state;
  std::array<std::atomic<std::uint64_t>, kRateCount> per_second;  // 0: no limit.
  std::array<std::atomic<std::uint64_t>, kRateCount> burst;       // How much may pass at once.
};

// A bucket is the time at which it will be full again, in the limiter's units
// (worker/rate_limiter).
struct RateBuckets {
  std::array<std::atomic<std::uint64_t>, kRateCount> full_at;
  std::atomic<std::uint64_t> seen;  // The latest time that a worker has read.
};

inline constexpr std::size_t kRatePageBytes = 4096;
inline constexpr std::size_t kRateMemoryBytes = 2 * kRatePageBytes;  // Settings, then buckets.
static_assert(sizeof(RateSettings) <= kRatePageBytes && sizeof(RateBuckets) <= kRatePageBytes);

}  // namespace common
