// A disk that fails: the guest gets an error status, the queue and everybody else go on.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <linux/fs.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <memory>

#include "tests/fakes/failure.h"
#include "tests/fakes/process.h"
#include "tests/integration/host.h"
#include "tests/integration/loop_device.h"

namespace integration {
namespace {

using common::blk::RequestType;
using fakes::BlkClient;
using fakes::BlkSegment;

class BadDisk : public DiskTest {};
BULKHEAD_FOR_ALL_SETTINGS(BadDisk);

TEST_P(BadDisk, FileThatShrinksMakesErrorsBeyondItsEndAndNothingElse) {
  host_.serve();
  const auto client = host_.connect();
  ASSERT_EQ(::truncate(host_.image().c_str(), 1 << 20), 0);
  std::vector<std::byte> got(4096);
  EXPECT_EQ(client->queue().read(8192, got), kIoError);
  expect_serves(client->queue());
  EXPECT_NE(host_.broker().wait_for_line({"shorter than it was"}), "");
}

TEST_P(BadDisk, ReadThatEndsInTheMiddleIsAnErrorNotHalfAnAnswer) {
  host_.serve();
  const auto client = host_.connect();
  ASSERT_EQ(::truncate(host_.image().c_str(), (1 << 20) + 4096), 0);
  std::vector<std::byte> got(8192);
  EXPECT_EQ(client->queue().read(2048, got), kIoError);
  expect_serves(client->queue());
}

TEST_P(BadDisk, WorkerCannotMakeTheImageGrow) {
  host_.serve();
  const auto client = host_.connect();
  const std::uint64_t last = client->capacity_sectors() - 8;
  ASSERT_EQ(client->queue().write(last, pattern(last, 4096, 1)), kOk);
  EXPECT_EQ(std::filesystem::file_size(host_.image()), 8U << 20);
}

TEST_P(BadDisk, CapacityStaysWhatItWasWhenTheFileGrows) {
  host_.serve();
  const auto client = host_.connect();
  ASSERT_EQ(::truncate(host_.image().c_str(), 16 << 20), 0);
  std::vector<std::byte> got(4096);
  EXPECT_EQ(client->queue().read((8U << 20) / 512, got), kIoError);
  expect_serves(client->queue());
}

// A file system with no room left, under a sparse image.
class FullDisk : public EngineTest {
 protected:
  void SetUp() override {
    std::filesystem::create_directories(mount_);
    if (::mount("full", mount_.c_str(), "tmpfs", 0, "size=2m") != 0) {
      GTEST_SKIP() << "mounting a small file system needs root";
    }
    mounted_ = true;
    const common::Fd image(::open((mount_ + "/sparse.img").c_str(), O_RDWR | O_CREAT, 0600));
    ASSERT_EQ(::ftruncate(image.ref().number, 16 << 20), 0);
  }
  void TearDown() override {
    if (mounted_) ::umount2(mount_.c_str(), MNT_DETACH);
  }
  std::string mount_ = host_.file("full");
  bool mounted_ = false;
};
BULKHEAD_FOR_BOTH_ENGINES(FullDisk);

TEST_P(FullDisk, WritesFailWithAnErrorWhenThereIsNoRoomAndReadsGoOn) {
  host_.serve({.file = mount_ + "/sparse.img"});
  const auto client = host_.connect();
  const std::vector<std::byte> chunk(65536, std::byte{1});
  int failed = 0;
  for (std::uint64_t at = 0; at < (8U << 20); at += chunk.size()) {
    if (client->queue().write(at / 512, chunk) == kIoError) ++failed;
  }
  EXPECT_GT(failed, 60);
  EXPECT_NE(host_.broker().wait_for_line({"no room left"}), "");
  std::vector<std::byte> got(4096);
  EXPECT_EQ(client->queue().read(0, got), kOk);
  EXPECT_EQ(got[0], std::byte{1});
  // There is room again: the queue has not given up.
  const common::blk::WireRange range{common::Le64(0), common::Le32(2048), common::Le32(0)};
  EXPECT_EQ(client->queue().ranges(RequestType::kDiscard, {&range, 1}), kOk);
  EXPECT_EQ(client->queue().write(0, chunk), kOk);
}

// A disk that hangs: a file system that is frozen, so that writes wait in the kernel, where no
// signal reaches them.
class HangingDisk : public DiskTest {
 protected:
  void SetUp() override {
#ifdef BULKHEAD_SANITIZER
    GTEST_SKIP() << "a worker keeps stderr then, and with it the log that is read to its end";
#endif
    const std::string image = host_.file("fs.img");
    make_image(image, 32 << 20);
    if (std::system(("PATH=$PATH:/usr/sbin:/sbin mkfs.ext4 -q -F " + image).c_str()) != 0) {
      FAIL() << "mkfs.ext4 is missing: install e2fsprogs";
    }
    loop_ = std::make_unique<LoopDevice>(image);
    std::filesystem::create_directories(mount_);
    if (!loop_->valid() || ::mount(loop_->path().c_str(), mount_.c_str(), "ext4", 0, "") != 0) {
      GTEST_SKIP() << "mounting a small file system needs root and a loop device";
    }
    make_image(mount_ + "/vda.img", 8 << 20);
    root_ = common::Fd(::open(mount_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  }
  void TearDown() override {
    if (!root_.valid()) return;
    thaw();
    root_.reset();
    ::umount2(mount_.c_str(), MNT_DETACH);
  }
  // A child thaws it when the pipe closes, so that it is not left frozen where a test is killed.
  void freeze() {
    int ends[2] = {-1, -1};
    ASSERT_EQ(::pipe2(ends, O_CLOEXEC), 0);
    const common::Fd closes(ends[0]);
    frozen_ = common::Fd(ends[1]);
    thawer_ = ::fork();
    ASSERT_GE(thawer_, 0);
    if (thawer_ == 0) {
      ::close(ends[1]);
      char nothing = 0;
      (void)!::read(ends[0], &nothing, 1);
      ::_exit(::ioctl(root_.ref().number, FITHAW, 0) == 0 ? 0 : 1);
    }
    ASSERT_EQ(::ioctl(root_.ref().number, FIFREEZE, 0), 0);
  }
  void thaw() {
    frozen_.reset();
    if (thawer_ > 0) ::waitpid(thawer_, nullptr, 0);
  }

  std::string mount_ = host_.file("mount");
  std::unique_ptr<LoopDevice> loop_;
  common::Fd root_;
  common::Fd frozen_;
  pid_t thawer_ = -1;
};
BULKHEAD_FOR_ALL_SETTINGS(HangingDisk);

TEST_P(HangingDisk, HoldsUpNeitherOtherQueuesNorTheEndOfTheBroker) {
  host_.serve({.file = mount_ + "/vda.img"});
  const auto client = host_.connect({.queues = 2});
  expect_serves(client->queue(0));
  const pid_t worker = host_.broker().children_named("worker-blk: vda/0").at(0);
  freeze();
  fakes::BlkQueueDriver& stuck = client->queue(0);
  const std::uint16_t slot = *stuck.free_slot();
  const BlkSegment segment{stuck.data_addr(slot), 4096};
  stuck.prepare(slot, RequestType::kOut, 64, {&segment, 1}, false);
  (void)stuck.driver().publish();
  stuck.kick();
  ASSERT_TRUE(fakes::wait_uninterruptible(worker));
  std::vector<std::byte> got(4096);
  EXPECT_EQ(client->queue(1).read(4096, got), kOk);
  host_.broker().signal(SIGTERM);
  EXPECT_EQ(host_.broker().wait_exit(), 0);
  EXPECT_NE(host_.broker().wait_for_line({"error vda", "wait in the kernel for its disk"}), "");
  EXPECT_EQ(host_.broker().count_lines("does not end by itself"), 0);
}

// A block device whose file shrinks under it: the kernel answers EIO.
class FailingDevice : public EngineTest {};
BULKHEAD_FOR_BOTH_ENGINES(FailingDevice);

TEST_P(FailingDevice, ErrorsOfABlockDeviceReachTheGuestAndTheQueueGoesOn) {
  const std::string image = host_.file("loop.img");
  make_image(image, 4 << 20);
  const LoopDevice loop(image);
  if (!loop.valid()) GTEST_SKIP() << "no loop device can be made here";
  host_.serve({.options = {"--direct=on"}, .file = loop.path()});
  const auto client = host_.connect();
  EXPECT_EQ(client->capacity_sectors(), (4U << 20) / 512);
  expect_serves(client->queue());
  ASSERT_EQ(::truncate(image.c_str(), 1 << 20), 0);
  std::vector<std::byte> got(4096);
  EXPECT_EQ(client->queue().read(4096, got), kIoError);
  expect_serves(client->queue());
  EXPECT_NE(host_.broker().wait_for_line({"Input/output error"}), "");
}

}  // namespace
}  // namespace integration
