#include "broker/restart_policy.h"

#include <gtest/gtest.h>

namespace {

using broker::RestartPolicy;
using namespace std::chrono_literals;

constexpr RestartPolicy::Seconds kNoLife{0};

TEST(RestartPolicy, FirstDeathsAreAnsweredAtOnce) {
  RestartPolicy policy;
  for (int death = 0; death < RestartPolicy::kAtOnce; ++death) {
    EXPECT_EQ(policy.after_death(kNoLife), 0ms);
  }
}

TEST(RestartPolicy, MoreDeathsInARowWaitLongerAndLonger) {
  RestartPolicy policy;
  for (int death = 0; death < RestartPolicy::kAtOnce; ++death) (void)policy.after_death(kNoLife);
  EXPECT_EQ(policy.after_death(kNoLife), 50ms);
  EXPECT_EQ(policy.after_death(kNoLife), 100ms);
  EXPECT_EQ(policy.after_death(kNoLife), 200ms);
}

TEST(RestartPolicy, GivesUpInTheEnd) {
  RestartPolicy policy;
  for (int death = 0; death < RestartPolicy::kInAll; ++death) {
    const auto delay = policy.after_death(kNoLife);
    ASSERT_TRUE(delay.has_value());
    EXPECT_LE(*delay, RestartPolicy::kLongestDelay);
  }
  EXPECT_EQ(policy.after_death(kNoLife), std::nullopt);
}

TEST(RestartPolicy, WorkersThatLiveForAWhileAreReplacedForEver) {
  RestartPolicy policy;
  for (int death = 0; death < 10000; ++death) EXPECT_EQ(policy.after_death(250ms), 0ms);
}

TEST(RestartPolicy, LongLifeForgivesWhatCameBefore) {
  RestartPolicy policy;
  for (int death = 0; death < RestartPolicy::kInAll; ++death) (void)policy.after_death(kNoLife);
  EXPECT_EQ(policy.after_death(60s), 0ms);
}

}  // namespace
