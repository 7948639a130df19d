#include "broker/stats_report.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cerrno>

namespace broker {
namespace {

using common::Counter;

std::uint64_t& at(CounterTotals& totals, Counter counter) {
  return totals[static_cast<std::size_t>(counter)];
}

TEST(StatsReport, ReadsEveryCounterOfThePage) {
  common::StatusPage page{};
  page.add(Counter::kReadRequests, 3);
  page.add(Counter::kBounced, 4);
  CounterTotals totals = read_counters(page);
  EXPECT_EQ(at(totals, Counter::kReadRequests), 3U);
  EXPECT_EQ(at(totals, Counter::kBounced), 4U);
}

TEST(StatsReport, DividesByTheIntervalAndByRequests) {
  CounterTotals totals{};
  at(totals, Counter::kReadRequests) = 200;
  at(totals, Counter::kReadBytes) = 4ULL << 20;
  at(totals, Counter::kKicks) = 50;
  EXPECT_THAT(format_stats(totals, 2.0, 4),
              testing::AllOf(testing::HasSubstr("read 100 IO/s 2.0 MiB/s"),
                             testing::HasSubstr("0.250 kicks"), testing::HasSubstr("4 workers")));
}

TEST(StatsReport, SaysSomethingWhereNothingHappened) {
  EXPECT_THAT(format_stats({}, 0.0, 1), testing::HasSubstr("read 0 IO/s"));
}

TEST(StatsReport, CountsSinceTheLastLine) {
  CounterTotals before{};
  CounterTotals now{};
  at(before, Counter::kCalls) = 7;
  at(now, Counter::kCalls) = 10;
  CounterTotals delta = counters_since(now, before);
  EXPECT_EQ(at(delta, Counter::kCalls), 3U);
}

TEST(StatsReport, HostileCountersWrapAndHurtNobody) {
  CounterTotals sum{};
  sum.fill(UINT64_MAX);
  add_counters(sum, sum);
  EXPECT_FALSE(format_stats(sum, 1.0, SIZE_MAX).empty());
}

TEST(DiskErrors, AreToldWithTheirCauseAndTheRemedy) {
  EXPECT_EQ(format_disk_errors(1, ENOSPC),
            "1 request of the guest failed: the disk has no room left; free space on its file "
            "system");
  EXPECT_THAT(format_disk_errors(17, EIO), testing::HasSubstr("17 requests"));
  EXPECT_THAT(format_disk_errors(17, EIO), testing::HasSubstr("Input/output error"));
  EXPECT_THAT(format_disk_errors(2, 0), testing::HasSubstr("shorter"));
}

}  // namespace

}  // namespace broker
