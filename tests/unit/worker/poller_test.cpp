#include "worker/poller.h"

#include <gtest/gtest.h>

namespace {

using worker::Poller;

constexpr std::uint32_t kTicksPerUs = 10;

TEST(Poller, DoesNotPollUnlessAsked) {
  Poller poller(0, kTicksPerUs);
  poller.slept(0);
  poller.hit();
  EXPECT_EQ(poller.window(), 0U);
}

TEST(Poller, StartsWithTheLongestPoll) { EXPECT_EQ(Poller(50, kTicksPerUs).window(), 500U); }

TEST(Poller, GivesUpWhenTheGuestStaysAway) {
  Poller poller(50, kTicksPerUs);
  for (int i = 0; i < 4; ++i) poller.slept(1'000'000);
  EXPECT_EQ(poller.window(), 0U);
}

TEST(Poller, ComesBackWhenPollingWouldHavePaid) {
  Poller poller(50, kTicksPerUs);
  for (int i = 0; i < 4; ++i) poller.slept(1'000'000);
  poller.slept(300);
  EXPECT_EQ(poller.window(), 40U);
  poller.hit();
  EXPECT_EQ(poller.window(), 80U);
}

TEST(Poller, NeverPollsLongerThanAllowed) {
  Poller poller(50, kTicksPerUs);
  for (int i = 0; i < 10; ++i) poller.hit();
  EXPECT_EQ(poller.window(), 500U);
}

// Sleeps that end within the longest poll, until the next of them begins with a poll again.
int sleeps_of_a_rest(Poller& poller) {
  for (int i = 0; i < 8; ++i) {
    EXPECT_NE(poller.window(), 0U);
    poller.slept(499);
  }
  int sleeps = 0;
  for (; poller.window() == 0; ++sleeps) poller.slept(499);
  return sleeps;
}

TEST(Poller, RestsWhereWorkAlwaysComesRightAfterThePollAndLongerEachTime) {
  Poller poller(50, kTicksPerUs);
  EXPECT_EQ(sleeps_of_a_rest(poller), 2);
  EXPECT_EQ(sleeps_of_a_rest(poller), 4);
  for (int i = 0; i < 8; ++i) (void)sleeps_of_a_rest(poller);
  EXPECT_EQ(sleeps_of_a_rest(poller), 1024);
  EXPECT_EQ(sleeps_of_a_rest(poller), 1024);
}

TEST(Poller, ForgetsItsRestsOnceAPollPaid) {
  Poller poller(50, kTicksPerUs);
  EXPECT_EQ(sleeps_of_a_rest(poller), 2);
  for (int i = 0; i < 7; ++i) poller.slept(499);
  poller.hit();
  EXPECT_EQ(poller.window(), 500U);
  EXPECT_EQ(sleeps_of_a_rest(poller), 2);
}

TEST(Poller, KeepsToALimitThatIsShorterThanItsShortestWindow) {
  Poller poller(1, kTicksPerUs);
  poller.hit();
  EXPECT_EQ(poller.window(), 10U);
}

}  // namespace
