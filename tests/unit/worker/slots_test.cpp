#include "worker/slots.h"

#include <gtest/gtest.h>

#include <set>

namespace {

using worker::FreeList;
using worker::SegmentPool;

TEST(FreeList, GivesEachOnceUntilNoneIsLeft) {
  FreeList list(3);
  const std::set<std::uint32_t> given{list.take(), list.take(), list.take()};
  EXPECT_EQ(given, (std::set<std::uint32_t>{0, 1, 2}));
  EXPECT_FALSE(list.any());
  EXPECT_EQ(list.taken(), 3U);
}

TEST(FreeList, GivesTheLastOneBackFirst) {
  FreeList list(8);
  (void)list.take();
  const std::uint32_t second = list.take();
  list.put(second);
  EXPECT_EQ(list.take(), second);
}

TEST(FreeListDeathTest, TrapsWhereOneIsGivenBackThatNobodyTook) {
  FreeList list(2);
  EXPECT_DEATH(list.put(0), "");
}

TEST(SegmentPool, GivesTheSmallestRoomThatIsLargeEnough) {
  SegmentPool pool(4, 1000);
  EXPECT_EQ(pool.take(SegmentPool::kSmall)->shelf, 0);
  EXPECT_EQ(pool.take(SegmentPool::kSmall + 1)->shelf, 1);
  EXPECT_EQ(pool.take(SegmentPool::kMiddle + 1)->shelf, 2);
}

TEST(SegmentPool, TakesLargerRoomWhenTheFittingIsTaken) {
  SegmentPool pool(1, 1000);
  (void)pool.take(1);
  EXPECT_EQ(pool.take(1)->shelf, 1);
}

TEST(SegmentPool, HasNothingWhenAllThatIsLargeEnoughIsTaken) {
  SegmentPool pool(4, 1000);
  for (std::uint32_t i = 1; i < SegmentPool::kLargeCount; ++i) (void)pool.take(1000);
  const auto last = pool.take(1000);
  EXPECT_FALSE(pool.take(1000));
  pool.put(*last);
  EXPECT_TRUE(pool.take(1000));
}

}  // namespace
