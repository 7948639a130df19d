#include "worker/stopwatch.h"

#include <gtest/gtest.h>

namespace worker {
namespace {

TEST(Stopwatch, TurnsTicksIntoNanoseconds) {
  const Stopwatch watch(2500);
  const std::uint64_t now = common::read_ticks();
  EXPECT_NEAR(watch.nanoseconds(now + 2'500'000) - watch.nanoseconds(now), 1e6, 1);
  EXPECT_LT(watch.nanoseconds(now - (std::uint64_t{1} << 40)), 0.0);
}

TEST(Stopwatch, StandsStillWhereNobodyKnowsHowFastTheCounterIs) {
  EXPECT_EQ(Stopwatch(0).nanoseconds(common::read_ticks() + 1'000'000), 0.0);
}

}  // namespace
}  // namespace worker
