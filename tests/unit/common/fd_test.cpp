#include "common/fd.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <cerrno>
#include <utility>

#include "common/endian.h"
#include "common/sys.h"

namespace common {
namespace {

bool is_open(int number) { return ::fcntl(number, F_GETFD) >= 0; }

Fd any_fd() { return Fd(::eventfd(0, EFD_CLOEXEC)); }

TEST(Fd, ClosesItsDescriptor) {
  int number = -1;
  {
    const Fd fd = any_fd();
    number = fd.ref().number;
    EXPECT_TRUE(is_open(number));
  }
  EXPECT_FALSE(is_open(number));
}

TEST(Fd, HandsItsDescriptorOverWhenMoved) {
  Fd first = any_fd();
  const int number = first.ref().number;
  const Fd second(std::move(first));
  EXPECT_FALSE(first.valid());
  EXPECT_EQ(second.ref().number, number);
  EXPECT_TRUE(is_open(number));
}

TEST(Fd, ClosesWhatItHeldWhenItIsGivenAnother) {
  Fd first = any_fd();
  const int old = first.ref().number;
  first = any_fd();
  EXPECT_FALSE(is_open(old));
  EXPECT_TRUE(first.valid());
}

TEST(Fd, KeepsItsDescriptorWhenMovedOntoItself) {
  Fd fd = any_fd();
  Fd& same = fd;
  fd = std::move(same);
  EXPECT_TRUE(is_open(fd.ref().number));
}

TEST(Fd, LetsGoWithoutClosing) {
  Fd fd = any_fd();
  const Fd released(fd.release());
  EXPECT_FALSE(fd.valid());
  EXPECT_TRUE(is_open(released.ref().number));
}

TEST(Sys, MakesEventfdsThatNeitherBlockNorSurviveExec) {
  const auto fd = make_eventfd();
  ASSERT_TRUE(fd);
  EXPECT_NE(::fcntl(fd->ref().number, F_GETFL) & O_NONBLOCK, 0);
  EXPECT_NE(::fcntl(fd->ref().number, F_GETFD) & FD_CLOEXEC, 0);
}

TEST(Sys, SealsMemoryAgainstAnyChangeOfSize) {
  const auto fd = make_sealed_memfd("sealed", 8192);
  ASSERT_TRUE(fd);
  struct stat status {};
  ASSERT_EQ(::fstat(fd->ref().number, &status), 0);
  EXPECT_EQ(status.st_size, 8192);
  EXPECT_NE(::ftruncate(fd->ref().number, 0), 0);
  EXPECT_EQ(errno, EPERM);
  EXPECT_NE(::ftruncate(fd->ref().number, 16384), 0);
  EXPECT_NE(::fcntl(fd->ref().number, F_ADD_SEALS, F_SEAL_WRITE), 0);
}

TEST(Sys, DuplicatesAtOrAboveANumber) {
  const Fd fd = any_fd();
  const auto copy = duplicate(fd.ref(), 100);
  ASSERT_TRUE(copy);
  EXPECT_GE(copy->ref().number, 100);
  EXPECT_NE(::fcntl(copy->ref().number, F_GETFD) & FD_CLOEXEC, 0);
  EXPECT_FALSE(duplicate(FdRef{-1}));
}

TEST(Sys, SwitchesBlockingOnAndOff) {
  const Fd fd = any_fd();
  ASSERT_TRUE(set_nonblocking(fd.ref(), true));
  EXPECT_NE(::fcntl(fd.ref().number, F_GETFL) & O_NONBLOCK, 0);
  ASSERT_TRUE(set_nonblocking(fd.ref(), false));
  EXPECT_EQ(::fcntl(fd.ref().number, F_GETFL) & O_NONBLOCK, 0);
  EXPECT_FALSE(set_nonblocking(FdRef{-1}, true));
}

TEST(Endian, LaysIntegersOutLittleEndian) {
  const Le32 value(0x11223344);
  const auto* const bytes = reinterpret_cast<const unsigned char*>(&value);
  EXPECT_EQ(bytes[0], 0x44);
  EXPECT_EQ(bytes[3], 0x11);
  EXPECT_EQ(value.get(), 0x11223344U);
}

}  // namespace
}  // namespace common
