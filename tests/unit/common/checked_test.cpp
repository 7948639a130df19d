#include "common/checked.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <limits>

namespace common {
namespace {

constexpr auto kTop = std::numeric_limits<std::uint64_t>::max();

TEST(CheckedAdd, AddsUpToTheLargestNumber) {
  EXPECT_EQ(checked_add(kTop - 1, std::uint64_t{1}), kTop);
}

TEST(CheckedAdd, RefusesToWrap) { EXPECT_FALSE(checked_add(kTop, std::uint64_t{1})); }

TEST(CheckedAdd, RefusesToWrapInNarrowTypes) {
  EXPECT_FALSE(checked_add(std::uint16_t{65535}, std::uint16_t{1}));
  EXPECT_EQ(checked_add(std::uint16_t{65534}, std::uint16_t{1}), 65535);
}

TEST(CheckedMul, MultipliesUpToTheLargestNumber) {
  EXPECT_EQ(checked_mul(std::uint64_t{0xffffffff}, std::uint64_t{0x100000001}), kTop);
}

TEST(CheckedMul, RefusesToWrap) {
  EXPECT_FALSE(checked_mul(std::uint64_t{1} << 55, std::uint64_t{512}));
}

TEST(RangeWithin, TakesARangeThatEndsAtTheLimit) {
  EXPECT_TRUE(range_within<std::uint64_t>(10, 5, 15));
  EXPECT_TRUE(range_within<std::uint64_t>(15, 0, 15));
}

TEST(RangeWithin, RefusesARangeThatEndsBeyondTheLimit) {
  EXPECT_FALSE(range_within<std::uint64_t>(10, 6, 15));
  EXPECT_FALSE(range_within<std::uint64_t>(16, 0, 15));
}

TEST(RangeWithin, RefusesARangeThatWraps) {
  EXPECT_FALSE(range_within<std::uint64_t>(10, kTop, 15));
  EXPECT_FALSE(range_within<std::uint64_t>(kTop, 2, kTop));
}

TEST(PowerOfTwo, IsNeitherZeroNorASum) {
  EXPECT_TRUE(is_power_of_two(1));
  EXPECT_TRUE(is_power_of_two(std::uint64_t{1} << 63));
  EXPECT_FALSE(is_power_of_two(0));
  EXPECT_FALSE(is_power_of_two(3));
  EXPECT_FALSE(is_power_of_two(kTop));
}

TEST(RoundDown, KeepsWhatIsAligned) {
  EXPECT_EQ(round_down(8192, 4096), 8192U);
  EXPECT_EQ(round_down(8191, 4096), 4096U);
  EXPECT_EQ(round_down(kTop, 4096), kTop - 4095);
}

}  // namespace
}  // namespace common
