// The configuration space byte by byte, at the offsets of virtio 1.2, 5.2.4: written down here from
// the specification, so that the struct in common/ cannot agree with itself.
#include "broker/blk_config.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <string>

#include "common/sys.h"
#include "policy/worker_blk.h"

namespace broker {
namespace {

class BlkConfigTest : public testing::Test {
 protected:
  BlkConfigTest() {
    config_.name = "vda";
    disk_.path = "/images/a.img";
    disk_.capacity_sectors = 0x0000'0005'8000'0010ULL;
    disk_.discard = true;
    disk_.write_zeroes = true;
    disk_.block_size = 512;
    disk_.physical_block_bytes = 4096;
    disk_.optimal_io_bytes = 65536;
  }

  [[nodiscard]] std::uint64_t field(std::size_t offset, std::size_t bytes) const {
    const common::ipc::SessionStart start = blk_session_start(disk_, config_);
    EXPECT_LE(offset + bytes, start.config_bytes);
    std::uint64_t value = 0;
    std::memcpy(&value, start.config.data() + offset, bytes);
    return value;
  }

  Disk disk_;
  DeviceConfig config_;
};

TEST_F(BlkConfigTest, CapacityIsAt0) { EXPECT_EQ(field(0, 8), 0x0000'0005'8000'0010ULL); }
TEST_F(BlkConfigTest, SizeMaxIsAt8) { EXPECT_EQ(field(8, 4), 1U << 20); }
TEST_F(BlkConfigTest, SegMaxIsAt12) { EXPECT_EQ(field(12, 4), 126U); }
TEST_F(BlkConfigTest, GeometryIsAt16AndNotOffered) { EXPECT_EQ(field(16, 4), 0U); }
TEST_F(BlkConfigTest, BlockSizeIsAt20) { EXPECT_EQ(field(20, 4), 512U); }
TEST_F(BlkConfigTest, PhysicalBlockExponentIsAt24) { EXPECT_EQ(field(24, 1), 3U); }
TEST_F(BlkConfigTest, AlignmentOffsetIsAt25) { EXPECT_EQ(field(25, 1), 0U); }
TEST_F(BlkConfigTest, MinIoSizeIsAt26InBlocks) { EXPECT_EQ(field(26, 2), 8U); }
TEST_F(BlkConfigTest, OptIoSizeIsAt28InBlocks) { EXPECT_EQ(field(28, 4), 128U); }
TEST_F(BlkConfigTest, WritebackIsAt32AndOn) { EXPECT_EQ(field(32, 1), 1U); }
TEST_F(BlkConfigTest, NoGuestSwitchesTheCacheOffWhereSingleWritesAreNotDurable) {
  EXPECT_NE(blk_features(disk_, config_) & common::blk::kFeatureConfigWce, 0U);
  disk_.durable_writes = false;
  EXPECT_EQ(blk_features(disk_, config_) & common::blk::kFeatureConfigWce, 0U);
  EXPECT_NE(blk_features(disk_, config_) & common::blk::kFeatureFlush, 0U);
}
TEST_F(BlkConfigTest, NumQueuesIsAt34) { EXPECT_EQ(field(34, 2), 64U); }
TEST_F(BlkConfigTest, MaxDiscardSectorsIsAt36) { EXPECT_EQ(field(36, 4), 1U << 22); }
TEST_F(BlkConfigTest, MaxDiscardSegmentsIsAt40) { EXPECT_EQ(field(40, 4), 64U); }
TEST_F(BlkConfigTest, DiscardAlignmentIsAt44InSectors) { EXPECT_EQ(field(44, 4), 8U); }
TEST_F(BlkConfigTest, MaxWriteZeroesSectorsIsAt48) { EXPECT_EQ(field(48, 4), 1U << 22); }
TEST_F(BlkConfigTest, MaxWriteZeroesSegmentsIsAt52) { EXPECT_EQ(field(52, 4), 64U); }
TEST_F(BlkConfigTest, WriteZeroesMayUnmapIsAt56) { EXPECT_EQ(field(56, 1), 1U); }
TEST_F(BlkConfigTest, ConfigurationIs60BytesLong) {
  EXPECT_EQ(blk_session_start(disk_, config_).config_bytes, 60U);
}

TEST_F(BlkConfigTest, BlocksOf4096CountTopologyInThem) {
  disk_.block_size = 4096;
  EXPECT_EQ(field(20, 4), 4096U);
  EXPECT_EQ(field(24, 1), 0U);
  EXPECT_EQ(field(26, 2), 1U);
  EXPECT_EQ(field(28, 4), 16U);
}

TEST_F(BlkConfigTest, PhysicalBlockSmallerThanLogicalIsTakenAsEqual) {
  disk_.block_size = 4096;
  disk_.physical_block_bytes = 512;
  EXPECT_EQ(field(24, 1), 0U);
  EXPECT_EQ(field(26, 2), 1U);
  EXPECT_EQ(field(44, 4), 8U);
}

TEST_F(BlkConfigTest, HugePhysicalBlockDoesNotWrapMinIoSize) {
  disk_.physical_block_bytes = 1U << 30;
  EXPECT_EQ(field(26, 2), 0xffffU);
}

TEST_F(BlkConfigTest, RequestFitsASmallRingWithoutIndirectDescriptors) {
  config_.queue_size = 16;
  EXPECT_EQ(field(12, 4), 14U);
}

TEST_F(BlkConfigTest, SmallestRingStillHasOneSegment) {
  config_.queue_size = 2;
  EXPECT_EQ(field(12, 4), 1U);
}

TEST_F(BlkConfigTest, NumQueuesIsWhatWasConfigured) {
  config_.num_queues = 4;
  EXPECT_EQ(field(34, 2), 4U);
  EXPECT_EQ(blk_session_start(disk_, config_).queues_max, 4U);
}

TEST_F(BlkConfigTest, FieldsOfWhatIsNotOfferedAreZero) {
  disk_.discard = false;
  disk_.write_zeroes = false;
  EXPECT_EQ(field(36, 8), 0U);
  EXPECT_EQ(field(44, 8), 0U);
  EXPECT_EQ(field(52, 8), 0U);
}

TEST_F(BlkConfigTest, WriteZeroesDoesNotUnmapWhereDiscardIsOff) {
  disk_.discard = false;
  EXPECT_EQ(field(48, 4), 1U << 22);
  EXPECT_EQ(field(56, 1), 0U);
}

TEST_F(BlkConfigTest, OnlyTheCacheModeMayBeWritten) {
  const auto start = blk_session_start(disk_, config_);
  EXPECT_EQ(start.writable_offset, 32U);
  EXPECT_EQ(start.writable_needs, common::blk::kFeatureFlush);
  EXPECT_EQ(start.writable_bytes, 1U);
}

// 5.2.3 and chapter 6: bits 1 2 6 9 10 11 12 13 14 28 29 32.
TEST_F(BlkConfigTest, OffersTheseFeatures) {
  EXPECT_EQ(blk_features(disk_, config_), 0x1'3000'7e46ULL);
}

// A front-end that acknowledges whatever is offered must not find itself with rings that it does
// not know.
TEST_F(BlkConfigTest, OffersPackedRingsWhereTheOperatorWantsThem) {
  config_.packed_rings = true;
  EXPECT_EQ(blk_features(disk_, config_), 0x5'3000'7e46ULL);
}

TEST_F(BlkConfigTest, ReadOnlyDiskSaysSo) {
  disk_.read_only = true;
  EXPECT_EQ(blk_features(disk_, config_) & (1U << 5), 1U << 5);
}

TEST_F(BlkConfigTest, OneQueueIsNotMultiqueue) {
  config_.num_queues = 1;
  EXPECT_EQ(blk_features(disk_, config_) & (1U << 12), 0U);
}

TEST_F(BlkConfigTest, DiscardAndWriteZeroesAreOfferedSeparately) {
  disk_.discard = false;
  EXPECT_EQ(blk_features(disk_, config_) & 0x6000U, 0x4000U);
}

TEST_F(BlkConfigTest, SerialIsTheNameWhereNoneIsConfigured) {
  const auto start = blk_worker_start(disk_, config_, common::EngineKind::kIoUring, 3000);
  EXPECT_EQ(std::string(start.serial.begin(), start.serial.end()),
            std::string("vda") + std::string(17, '\0'));
}

TEST_F(BlkConfigTest, SerialOf20BytesIsNotTerminated) {
  config_.serial = "12345678901234567890";
  const auto start = blk_worker_start(disk_, config_, common::EngineKind::kIoUring, 3000);
  EXPECT_EQ(std::string(start.serial.begin(), start.serial.end()), config_.serial);
}

TEST_F(BlkConfigTest, LongNameIsCutToTheSerialsLength) {
  config_.name = "a-name-that-is-longer-than-a-serial";
  const auto start = blk_worker_start(disk_, config_, common::EngineKind::kIoUring, 3000);
  EXPECT_EQ(std::string(start.serial.begin(), start.serial.end()), "a-name-that-is-longe");
}

TEST_F(BlkConfigTest, WorkerIsToldWhatTheDiskIs) {
  disk_.read_only = true;
  disk_.direct = true;
  disk_.memory_alignment = 512;
  disk_.offset_alignment = 4096;
  config_.poll_us = 50;
  const auto start = blk_worker_start(disk_, config_, common::EngineKind::kFallback, 3000);
  EXPECT_EQ(start.engine, 2U);
  EXPECT_EQ(start.capacity_sectors, disk_.capacity_sectors);
  EXPECT_EQ(start.read_only, 1U);
  EXPECT_EQ(start.direct, 1U);
  EXPECT_EQ(start.memory_alignment, 512U);
  EXPECT_EQ(start.offset_alignment, 4096U);
  EXPECT_EQ(start.has_buffered, 0U);
  EXPECT_EQ(start.poll_us, 50U);
  EXPECT_EQ(start.tsc_per_us, 3000U);
}

TEST_F(BlkConfigTest, ModelGivesWorkersTheDiskAtItsNumber) {
  disk_.file = common::Fd(::dup(0));
  const int number = disk_.file.ref().number;
  const DeviceModel model = make_blk_model(std::move(disk_), config_, [] { return 3000U; });
  const WorkerRecipe recipe = *model.worker_recipe(0, common::EngineKind::kIoUring);
  ASSERT_EQ(recipe.descriptors.size(), 1U);
  EXPECT_EQ(recipe.descriptors[0].from.number, number);
  EXPECT_EQ(recipe.descriptors[0].number, 5);
  EXPECT_EQ(recipe.profile, &policy::kWorkerBlkUring);
}

TEST_F(BlkConfigTest, DirectDiskWithTheFallbackHasAProfileOfItsOwn) {
  disk_.direct = true;
  const DeviceModel model = make_blk_model(std::move(disk_), config_, [] { return 3000U; });
  EXPECT_EQ(model.worker_recipe(0, common::EngineKind::kFallback)->profile,
            &policy::kWorkerBlkFallbackDirect);
}

TEST_F(BlkConfigTest, ReleaseGivesTheLockBackEvenWhileSomebodyHoldsTheFile) {
  char path[] = "/tmp/bulkhead-lock-XXXXXX";
  disk_.file = common::Fd(::mkostemp(path, O_CLOEXEC));
  const common::Fd other(::open(path, O_RDWR | O_CLOEXEC));
  ::unlink(path);
  const common::Fd kept = *common::duplicate(disk_.file.ref());
  struct flock lock {};
  lock.l_type = F_WRLCK;
  ASSERT_EQ(::fcntl(disk_.file.ref().number, F_OFD_SETLK, &lock), 0);
  ASSERT_NE(::fcntl(other.ref().number, F_OFD_SETLK, &lock), 0);

  make_blk_model(std::move(disk_), config_, [] { return 3000U; }).release();

  EXPECT_EQ(::fcntl(other.ref().number, F_OFD_SETLK, &lock), 0);
}

TEST(SizeText, PicksTheUnit) {
  EXPECT_EQ(size_text(512), "0.5 KiB");
  EXPECT_EQ(size_text(64ULL << 20), "64.0 MiB");
  EXPECT_EQ(size_text(10ULL << 30), "10.0 GiB");
  EXPECT_EQ(size_text(UINT64_MAX), "16.0 EiB");
}

}  // namespace
}  // namespace broker
