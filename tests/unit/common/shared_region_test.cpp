#include "common/shared_region.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <fstream>
#include <string>
#include <utility>

#include "common/sys.h"

namespace common {
namespace {

constexpr std::uint64_t kBytes = 8192;

class Region : public testing::Test {
 protected:
  void SetUp() override {
    auto file = make_sealed_memfd("region-under-test", kBytes);
    ASSERT_TRUE(file);
    file_ = std::move(*file);
  }
  [[nodiscard]] Result<SharedRegion> map(std::uint64_t offset = 0, std::uint64_t bytes = kBytes) {
    return SharedRegion::map(file_.ref(), offset, bytes, SharedRegion::Access::kReadWrite);
  }
  [[nodiscard]] static bool is_mapped() {
    std::ifstream maps("/proc/self/maps");
    const std::string all((std::istreambuf_iterator<char>(maps)), {});
    return all.find("region-under-test") != std::string::npos;
  }
  Fd file_;
};

TEST_F(Region, SharesItsBytesWithAnother) {
  auto first = map();
  auto second = map();
  ASSERT_TRUE(first && second);
  first->bytes()[100] = std::byte{42};
  EXPECT_EQ(second->bytes()[100], std::byte{42});
}

TEST_F(Region, HasTheLengthThatWasAskedFor) {
  const auto region = map(0, 100);
  ASSERT_TRUE(region);
  EXPECT_EQ(region->bytes().size(), 100U);
}

TEST_F(Region, StartsAtItsOffset) {
  auto whole = map();
  auto part = map(4100, 10);
  ASSERT_TRUE(whole && part);
  whole->bytes()[4100] = std::byte{9};
  EXPECT_EQ(part->bytes()[0], std::byte{9});
}

TEST_F(Region, RefusesToMapNothing) {
  const auto region = map(0, 0);
  ASSERT_FALSE(region);
  EXPECT_EQ(region.error().os_errno, EINVAL);
}

TEST_F(Region, RefusesADescriptorThatIsNotOpen) {
  const auto region = SharedRegion::map(FdRef{-1}, 0, kBytes, SharedRegion::Access::kReadOnly);
  ASSERT_FALSE(region);
  EXPECT_EQ(region.error().os_errno, EBADF);
}

TEST_F(Region, OutlivesItsDescriptor) {
  auto region = map();
  ASSERT_TRUE(region);
  file_.reset();
  region->bytes()[0] = std::byte{1};
  EXPECT_EQ(region->bytes()[0], std::byte{1});
}

TEST_F(Region, IsUnmappedWithItsOwner) {
  {
    const auto region = map();
    ASSERT_TRUE(region);
    EXPECT_TRUE(is_mapped());
  }
  EXPECT_FALSE(is_mapped());
}

TEST_F(Region, MovesItsMappingAndUnmapsTheOld) {
  auto first = map();
  auto second = map(4096, 4096);
  ASSERT_TRUE(first && second);
  const std::byte* const where = first->bytes().data();
  *second = std::move(*first);
  EXPECT_EQ(second->bytes().data(), where);
  EXPECT_TRUE(first->bytes().empty());
  *second = SharedRegion();
  EXPECT_FALSE(is_mapped());
}

TEST_F(Region, IsEmptyBeforeItIsMapped) { EXPECT_TRUE(SharedRegion().bytes().empty()); }

using RegionDeathTest = Region;

TEST_F(RegionDeathTest, CannotBeWrittenWhereItIsReadOnly) {
  auto region = SharedRegion::map(file_.ref(), 0, kBytes, SharedRegion::Access::kReadOnly);
  ASSERT_TRUE(region);
  EXPECT_DEATH(region->bytes()[0] = std::byte{1}, "");
}

}  // namespace
}  // namespace common
