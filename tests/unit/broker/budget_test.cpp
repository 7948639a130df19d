#include "broker/budget.h"

#include <gtest/gtest.h>

namespace broker {
namespace {

using std::chrono::milliseconds;
const Budget::Clock::time_point kStart = Budget::Clock::time_point{} + std::chrono::hours(1);

TEST(Budget, AllowsItsBurstAtOnce) {
  Budget budget(1, 2);
  EXPECT_TRUE(budget.take(kStart));
  EXPECT_TRUE(budget.take(kStart));
  EXPECT_FALSE(budget.take(kStart));
}

TEST(Budget, GrowsWithTime) {
  Budget budget(10, 1);
  EXPECT_TRUE(budget.take(kStart));
  EXPECT_FALSE(budget.take(kStart + milliseconds(50)));
  EXPECT_TRUE(budget.take(kStart + milliseconds(150)));
}

TEST(Budget, NeverGrowsBeyondItsBurst) {
  Budget budget(10, 1);
  EXPECT_TRUE(budget.take(kStart));
  EXPECT_TRUE(budget.take(kStart + std::chrono::hours(1)));
  EXPECT_FALSE(budget.take(kStart + std::chrono::hours(1)));
}

TEST(Budget, CountsWhatItRefused) {
  Budget budget(1, 1);
  (void)budget.take(kStart);
  (void)budget.take(kStart);
  (void)budget.take(kStart);
  EXPECT_EQ(budget.take_dropped(), 2U);
  EXPECT_EQ(budget.take_dropped(), 0U);
}

}  // namespace
}  // namespace broker
