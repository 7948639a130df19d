#include "broker/uid_range.h"

#include <gtest/gtest.h>

#include <set>

namespace broker {
namespace {

TEST(UidRange, GivesTheSameDiskTheSameUidInEveryBroker) {
  UidRange first;
  UidRange second;
  EXPECT_EQ(first.pick(2049, 4711), second.pick(2049, 4711));
}

TEST(UidRange, NeverGivesTwoDevicesOfOneBrokerTheSameUid) {
  UidRange range;
  const auto first = range.pick(2049, 4711);
  const auto second = range.pick(2049, 4711);
  EXPECT_NE(first, second);
}

TEST(UidRange, StaysWithinItsRange) {
  UidRange range({300'000, 300'999});
  const auto uid = range.pick(UINT64_MAX, UINT64_MAX);
  EXPECT_GE(uid, 300'000u);
  EXPECT_LE(uid, 300'999u);
}

TEST(UidRange, HasNoneLeftOnceEachIsTaken) {
  UidRange range({300'000, 300'001});
  EXPECT_NE(range.pick(1, 1), std::nullopt);
  EXPECT_NE(range.pick(1, 1), std::nullopt);
  EXPECT_EQ(range.pick(1, 1), std::nullopt);
}

TEST(UidRange, LooksPastUidsThatWereChosenByHand) {
  UidRange range({300'000, 300'001});
  EXPECT_TRUE(range.take(300'000));
  EXPECT_EQ(range.pick(1, 1), 300'001u);
}

TEST(UidRange, WrapsRoundAtItsEnd) {
  UidRange range({7, 9});
  const std::set<std::optional<uid_t>> all = {range.pick(1, 1), range.pick(1, 1), range.pick(1, 1)};
  EXPECT_EQ(all, (std::set<std::optional<uid_t>>{7, 8, 9}));
}

TEST(UidRange, TellsDevicesWithTheSameInodeApart) {
  UidRange one;
  UidRange other;
  EXPECT_NE(one.pick(1, 12), other.pick(2, 12));
}

}  // namespace
}  // namespace broker
