#include "broker/calibrate.h"

#include <gtest/gtest.h>

namespace broker {
namespace {

// No counter in use is slower than 1 MHz or faster than 100 GHz. A stalled test run does not
// matter: both clocks go on.
TEST(TscClock, MeasuresAPlausibleRate) {
  const TscClock clock;
  const std::uint32_t rate = clock.ticks_per_us();
  EXPECT_GE(rate, 1u);
  EXPECT_LE(rate, 100'000u);
}

TEST(TscClock, MeasuresTheSameRateAgain) {
  const TscClock clock;
  const double first = clock.ticks_per_us();
  const double second = clock.ticks_per_us();
  EXPECT_NEAR(second / first, 1.0, 0.5);
}

}  // namespace
}  // namespace broker
