#include "broker/stall_watch.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace {

using broker::StallWatch;
using testing::HasSubstr;
using testing::IsEmpty;
using namespace std::chrono_literals;

class Stall : public testing::Test {
 protected:
  std::string look_at(std::chrono::seconds when, std::uint32_t in_flight, std::uint64_t turns) {
    return watch_.look(in_flight, turns, start_ + when);
  }
  StallWatch::Clock::time_point start_ = StallWatch::Clock::now();
  StallWatch watch_;
};

TEST_F(Stall, IdleWorkerIsNoStallHoweverLong) {
  EXPECT_THAT(look_at(0s, 0, 5), IsEmpty());
  EXPECT_THAT(look_at(1000s, 0, 5), IsEmpty());
}

TEST_F(Stall, BusyWorkerIsNoStall) {
  EXPECT_THAT(look_at(0s, 9, 5), IsEmpty());
  EXPECT_THAT(look_at(1000s, 9, 6), IsEmpty());
}

TEST_F(Stall, RequestsThatWaitAreReportedAndLessAndLessOften) {
  EXPECT_THAT(look_at(0s, 3, 5), IsEmpty());
  EXPECT_THAT(look_at(9s, 3, 5), IsEmpty());
  EXPECT_EQ(look_at(11s, 3, 5),
            "3 requests wait for the disk, and it has answered nothing for 11 s");
  EXPECT_THAT(look_at(15s, 3, 5), IsEmpty());
  EXPECT_THAT(look_at(20s, 3, 5), HasSubstr("20 s"));
  EXPECT_THAT(look_at(39s, 3, 5), IsEmpty());
}

TEST_F(Stall, EndOfAStallIsReportedOnce) {
  (void)look_at(0s, 1, 5);
  EXPECT_THAT(look_at(12s, 1, 5), HasSubstr("1 request waits"));
  EXPECT_EQ(look_at(34s, 0, 6), "the disk answers again, after 34 s");
  EXPECT_THAT(look_at(36s, 0, 6), IsEmpty());
}

TEST_F(Stall, IdlenessBeforeDoesNotCount) {
  (void)look_at(0s, 0, 5);
  (void)look_at(100s, 0, 5);
  EXPECT_THAT(look_at(102s, 2, 6), IsEmpty());
  EXPECT_THAT(look_at(108s, 2, 6), IsEmpty());
  EXPECT_THAT(look_at(112s, 2, 6), HasSubstr("10 s"));
}

}  // namespace
