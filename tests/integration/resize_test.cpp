// A disk whose size others change while it is served.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>

#include <array>
#include <filesystem>
#include <memory>

#include "tests/integration/host.h"
#include "tests/integration/verified_load.h"

namespace integration {
namespace {

using fakes::VhostRequest;
using testing::IsEmpty;
using testing::Not;

constexpr std::uint64_t kBefore = 8 << 20;
constexpr std::uint64_t kAfter = 12 << 20;
constexpr std::uint64_t kNewSector = kBefore / kSector + 64;

class Resize : public EngineTest {
 protected:
  void start() {
    host_.serve({.bytes = kBefore});
    client_ = host_.connect();
  }
  void resize(std::uint64_t bytes) { std::filesystem::resize_file(host_.image(), bytes); }
  fakes::BlkQueueDriver& queue() { return client_->queue(); }
  std::uint8_t write_behind_the_old_end() {
    return queue().write(kNewSector, pattern(kNewSector, 4096, 3));
  }
  std::unique_ptr<fakes::BlkClient> client_;
};
BULKHEAD_FOR_BOTH_ENGINES(Resize);

TEST_P(Resize, GrowthReachesAGuestUnderLoad) {
  start();
  int ends[2] = {-1, -1};
  ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
  const common::Fd ours(ends[0]);
  const common::Fd theirs(ends[1]);
  client_->vhost().request(VhostRequest::kSetBackendReqFd, {}, std::array{theirs.ref()});
  EXPECT_NE(write_behind_the_old_end(), kOk);
  VerifiedLoad load(queue(), {});
  load.expect_progress(20);
  resize(kAfter);
  fakes::VhostHeader message;
  ASSERT_EQ(::recv(ours.ref().number, &message, sizeof(message), MSG_WAITALL), 12);
  EXPECT_EQ(message.request, 2U);  // CONFIG_CHANGE_MSG
  EXPECT_EQ(client_->capacity_sectors(), kAfter / kSector);
  load.expect_progress(20);
  load.stop();
  EXPECT_EQ(write_behind_the_old_end(), kOk);
  EXPECT_TRUE(is_pattern(read_image(host_.image(), kNewSector, 4096), kNewSector, 3));
  EXPECT_THAT(host_.broker().wait_for_line({"has grown from 8.0 MiB to 12.0 MiB"}), Not(IsEmpty()));
}

TEST_P(Resize, FrontEndThatCannotBeToldIsReportedAndSeesTheSizeWhenItAsks) {
  start();
  resize(kAfter);
  EXPECT_THAT(host_.broker().wait_for_line({"cannot be told that the disk has another size"}),
              Not(IsEmpty()));
  EXPECT_EQ(client_->capacity_sectors(), kAfter / kSector);
  EXPECT_EQ(write_behind_the_old_end(), kOk);
}

TEST_P(Resize, NextVmmSeesTheNewSizeAtOnce) {
  start();
  client_.reset();
  resize(kAfter);
  client_ = host_.connect();
  EXPECT_EQ(client_->capacity_sectors(), kAfter / kSector);
  EXPECT_EQ(write_behind_the_old_end(), kOk);
}

TEST_P(Resize, PartOfABlockIsNoGrowth) {
  start();
  resize(kBefore + 511);
  resize(kBefore + 512);
  // Only then has the session heard of it.
  ASSERT_THAT(host_.broker().wait_for_line({"cannot be told"}), Not(IsEmpty()));
  EXPECT_EQ(client_->capacity_sectors(), kBefore / kSector + 1);
}

TEST_P(Resize, ShrinkingIsReportedOnceAndTheGuestKeepsItsSize) {
  start();
  resize(kBefore / 2);
  EXPECT_THAT(host_.broker().wait_for_line({"has shrunk to 4.0 MiB"}), Not(IsEmpty()));
  EXPECT_EQ(client_->capacity_sectors(), kBefore / kSector);
  expect_serves(queue());
  std::vector<std::byte> got(4096);
  EXPECT_EQ(queue().read(kBefore / kSector - 8, got), kIoError);
  resize(kBefore);
  EXPECT_THAT(host_.broker().wait_for_line({"has its 8.0 MiB again"}), Not(IsEmpty()));
  EXPECT_EQ(host_.broker().count_lines("has shrunk"), 1);
  EXPECT_EQ(queue().read(kBefore / kSector - 8, got), kOk);
}

}  // namespace
}  // namespace integration
