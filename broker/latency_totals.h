// broker/latency_totals.h: latency histograms (common/latency.h) as the broker and its clients add
// them up and read figures from them.
//
// Not trusted: the numbers, which workers have written. Sums wrap rather than overflow.
#pragma once

#include <array>
#include <cstdint>

#include "common/latency.h"
#include "common/status_page.h"

namespace broker {

struct LatencyCounts {
  std::array<std::uint64_t, common::kLatencyBuckets> buckets{};
  std::uint64_t sum_ns = 0;
  std::uint64_t max_ns = 0;
};
// Indexed by common::LatencyKind.
using LatencyTotals = std::array<LatencyCounts, common::kLatencyKinds>;

[[nodiscard]] LatencyTotals read_latency(const common::StatusPage& page) noexcept;
void add_latency(LatencyCounts& sum, const LatencyCounts& more) noexcept;
void add_latency(LatencyTotals& sum, const LatencyTotals& more) noexcept;
// All kinds together.
[[nodiscard]] LatencyCounts all_kinds(const LatencyTotals& totals) noexcept;
// What has been added between two looks. Its largest is that of its last bucket.
[[nodiscard]] LatencyCounts latency_since(const LatencyCounts& now,
                                          const LatencyCounts& before) noexcept;

[[nodiscard]] std::uint64_t count_of(const LatencyCounts& counts) noexcept;
// How many took less than 2^bit nanoseconds: exact.
[[nodiscard]] std::uint64_t count_below(const LatencyCounts& counts, std::uint32_t bit) noexcept;

struct LatencySummary {
  std::uint64_t count = 0;
  std::uint64_t p50_ns = 0;
  std::uint64_t p99_ns = 0;
  std::uint64_t p999_ns = 0;
  std::uint64_t max_ns = 0;
};
[[nodiscard]] LatencySummary summary_of(const LatencyCounts& counts) noexcept;

}  // namespace broker
