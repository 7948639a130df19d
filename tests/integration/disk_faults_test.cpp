// A disk that fails: the guest gets an error status, the queue and everybody else go on.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mount.h>
#include <unistd.h>

#include <filesystem>

#include "tests/fakes/failure.h"
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
