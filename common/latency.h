// common/latency.h: how long requests take, as a histogram that a worker writes and the broker
// reads.
//
// Log-linear: four buckets for each power of two of nanoseconds, from half a microsecond to 68
// seconds, so a figure read from it is wrong by an eighth at most. Every power of two is a border:
// what is below one is counted exactly. A floating-point number is a power of two and a fraction
// already, so its upper bits are its bucket: under twenty instructions for each request.
#pragma once

#include <array>
#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "common/single_writer.h"

namespace common {

// Of what; as worker::ParsedRequest::Work has them.
enum class LatencyKind : std::uint8_t {
  kPackets = 0,  // Of a card: that are sent.
  kRead,
  kWrite,
  kFlush,
  kDiscard,
  kWriteZeroes,
};
inline constexpr std::size_t kLatencyKinds = 6;

inline constexpr std::uint32_t kLatencyFirstBit = 9;  // Of 512 ns: shorter ones are with these.
inline constexpr std::uint32_t kLatencyLastBit = 36;  // Of 68.7 s: longer ones have one bucket.
inline constexpr std::uint32_t kLatencySteps = 4;     // For each power of two between these.
inline constexpr std::uint32_t kLatencyBuckets =
    kLatencySteps * (kLatencyLastBit - kLatencyFirstBit) + 1;

// A minimum or maximum is one instruction, where the compiler would branch for what is hardly ever
// so.
constexpr void keep_unbranched([[maybe_unused]] double& number) noexcept {
#if defined(__x86_64__)
  if (!std::is_constant_evaluated()) asm("" : "+x"(number));
#endif
}

// Which one counts it. A time before its beginning is none at all.
[[nodiscard]] constexpr std::uint32_t latency_bucket(double nanoseconds) noexcept {
  constexpr double kFirst = 1ULL << kLatencyFirstBit;
  constexpr double kLast = 1ULL << kLatencyLastBit;
  constexpr std::uint32_t kShift = 50;  // The sign, the exponent, and two bits of the fraction.
  constexpr auto kBase = static_cast<std::uint32_t>(std::bit_cast<std::uint64_t>(kFirst) >> kShift);
  double within = nanoseconds > kFirst ? nanoseconds : kFirst;
  keep_unbranched(within);
  within = within < kLast ? within : kLast;
  keep_unbranched(within);
  return static_cast<std::uint32_t>(std::bit_cast<std::uint64_t>(within) >> kShift) - kBase;
}

// The first latency that is too long for this bucket; the last has none.
[[nodiscard]] constexpr std::uint64_t latency_bound_ns(std::uint32_t bucket) noexcept {
  if (bucket + 1 >= kLatencyBuckets) return UINT64_MAX;
  const std::uint64_t step = kLatencySteps + bucket % kLatencySteps + 1;
  return step << (kLatencyFirstBit + bucket / kLatencySteps - 2);
}

// One writer, one reader, who takes every number for hostile; relaxed, as on the rest of the page.
struct LatencyHistogram {
  std::array<std::atomic<std::uint64_t>, kLatencyBuckets> buckets;
  std::atomic<std::uint64_t> sum_ns;
  std::atomic<std::uint64_t> max_ns;
  // To 1 KiB: the one of a kind is found by a shift.
  std::array<std::atomic<std::uint64_t>, 128 - kLatencyBuckets - 2> spare;

  // `times` of them took that long.
  void add(double nanoseconds, std::uint32_t times = 1) noexcept {
    add_alone(buckets[latency_bucket(nanoseconds)], times);
    const auto whole = static_cast<std::int64_t>(nanoseconds);
    add_alone(sum_ns, static_cast<std::uint64_t>(whole * times));
    const auto most = static_cast<std::int64_t>(max_ns.load(std::memory_order_relaxed));
    if (whole > most) [[unlikely]] {
      max_ns.store(static_cast<std::uint64_t>(whole), std::memory_order_relaxed);
    }
  }
};
static_assert(sizeof(LatencyHistogram) == 1024);

}  // namespace common
