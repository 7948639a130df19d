#include "common/guest_map.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>

#include "common/sys.h"

namespace common {
namespace {

constexpr std::uint64_t kPage = 4096;
constexpr std::uint64_t kFileBytes = 16 * kPage;

class Map : public testing::Test {
 protected:
  void SetUp() override {
    auto file = make_sealed_memfd("guest", kFileBytes);
    ASSERT_TRUE(file);
    file_ = std::move(*file);
  }
  [[nodiscard]] int add(std::uint64_t offset, std::uint64_t start, std::uint64_t bytes) {
    const auto added = map_.add(file_.ref(), offset, GuestAddr{start}, bytes);
    return added ? 0 : added.error().os_errno;
  }
  void write_at(std::uint64_t offset, std::uint32_t value) {
    ASSERT_EQ(::pwrite(file_.ref().number, &value, sizeof(value), static_cast<off_t>(offset)),
              static_cast<ssize_t>(sizeof(value)));
  }
  Fd file_;
  GuestMap map_;
};

TEST_F(Map, ShowsTheFilesBytesAtTheGuestsAddress) {
  write_at(kPage + 8, 0xabcdef01);
  ASSERT_EQ(add(kPage, 0x100000, kPage), 0);
  EXPECT_EQ(map_.memory().copy_in<std::uint32_t>(GuestAddr{0x100008}), 0xabcdef01U);
}

TEST_F(Map, MapsAnOffsetThatIsNotPageAligned) {
  write_at(kPage + 100, 77);
  ASSERT_EQ(add(kPage + 100, 0x100000, 500), 0);
  EXPECT_EQ(map_.memory().copy_in<std::uint32_t>(GuestAddr{0x100000}), 77U);
  EXPECT_FALSE(map_.memory().copy_in<std::uint32_t>(GuestAddr{0x100000 + 497}));
}

TEST_F(Map, SharesItsMemoryWithTheFile) {
  ASSERT_EQ(add(0, 0, kPage), 0);
  auto window = map_.memory().window(GuestAddr{0}, kPage, 2);
  ASSERT_TRUE(window);
  window->store16_release(0, 0x1234);
  std::uint16_t seen = 0;
  ASSERT_EQ(::pread(file_.ref().number, &seen, sizeof(seen), 0), 2);
  EXPECT_EQ(seen, 0x1234);
}

TEST_F(Map, KeepsRegionsThatCameInAnyOrder) {
  ASSERT_EQ(add(2 * kPage, 0x3000, kPage), 0);
  ASSERT_EQ(add(0, 0x1000, kPage), 0);
  ASSERT_EQ(add(kPage, 0x2000, kPage), 0);
  write_at(0, 1);
  write_at(kPage, 2);
  write_at(2 * kPage, 3);
  const GuestMemory memory = map_.memory();
  EXPECT_EQ(memory.copy_in<std::uint32_t>(GuestAddr{0x1000}), 1U);
  EXPECT_EQ(memory.copy_in<std::uint32_t>(GuestAddr{0x2000}), 2U);
  EXPECT_EQ(memory.copy_in<std::uint32_t>(GuestAddr{0x3000}), 3U);
}

TEST_F(Map, RefusesAnEmptyRegion) { EXPECT_EQ(add(0, 0x1000, 0), EINVAL); }

TEST_F(Map, RefusesARegionThatWraps) {
  constexpr auto kTop = std::numeric_limits<std::uint64_t>::max();
  EXPECT_EQ(add(0, kTop - 100, kPage), EINVAL);
  EXPECT_EQ(add(0, 0x1000, kTop), EINVAL);
  EXPECT_EQ(add(kTop - 100, 0x1000, kPage), EOVERFLOW);  // The file offset: mmap says so.
}

TEST_F(Map, RefusesARegionThatOverlapsTheNext) {
  ASSERT_EQ(add(0, 0x2000, kPage), 0);
  EXPECT_EQ(add(0, 0x1000, kPage + 1), EINVAL);
  EXPECT_EQ(add(0, 0x1000, kPage), 0);
}

TEST_F(Map, RefusesARegionThatOverlapsThePrevious) {
  ASSERT_EQ(add(0, 0x1000, 2 * kPage), 0);
  EXPECT_EQ(add(0, 0x2000, kPage), EINVAL);
  EXPECT_EQ(add(0, 0x2fff, kPage), EINVAL);
  EXPECT_EQ(add(0, 0x3000, kPage), 0);
}

TEST_F(Map, RefusesTheSameRegionTwice) {
  ASSERT_EQ(add(0, 0x1000, kPage), 0);
  EXPECT_EQ(add(0, 0x1000, kPage), EINVAL);
}

TEST_F(Map, RefusesARegionAroundAnother) {
  ASSERT_EQ(add(0, 0x2000, kPage), 0);
  EXPECT_EQ(add(0, 0x1000, 4 * kPage), EINVAL);
}

TEST_F(Map, RefusesMoreRegionsThanItOffersSlots) {
  for (std::uint64_t i = 0; i < kMemoryRegionsMax; ++i) ASSERT_EQ(add(0, i * kPage, kPage), 0);
  EXPECT_EQ(add(0, kMemoryRegionsMax * kPage, kPage), ENOSPC);
}

TEST_F(Map, RefusesAFileThatCannotBeMapped) {
  int ends[2] = {-1, -1};
  ASSERT_EQ(::pipe2(ends, O_CLOEXEC), 0);
  const Fd read_end(ends[0]);
  const Fd write_end(ends[1]);
  EXPECT_FALSE(map_.add(read_end.ref(), 0, GuestAddr{0}, kPage));
  EXPECT_FALSE(map_.add(FdRef{-1}, 0, GuestAddr{0}, kPage));
}

TEST_F(Map, RefusesAFileThatIsNotWritable) {
  const std::string path = "/proc/self/fd/" + std::to_string(file_.ref().number);
  const Fd read_only(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  ASSERT_TRUE(read_only.valid());
  const auto added = map_.add(read_only.ref(), 0, GuestAddr{0}, kPage);
  ASSERT_FALSE(added);
  EXPECT_EQ(added.error().os_errno, EACCES);
}

TEST_F(Map, StaysAsItWasAfterARefusal) {
  ASSERT_EQ(add(0, 0x1000, kPage), 0);
  ASSERT_EQ(add(0, 0x1800, kPage), EINVAL);
  EXPECT_EQ(map_.memory().translate(GuestAddr{0x1000}, 2 * kPage).iov_len, kPage);
}

}  // namespace
}  // namespace common
