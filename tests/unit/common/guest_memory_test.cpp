#include "common/guest_memory.h"

#include <gtest/gtest.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <vector>

namespace common {
namespace {

struct Pair {
  std::uint32_t first;
  std::uint32_t second;
  bool operator==(const Pair&) const = default;
};

// Three regions: the first two touch in guest space and are apart in ours; a hole; the third.
class Memory : public testing::Test {
 protected:
  static constexpr std::uint64_t kPage = 4096;
  static constexpr GuestAddr kFirst{0x1000};
  static constexpr GuestAddr kSecond{0x2000};
  static constexpr GuestAddr kThird{0x10000};
  static constexpr GuestAddr kHole{0x3000};

  Memory() {
    regions_ = {{kFirst, kPage, host_.data() + 2 * kPage},
                {kSecond, kPage, host_.data()},
                {kThird, kPage, host_.data() + 4 * kPage}};
    memory_ = GuestMemory(regions_);
  }
  // Plain memory behind a region, as the guest sees it.
  std::byte* first() { return host_.data() + 2 * kPage; }
  std::byte* second() { return host_.data(); }

  alignas(kPage) std::array<std::byte, 5 * kPage> host_{};
  std::vector<GuestRegion> regions_;
  GuestMemory memory_;
};

TEST_F(Memory, TranslatesTheFirstAndLastByteOfARegion) {
  EXPECT_EQ(memory_.translate(kFirst, 1).iov_base, first());
  EXPECT_EQ(memory_.translate(GuestAddr{0x1fff}, 1).iov_base, first() + 0xfff);
}

TEST_F(Memory, EndsATranslationWhereTwoRegionsMeet) {
  const iovec part = memory_.translate(GuestAddr{0x1ff0}, 0x20);
  EXPECT_EQ(part.iov_base, first() + 0xff0);
  EXPECT_EQ(part.iov_len, 0x10U);
}

TEST_F(Memory, TranslatesNothingOutsideItsRegions) {
  EXPECT_EQ(memory_.translate(GuestAddr{0xfff}, 1).iov_len, 0U);
  EXPECT_EQ(memory_.translate(kHole, 1).iov_len, 0U);
  EXPECT_EQ(memory_.translate(GuestAddr{0x11000}, 1).iov_len, 0U);
  EXPECT_EQ(memory_.translate(GuestAddr{std::numeric_limits<std::uint64_t>::max()}, 1).iov_len, 0U);
}

TEST_F(Memory, ClampsALengthThatWouldWrap) {
  const auto huge = std::numeric_limits<std::uint64_t>::max();
  EXPECT_EQ(memory_.translate(GuestAddr{0x10ff0}, huge).iov_len, 0x10U);
}

TEST_F(Memory, FindsARegionAgainAfterAnother) {
  EXPECT_EQ(memory_.translate(kThird, 1).iov_base, host_.data() + 4 * kPage);
  EXPECT_EQ(memory_.translate(kFirst, 1).iov_base, first());
  EXPECT_EQ(memory_.translate(kSecond, 1).iov_base, second());
}

TEST_F(Memory, IsEmptyWithoutRegions) {
  EXPECT_EQ(GuestMemory().translate(GuestAddr{0}, 1).iov_len, 0U);
  EXPECT_FALSE(GuestMemory().copy_in<std::uint32_t>(GuestAddr{0}));
}

TEST_F(Memory, CopiesAValueThatCrossesTwoRegions) {
  const Pair value{0x11223344, 0x55667788};
  std::memcpy(first() + 0xffc, &value.first, 4);
  std::memcpy(second(), &value.second, 4);
  EXPECT_EQ(memory_.copy_in<Pair>(GuestAddr{0x1ffc}), value);
}

TEST_F(Memory, CopiesNothingThatIsPartlyUnmapped) {
  EXPECT_FALSE(memory_.copy_in<Pair>(GuestAddr{0x2ffc}));
  EXPECT_FALSE(memory_.copy_in<Pair>(GuestAddr{0xffc}));
}

TEST_F(Memory, GivesAWindowOverAWholeRegion) {
  const auto window = memory_.window(kFirst, kPage, 16);
  ASSERT_TRUE(window);
  EXPECT_EQ(window->bytes(), kPage);
}

TEST_F(Memory, GivesNoWindowAcrossRegions) {
  EXPECT_FALSE(memory_.window(kFirst, kPage + 1, 1));
  EXPECT_FALSE(memory_.window(GuestAddr{0x1ff0}, 0x20, 1));
}

TEST_F(Memory, GivesNoWindowThatIsMisaligned) {
  EXPECT_FALSE(memory_.window(GuestAddr{0x1008}, 16, 16));
  EXPECT_TRUE(memory_.window(GuestAddr{0x1008}, 16, 8));
}

TEST_F(Memory, GivesNoWindowWhereOurOwnMappingIsMisaligned) {
  regions_ = {{kFirst, kPage, host_.data() + 1}};
  EXPECT_FALSE(GuestMemory(regions_).window(kFirst, 16, 2));
}

TEST_F(Memory, GivesNoEmptyWindow) { EXPECT_FALSE(memory_.window(kFirst, 0, 1)); }

TEST_F(Memory, GathersPartsInOrderUntilTheTargetIsFull) {
  first()[0] = std::byte{1};
  second()[0] = std::byte{2};
  second()[1] = std::byte{3};
  const std::array<iovec, 2> parts = {iovec{first(), 1}, iovec{second(), 8}};
  std::array<std::byte, 3> target{};
  EXPECT_EQ(GuestMemory::gather(parts, target), 3U);
  EXPECT_EQ(target, (std::array{std::byte{1}, std::byte{2}, std::byte{3}}));
}

TEST_F(Memory, GathersLessWhereTheGuestGaveLess) {
  const std::array<iovec, 1> parts = {iovec{first(), 2}};
  std::array<std::byte, 8> target{};
  EXPECT_EQ(GuestMemory::gather(parts, target), 2U);
}

TEST_F(Memory, ScattersOverPartsInOrder) {
  const std::array<iovec, 2> parts = {iovec{first(), 1}, iovec{second(), 8}};
  const std::array<std::byte, 3> source = {std::byte{7}, std::byte{8}, std::byte{9}};
  EXPECT_EQ(GuestMemory::scatter(source, parts), 3U);
  EXPECT_EQ(first()[0], std::byte{7});
  EXPECT_EQ(first()[1], std::byte{0});
  EXPECT_EQ(second()[0], std::byte{8});
  EXPECT_EQ(second()[1], std::byte{9});
  EXPECT_EQ(second()[2], std::byte{0});
}

TEST_F(Memory, ScattersNoMoreThanThereIsRoom) {
  const std::array<iovec, 1> parts = {iovec{first(), 2}};
  const std::array<std::byte, 3> source = {std::byte{7}, std::byte{8}, std::byte{9}};
  EXPECT_EQ(GuestMemory::scatter(source, parts), 2U);
  EXPECT_EQ(first()[2], std::byte{0});
}

TEST_F(Memory, LoadsAndStoresThroughAWindow) {
  auto window = memory_.window(kFirst, 64, 2);
  ASSERT_TRUE(window);
  window->store16_release(2, 0xbeef);
  EXPECT_EQ(window->load16_acquire(2), 0xbeef);
  EXPECT_EQ(window->load16(2), 0xbeef);
  window->store(8, Pair{1, 2});
  EXPECT_EQ(window->load<Pair>(8), (Pair{1, 2}));
}

using MemoryDeathTest = Memory;

TEST_F(MemoryDeathTest, TrapsOnAnOffsetOutsideItsWindow) {
  auto window = memory_.window(kFirst, 64, 2);
  ASSERT_TRUE(window);
  EXPECT_DEATH((void)window->load16(63), "");
  EXPECT_DEATH((void)window->load<Pair>(57), "");
  EXPECT_DEATH(window->store(64, Pair{}), "");
}

}  // namespace
}  // namespace common
