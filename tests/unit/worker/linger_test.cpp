#include "worker/linger.h"

#include <gtest/gtest.h>

namespace {

using worker::Linger;

constexpr std::uint32_t kTicksPerUs = 1;
constexpr std::uint32_t kBurst = 16;

struct LingerTest : testing::Test {
  // Bursts until the next look, which finds nothing.
  int bursts_until_look() {
    int bursts = 1;
    for (;; ++bursts) {
      linger.worked(kBurst);
      if (linger.due()) break;
      linger.slept();
    }
    EXPECT_FALSE(linger.look([] { return false; }));
    linger.slept();
    return bursts;
  }
  Linger linger{kTicksPerUs};
};

TEST_F(LingerTest, IsForBurstsOnly) {
  linger.worked(kBurst - 1);
  EXPECT_FALSE(linger.due());
  linger.slept();
  linger.worked(1);
  EXPECT_FALSE(linger.due());
}

TEST_F(LingerTest, IsDoneOnceForABurst) {
  linger.worked(kBurst);
  ASSERT_TRUE(linger.due());
  EXPECT_TRUE(linger.look([] { return true; }));
  EXPECT_FALSE(linger.due());
}

TEST_F(LingerTest, GoesWithoutWhereNothingCameAndLongerEachTime) {
  EXPECT_EQ(bursts_until_look(), 1);
  EXPECT_EQ(bursts_until_look(), 2);
  EXPECT_EQ(bursts_until_look(), 4);
  for (int i = 0; i < 4; ++i) (void)bursts_until_look();
  EXPECT_EQ(bursts_until_look(), 64);
  EXPECT_EQ(bursts_until_look(), 64);
}

TEST_F(LingerTest, LooksAfterEachBurstAgainOnceItPaid) {
  (void)bursts_until_look();
  linger.worked(kBurst);
  linger.slept();
  linger.worked(kBurst);
  ASSERT_TRUE(linger.due());
  EXPECT_TRUE(linger.look([] { return true; }));
  linger.worked(kBurst);
  EXPECT_TRUE(linger.due());
}

TEST_F(LingerTest, IsNotDoneWhereTheClockIsNotKnown) {
  Linger blind(0);
  blind.worked(kBurst);
  EXPECT_FALSE(blind.due());
}

}  // namespace
