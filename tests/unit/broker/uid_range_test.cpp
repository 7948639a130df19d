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
  UidRange range;
  const auto uid = range.pick(UINT64_MAX, UINT64_MAX);
  EXPECT_GE(uid, kUidBase);
  EXPECT_LT(uid, kUidBase + kUidCount);
}

TEST(UidRange, WrapsRoundAtItsEnd) {
  UidRange range(3);
  const std::set<std::uint32_t> all = {range.pick(1, 1), range.pick(1, 1), range.pick(1, 1)};
  EXPECT_EQ(all, (std::set<std::uint32_t>{kUidBase, kUidBase + 1, kUidBase + 2}));
}

TEST(UidRange, TellsDevicesWithTheSameInodeApart) {
  UidRange one;
  UidRange other;
  EXPECT_NE(one.pick(1, 12), other.pick(2, 12));
}

}  // namespace
}  // namespace broker
