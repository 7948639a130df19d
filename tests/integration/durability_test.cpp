// What is on the disk, and not just in the page cache, when a request is answered: the kernel says
// how much of the image is dirty (cachestat, Linux 6.5).
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <optional>

#include "tests/fakes/failure.h"
#include "tests/integration/host.h"

namespace integration {
namespace {

constexpr long kSysCachestat = 451;

struct Range {
  std::uint64_t offset = 0;
  std::uint64_t bytes = 0;  // 0: all of the file.
};
struct Pages {
  std::uint64_t cached = 0;
  std::uint64_t dirty = 0;
  std::uint64_t writeback = 0;
  std::uint64_t evicted = 0;
  std::uint64_t recently_evicted = 0;
};

// Pages of a file that would be lost in a power cut; nothing where the kernel cannot say.
std::optional<std::uint64_t> pages_at_risk(const std::string& path) {
  const common::Fd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  fakes::require_call(file.valid(), "open " + path);
  const Range all;
  Pages pages;
  if (::syscall(kSysCachestat, file.ref().number, &all, &pages, 0) != 0) return std::nullopt;
  return pages.dirty + pages.writeback;
}

class Durability : public EngineTest {
 protected:
  void SetUp() override {
    host_.serve();
    ::sync();
    if (!pages_at_risk(host_.image())) GTEST_SKIP() << "this kernel has no cachestat";
    client_ = host_.connect({.queues = 2});
  }
  std::uint64_t at_risk() { return pages_at_risk(host_.image()).value(); }
  std::unique_ptr<fakes::BlkClient> client_;
};
BULKHEAD_FOR_BOTH_ENGINES(Durability);

TEST_P(Durability, CachedWriteIsNotYetDurable) {
  ASSERT_EQ(client_->queue().write(64, pattern(64, 4096, 1)), kOk);
  EXPECT_GT(at_risk(), 0U);
}

TEST_P(Durability, FlushMakesWritesDurable) {
  ASSERT_EQ(client_->queue().write(64, pattern(64, 4096, 1)), kOk);
  ASSERT_EQ(client_->queue().flush(), kOk);
  EXPECT_EQ(at_risk(), 0U);
}

TEST_P(Durability, FlushOnOneQueueMakesWritesOfAnotherDurable) {
  ASSERT_EQ(client_->queue(0).write(64, pattern(64, 4096, 1)), kOk);
  ASSERT_EQ(client_->queue(1).flush(), kOk);
  EXPECT_EQ(at_risk(), 0U);
}

TEST_P(Durability, WriteIsDurableWhenItCompletesWithoutTheWriteCache) {
  const std::array<std::byte, 1> through = {std::byte{0}};
  client_->vhost().set_config(common::blk::kConfigWceOffset, through);
  ASSERT_EQ(client_->queue(0).write(64, pattern(64, 4096, 1)), kOk);
  EXPECT_EQ(at_risk(), 0U);
  ASSERT_EQ(client_->queue(1).write(128, pattern(128, 4096, 1)), kOk);
  EXPECT_EQ(at_risk(), 0U);
}

TEST_P(Durability, WriteCacheThatIsSwitchedOnAgainIsUsed) {
  const std::array<std::byte, 1> through = {std::byte{0}};
  const std::array<std::byte, 1> back = {std::byte{1}};
  client_->vhost().set_config(common::blk::kConfigWceOffset, through);
  client_->vhost().set_config(common::blk::kConfigWceOffset, back);
  ASSERT_EQ(client_->queue().write(64, pattern(64, 4096, 1)), kOk);
  EXPECT_GT(at_risk(), 0U);
}

// virtio 1.2, 5.2.6.2: a driver that has not negotiated FLUSH has no other way to be safe.
TEST_P(Durability, WriteIsDurableForADriverThatCannotFlush) {
  client_.reset();
  client_ =
      host_.connect({.features = ~(common::blk::kFeatureFlush | common::blk::kFeatureConfigWce)});
  ASSERT_EQ(client_->queue().write(64, pattern(64, 4096, 1)), kOk);
  EXPECT_EQ(at_risk(), 0U);
}

TEST_P(Durability, WriteZeroesIsDurableWithoutTheWriteCache) {
  const std::array<std::byte, 1> through = {std::byte{0}};
  client_->vhost().set_config(common::blk::kConfigWceOffset, through);
  const common::blk::WireRange range{common::Le64(64), common::Le32(64), common::Le32(0)};
  ASSERT_EQ(client_->queue().ranges(common::blk::RequestType::kWriteZeroes, {&range, 1}), kOk);
  EXPECT_EQ(at_risk(), 0U);
}

}  // namespace
}  // namespace integration
