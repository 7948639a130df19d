#include "broker/latency_totals.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <initializer_list>
#include <memory>

namespace broker {
namespace {

using common::latency_bucket;
using common::LatencyKind;

LatencyCounts counts_of(std::initializer_list<std::uint64_t> latencies) {
  LatencyCounts counts;
  for (const std::uint64_t one : latencies) {
    ++counts.buckets[latency_bucket(static_cast<double>(one))];
    counts.sum_ns += one;
    counts.max_ns = std::max(counts.max_ns, one);
  }
  return counts;
}

TEST(LatencyTotals, ReadWhatAWorkerHasWritten) {
  const auto page = std::make_unique<common::StatusPage>();
  page->latency[static_cast<std::size_t>(LatencyKind::kFlush)].add(9000);
  const LatencyTotals totals = read_latency(*page);
  const LatencyCounts& flushes = totals[static_cast<std::size_t>(LatencyKind::kFlush)];
  EXPECT_EQ(count_of(flushes), 1U);
  EXPECT_EQ(flushes.sum_ns, 9000U);
  EXPECT_EQ(flushes.max_ns, 9000U);
  EXPECT_EQ(count_of(all_kinds(totals)), 1U);
}

TEST(LatencyTotals, FindQuantilesWithinAnEighth) {
  LatencyCounts counts;
  for (std::uint64_t us = 1; us <= 1000; ++us) add_latency(counts, counts_of({us * 1000}));
  const LatencySummary summary = summary_of(counts);
  EXPECT_EQ(summary.count, 1000U);
  EXPECT_NEAR(static_cast<double>(summary.p50_ns), 500e3, 500e3 / 8);
  EXPECT_NEAR(static_cast<double>(summary.p99_ns), 990e3, 990e3 / 8);
  EXPECT_NEAR(static_cast<double>(summary.p999_ns), 999e3, 999e3 / 8);
  EXPECT_EQ(summary.max_ns, 1000'000U);
}

TEST(LatencyTotals, HaveNoFiguresOfNothing) {
  const LatencySummary summary = summary_of({});
  EXPECT_EQ(summary.count, 0U);
  EXPECT_EQ(summary.p999_ns, 0U);
}

TEST(LatencyTotals, TellTheLargestOfALaterTime) {
  const LatencyCounts before = counts_of({50'000'000});
  LatencyCounts now = before;
  add_latency(now, counts_of({5000, 6000}));
  const LatencyCounts between = latency_since(now, before);
  EXPECT_EQ(count_of(between), 2U);
  EXPECT_EQ(between.sum_ns, 11'000U);
  EXPECT_GE(between.max_ns, 6000U);
  EXPECT_LT(between.max_ns, 8000U);
}

TEST(LatencyTotals, CountExactlyBelowAPowerOfTwo) {
  const LatencyCounts counts = counts_of({8191, 8192, 100});
  EXPECT_EQ(count_below(counts, 13), 2U);
  EXPECT_EQ(count_below(counts, 14), 3U);
}

// A hijacked worker writes whatever it likes.
TEST(LatencyTotals, SurviveAnyNumbers) {
  LatencyCounts counts;
  counts.buckets.fill(UINT64_MAX);
  counts.sum_ns = UINT64_MAX;
  add_latency(counts, counts);
  (void)summary_of(counts);
  (void)summary_of(latency_since({}, counts));
  EXPECT_EQ(counts.max_ns, 0U);
}

}  // namespace
}  // namespace broker
