#include "broker/latency_totals.h"

#include <algorithm>
#include <cmath>
#include <cstddef>

namespace broker {
namespace {

std::uint64_t lower_bound_ns(std::uint32_t bucket) noexcept {
  return bucket == 0 ? 0 : common::latency_bound_ns(bucket - 1);
}

// In the middle of the bucket where that many are reached, but never more than the largest.
std::uint64_t quantile_ns(const LatencyCounts& counts, std::uint64_t total, double part) noexcept {
  const auto wanted = static_cast<std::uint64_t>(std::ceil(static_cast<double>(total) * part));
  std::uint64_t reached = 0;
  for (std::uint32_t i = 0; i + 1 < common::kLatencyBuckets; ++i) {
    reached += counts.buckets[i];
    if (reached < wanted) continue;
    const std::uint64_t low = lower_bound_ns(i);
    return std::min(low + (common::latency_bound_ns(i) - low) / 2, counts.max_ns);
  }
  return counts.max_ns;
}

}  // namespace

LatencyTotals read_latency(const common::StatusPage& page) noexcept {
  LatencyTotals totals;
  for (std::size_t kind = 0; kind < totals.size(); ++kind) {
    const common::LatencyHistogram& from = page.latency[kind];
    for (std::size_t i = 0; i < from.buckets.size(); ++i) {
      totals[kind].buckets[i] = from.buckets[i].load(std::memory_order_relaxed);
    }
    totals[kind].sum_ns = from.sum_ns.load(std::memory_order_relaxed);
    totals[kind].max_ns = from.max_ns.load(std::memory_order_relaxed);
  }
  return totals;
}

void add_latency(LatencyCounts& sum, const LatencyCounts& more) noexcept {
  for (std::size_t i = 0; i < sum.buckets.size(); ++i) sum.buckets[i] += more.buckets[i];
  sum.sum_ns += more.sum_ns;
  sum.max_ns = std::max(sum.max_ns, more.max_ns);
}

void add_latency(LatencyTotals& sum, const LatencyTotals& more) noexcept {
  for (std::size_t kind = 0; kind < sum.size(); ++kind) add_latency(sum[kind], more[kind]);
}

LatencyCounts all_kinds(const LatencyTotals& totals) noexcept {
  LatencyCounts sum;
  for (const LatencyCounts& kind : totals) add_latency(sum, kind);
  return sum;
}

LatencyCounts latency_since(const LatencyCounts& now, const LatencyCounts& before) noexcept {
  LatencyCounts delta;
  delta.sum_ns = now.sum_ns - before.sum_ns;
  for (std::uint32_t i = 0; i < common::kLatencyBuckets; ++i) {
    delta.buckets[i] = now.buckets[i] - before.buckets[i];
    if (delta.buckets[i] == 0) continue;
    delta.max_ns = std::min(common::latency_bound_ns(i), now.max_ns);
  }
  return delta;
}

std::uint64_t count_of(const LatencyCounts& counts) noexcept {
  std::uint64_t sum = 0;
  for (const std::uint64_t bucket : counts.buckets) sum += bucket;
  return sum;
}

std::uint64_t count_below(const LatencyCounts& counts, std::uint32_t bit) noexcept {
  const std::uint32_t end = common::latency_bucket(static_cast<double>(std::uint64_t{1} << bit));
  std::uint64_t sum = 0;
  for (std::uint32_t i = 0; i < end; ++i) sum += counts.buckets[i];
  return sum;
}

LatencySummary summary_of(const LatencyCounts& counts) noexcept {
  const std::uint64_t total = count_of(counts);
  if (total == 0) return {};
  return {total, quantile_ns(counts, total, 0.5), quantile_ns(counts, total, 0.99),
          quantile_ns(counts, total, 0.999), counts.max_ns};
}

}  // namespace broker
