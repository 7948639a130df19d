#include "common/latency.h"

#include <gtest/gtest.h>

#include <limits>
#include <memory>

namespace common {
namespace {

std::uint32_t bucket_of(std::uint64_t nanoseconds) {
  return latency_bucket(static_cast<double>(nanoseconds));
}

TEST(LatencyBuckets, JoinWithoutGapsAndGrow) {
  std::uint64_t low = 0;
  for (std::uint32_t bucket = 0; bucket + 1 < kLatencyBuckets; ++bucket) {
    const std::uint64_t high = latency_bound_ns(bucket);
    EXPECT_LT(low, high);
    EXPECT_EQ(bucket_of(low), bucket);
    EXPECT_EQ(bucket_of(high - 1), bucket);
    low = high;
  }
  EXPECT_EQ(bucket_of(low), kLatencyBuckets - 1);
}

TEST(LatencyBuckets, AreAQuarterOfAPowerOfTwoWide) {
  for (std::uint32_t bucket = 1; bucket + 1 < kLatencyBuckets; ++bucket) {
    const std::uint64_t low = latency_bound_ns(bucket - 1);
    EXPECT_LE(latency_bound_ns(bucket) - low, low / 4);
  }
}

TEST(LatencyBuckets, HaveEveryPowerOfTwoAsABorder) {
  for (std::uint32_t bit = kLatencyFirstBit + 1; bit <= kLatencyLastBit; ++bit) {
    const std::uint64_t power = std::uint64_t{1} << bit;
    EXPECT_NE(bucket_of(power - 1), bucket_of(power)) << bit;
  }
}

TEST(LatencyBuckets, TakeAnyNumber) {
  EXPECT_EQ(latency_bucket(-1.0), 0U);
  EXPECT_EQ(latency_bucket(std::numeric_limits<double>::infinity()), kLatencyBuckets - 1);
  EXPECT_LT(latency_bucket(std::numeric_limits<double>::quiet_NaN()), kLatencyBuckets);
}

TEST(LatencyHistogram, CountsSumsAndRemembersTheLargest) {
  const auto histogram = std::make_unique<LatencyHistogram>();
  histogram->add(5000);
  histogram->add(70, 3);
  EXPECT_EQ(histogram->buckets[bucket_of(5000)].load(), 1U);
  EXPECT_EQ(histogram->buckets[0].load(), 3U);
  EXPECT_EQ(histogram->sum_ns.load(), 5210U);
  EXPECT_EQ(histogram->max_ns.load(), 5000U);
}

}  // namespace
}  // namespace common
