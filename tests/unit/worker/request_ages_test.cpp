#include "worker/request_ages.h"

#include <gtest/gtest.h>

namespace worker {
namespace {

// A tick is a microsecond; requests taken within 1000 of them are of one age.
RequestAges ages() { return RequestAges(1); }

RequestAges::Mark take(RequestAges& all) {
  all.taken(1);
  return all.mark();
}

TEST(RequestAges, AreNoneWhereNothingIsInFlight) {
  RequestAges all = ages();
  EXPECT_EQ(all.oldest(), 0U);
  all.now(5000);
  const auto mark = take(all);
  EXPECT_EQ(all.oldest(), 5000U);
  all.answered(mark, 1);
  EXPECT_EQ(all.oldest(), 0U);
}

TEST(RequestAges, FollowTheOldestInWhicheverOrderRequestsEnd) {
  RequestAges all = ages();
  all.now(5000);
  const auto first = take(all);
  all.now(5500);
  const auto soon = take(all);
  all.now(9000);
  const auto late = take(all);
  all.answered(first, 1);
  EXPECT_EQ(all.oldest(), 5000U);  // Of the same millisecond.
  all.answered(soon, 1);
  EXPECT_EQ(all.oldest(), 9000U);
  all.answered(late, 1);
  EXPECT_EQ(all.oldest(), 0U);
}

TEST(RequestAges, KnowARequestThatIsStuckWhileManyOthersCome) {
  RequestAges all = ages();
  all.now(1000);
  const auto stuck = take(all);
  std::uint64_t ticks = 1000;
  for (int i = 0; i < 1000; ++i) {
    all.now(ticks += 2000);
    all.answered(take(all), 1);
  }
  EXPECT_EQ(all.oldest(), 1000U);
  all.answered(stuck, 1);
  EXPECT_EQ(all.oldest(), 0U);
  all.now(ticks += 2000);
  take(all);
  EXPECT_EQ(all.oldest(), ticks);
}

TEST(RequestAges, GoOnWhereTheCounterStepsBack) {
  RequestAges all = ages();
  all.now(500'000);
  const auto mark = take(all);
  all.now(400'000);
  take(all);
  all.answered(mark, 1);
  EXPECT_EQ(all.oldest(), 400'000U);
}

}  // namespace
}  // namespace worker
