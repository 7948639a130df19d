// Every kind of request against the real programs, and what is on the disk afterwards.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <array>

#include "tests/integration/host.h"

namespace integration {
namespace {

using common::Le32;
using common::Le64;
using common::blk::RequestType;
using common::blk::WireRange;
using fakes::BlkClient;
using fakes::BlkDone;
using fakes::BlkSegment;

WireRange range(std::uint64_t sector, std::uint32_t sectors, std::uint32_t flags = 0) {
  return {.sector = Le64(sector), .num_sectors = Le32(sectors), .flags = Le32(flags)};
}

class Requests : public DiskTest {
 protected:
  void start(const Disk& disk = {}, const BlkClient::Options& options = {}) {
    host_.serve(disk);
    client_ = host_.connect(options);
  }
  fakes::BlkQueueDriver& queue() { return client_->queue(); }
  // Fills a piece of guest memory and names it as a segment.
  BlkSegment guest_data(std::uint64_t at, const std::vector<std::byte>& bytes) {
    std::ranges::copy(bytes, client_->memory().at(at, bytes.size()));
    return {at, static_cast<std::uint32_t>(bytes.size())};
  }
  std::span<std::byte> guest(std::uint64_t at, std::uint64_t bytes) {
    return client_->memory().span(at, bytes);
  }

  std::unique_ptr<BlkClient> client_;
};
BULKHEAD_FOR_ALL_SETTINGS(Requests);

TEST_P(Requests, ReadReturnsWhatIsOnTheDisk) {
  start();
  std::vector<std::byte> got(64 * 1024);
  EXPECT_EQ(queue().read(128, got), kOk);
  EXPECT_TRUE(is_pattern(got, 128));
}

TEST_P(Requests, UsedLengthOfAReadCountsDataAndStatus) {
  start();
  const BlkSegment segment{BlkClient::kSpareAddr, 4096};
  EXPECT_EQ(queue().perform(RequestType::kIn, 0, {&segment, 1}, true).written, 4097U);
}

TEST_P(Requests, UsedLengthOfAWriteCountsTheStatusOnly) {
  start();
  const BlkSegment segment = guest_data(BlkClient::kSpareAddr, pattern(0, 4096, 1));
  EXPECT_EQ(queue().perform(RequestType::kOut, 0, {&segment, 1}, false).written, 1U);
}

TEST_P(Requests, WriteReachesTheImageAndNothingElse) {
  start();
  ASSERT_EQ(queue().write(256, pattern(256, 32768, 3)), kOk);
  ASSERT_EQ(queue().flush(), kOk);
  EXPECT_TRUE(is_pattern(read_image(host_.image(), 256, 32768), 256, 3));
  EXPECT_TRUE(is_pattern(read_image(host_.image(), 0, 256 * kSector), 0));
  EXPECT_TRUE(is_pattern(read_image(host_.image(), 320, 4096), 320));
}

TEST_P(Requests, SingleSectorsAreReadAndWritten) {
  start();
  std::vector<std::byte> got(kSector);
  ASSERT_EQ(queue().write(77, pattern(77, kSector, 2)), kOk);
  ASSERT_EQ(queue().read(77, got), kOk);
  EXPECT_TRUE(is_pattern(got, 77, 2));
  ASSERT_EQ(queue().read(78, got), kOk);
  EXPECT_TRUE(is_pattern(got, 78));
}

TEST_P(Requests, LastSectorIsReadAndWritten) {
  start();
  const std::uint64_t last = client_->capacity_sectors() - 1;
  std::vector<std::byte> got(kSector);
  ASSERT_EQ(queue().write(last, pattern(last, kSector, 2)), kOk);
  ASSERT_EQ(queue().read(last, got), kOk);
  EXPECT_TRUE(is_pattern(got, last, 2));
}

TEST_P(Requests, ScatteredSegmentsKeepTheirOrder) {
  start();
  const std::array<BlkSegment, 3> segments = {BlkSegment{BlkClient::kSpareAddr + 65536, 4096},
                                              BlkSegment{BlkClient::kSpareAddr, 8192},
                                              BlkSegment{BlkClient::kSpareAddr + 32768, 512}};
  ASSERT_EQ(queue().perform(RequestType::kIn, 40, segments, true).status, kOk);
  EXPECT_TRUE(is_pattern(guest(BlkClient::kSpareAddr + 65536, 4096), 40));
  EXPECT_TRUE(is_pattern(guest(BlkClient::kSpareAddr, 8192), 48));
  EXPECT_TRUE(is_pattern(guest(BlkClient::kSpareAddr + 32768, 512), 64));
}

TEST_P(Requests, BufferAtOffsetOneInItsPageIsReadAndWritten) {
  start();
  const BlkSegment out = guest_data(BlkClient::kSpareAddr + 1, pattern(600, 12288, 5));
  ASSERT_EQ(queue().perform(RequestType::kOut, 600, {&out, 1}, false).status, kOk);
  const BlkSegment in{BlkClient::kSpareAddr + 65536 + 1, 12288};
  ASSERT_EQ(queue().perform(RequestType::kIn, 600, {&in, 1}, true).status, kOk);
  EXPECT_TRUE(is_pattern(guest(in.guest_addr, in.bytes), 600, 5));
  EXPECT_TRUE(is_pattern(read_image(host_.image(), 600, 12288), 600, 5));
}

// CVE-2018-1059: two regions that touch for the guest are not neighbours for us.
TEST_P(Requests, BufferAcrossTwoRegionsIsReadAndWritten) {
  start();
  constexpr std::uint64_t kEnd = BlkClient::kSpareAddr + BlkClient::kSpareBytes;
  fakes::VmMemory next;
  next.add({.guest_addr = kEnd, .bytes = 1 << 20});
  client_->vhost().add_mem_reg(next.regions()[0], next.file(0));
  const BlkSegment across{kEnd - 5000, 12288};
  ASSERT_EQ(queue().perform(RequestType::kIn, 800, {&across, 1}, true).status, kOk);
  const std::vector<std::byte> whole = pattern(800, 12288);
  EXPECT_TRUE(std::ranges::equal(guest(kEnd - 5000, 5000), std::span(whole).first(5000)));
  EXPECT_TRUE(std::ranges::equal(next.span(kEnd, 7288), std::span(whole).subspan(5000)));
  ASSERT_EQ(queue().perform(RequestType::kOut, 1600, {&across, 1}, false).status, kOk);
  EXPECT_TRUE(is_pattern(read_image(host_.image(), 1600, 12288), 800));
}

TEST_P(Requests, SegmentsThatAreNoWholeSectorsMakeAWholeRequest) {
  start();
  const std::vector<std::byte> data = pattern(700, 4096, 6);
  const BlkSegment first =
      guest_data(BlkClient::kSpareAddr + 3, {data.begin(), data.begin() + 1001});
  const BlkSegment second =
      guest_data(BlkClient::kSpareAddr + 8192 + 5, {data.begin() + 1001, data.end()});
  const std::array<BlkSegment, 2> segments = {first, second};
  ASSERT_EQ(queue().perform(RequestType::kOut, 700, segments, false).status, kOk);
  EXPECT_TRUE(is_pattern(read_image(host_.image(), 700, 4096), 700, 6));
}

TEST_P(Requests, MoreSegmentsThanSegMaxWork) {
  start({.bytes = 16 << 20}, {.shape = {.size = 512}});
  std::vector<BlkSegment> segments;
  for (std::uint64_t i = 0; i < 256; ++i) {
    // Every other page, so that neighbours cannot be merged.
    segments.push_back({BlkClient::kSpareAddr + i * 8192, 4096});
  }
  ASSERT_EQ(queue().perform(RequestType::kIn, 1000, segments, true).status, kOk);
  EXPECT_TRUE(is_pattern(guest(BlkClient::kSpareAddr, 4096), 1000));
  EXPECT_TRUE(is_pattern(guest(BlkClient::kSpareAddr + 255 * 8192, 4096), 1000 + 255 * 8));
  ASSERT_EQ(queue().perform(RequestType::kOut, 9000, segments, false).status, kOk);
  EXPECT_TRUE(is_pattern(read_image(host_.image(), 9000 + 255 * 8, 4096), 1000 + 255 * 8));
}

TEST_P(Requests, SegmentsLargerThanSizeMaxWork) {
  start({.bytes = 16 << 20});
  const BlkSegment segment{BlkClient::kSpareAddr, 4 << 20};
  ASSERT_EQ(queue().perform(RequestType::kIn, 2048, {&segment, 1}, true).status, kOk);
  EXPECT_TRUE(is_pattern(guest(segment.guest_addr, segment.bytes), 2048));
}

TEST_P(Requests, DirectChainsWorkWhereIndirectIsNotNegotiated) {
  start({}, {.shape = {.indirect = false}});
  ASSERT_EQ(client_->features() & common::kFeatureIndirectDesc, 0U);
  expect_serves(queue());
}

TEST_P(Requests, QueueWithoutEventIdxWorks) {
  start({}, {.shape = {.event_idx = false}});
  ASSERT_EQ(client_->features() & common::kFeatureEventIdx, 0U);
  expect_serves(queue());
}

TEST_P(Requests, FlushSucceeds) {
  start();
  EXPECT_EQ(queue().flush(), kOk);
}

TEST_P(Requests, GetIdReturnsTheSerial) {
  start({.options = {"--serial=DISK-0042"}});
  EXPECT_EQ(queue().get_id(), "DISK-0042");
}

TEST_P(Requests, SerialOfTwentyBytesIsNotCut) {
  start({.options = {"--serial=01234567890123456789"}});
  EXPECT_EQ(queue().get_id(), "01234567890123456789");
}

TEST_P(Requests, WriteZeroesClearsSeveralSegments) {
  start();
  const std::array<WireRange, 2> ranges = {range(64, 64), range(1024, 8)};
  ASSERT_EQ(queue().ranges(RequestType::kWriteZeroes, ranges), kOk);
  EXPECT_TRUE(is_zero(read_image(host_.image(), 64, 64 * kSector)));
  EXPECT_TRUE(is_zero(read_image(host_.image(), 1024, 8 * kSector)));
  EXPECT_TRUE(is_pattern(read_image(host_.image(), 128, kSector), 128));
  EXPECT_TRUE(is_pattern(read_image(host_.image(), 63, kSector), 63));
}

TEST_P(Requests, WriteZeroesThatMayUnmapReadsBackAsZeroes) {
  start();
  const WireRange all = range(0, 2048, common::blk::kRangeFlagUnmap);
  ASSERT_EQ(queue().ranges(RequestType::kWriteZeroes, {&all, 1}), kOk);
  std::vector<std::byte> got(65536);
  ASSERT_EQ(queue().read(0, got), kOk);
  EXPECT_TRUE(is_zero(got));
}

TEST_P(Requests, DiscardOfSeveralSegmentsGivesTheirSpaceBack) {
  start();
  struct stat before {};
  struct stat after {};
  ASSERT_EQ(::stat(host_.image().c_str(), &before), 0);
  const std::array<WireRange, 3> ranges = {range(0, 2048), range(4096, 2048), range(8192, 1024)};
  ASSERT_EQ(queue().ranges(RequestType::kDiscard, ranges), kOk);
  ASSERT_EQ(queue().flush(), kOk);
  ASSERT_EQ(::stat(host_.image().c_str(), &after), 0);
  EXPECT_LT(after.st_blocks, before.st_blocks);
  EXPECT_EQ(after.st_size, before.st_size);
  EXPECT_TRUE(is_pattern(read_image(host_.image(), 2048, 65536), 2048));
}

TEST_P(Requests, DiscardSwitchedOffIsNotOfferedAndUnsupported) {
  start({.options = {"--discard=off"}});
  EXPECT_EQ(client_->offered() & common::blk::kFeatureDiscard, 0U);
  const WireRange some = range(0, 8);
  EXPECT_EQ(queue().ranges(RequestType::kDiscard, {&some, 1}), kUnsupported);
  EXPECT_TRUE(is_pattern(read_image(host_.image(), 0, 4096), 0));
}

// Linux asks write zeroes to unmap even where the configuration space says that it may not.
TEST_P(Requests, DiscardSwitchedOffKeepsTheSpaceThatWriteZeroesMayUnmap) {
  start({.options = {"--discard=off"}});
  ASSERT_EQ(queue().flush(), kOk);
  struct stat before {};
  struct stat after {};
  ASSERT_EQ(::stat(host_.image().c_str(), &before), 0);
  const WireRange all = range(0, 2048, common::blk::kRangeFlagUnmap);
  ASSERT_EQ(queue().ranges(RequestType::kWriteZeroes, {&all, 1}), kOk);
  ASSERT_EQ(queue().flush(), kOk);
  ASSERT_EQ(::stat(host_.image().c_str(), &after), 0);
  EXPECT_GE(after.st_blocks, before.st_blocks);
  EXPECT_TRUE(is_zero(read_image(host_.image(), 0, 65536)));
}

TEST_P(Requests, WriteZeroesSwitchedOffIsNotOfferedAndUnsupported) {
  start({.options = {"--write-zeroes=off"}});
  EXPECT_EQ(client_->offered() & common::blk::kFeatureWriteZeroes, 0U);
  const WireRange some = range(0, 8);
  EXPECT_EQ(queue().ranges(RequestType::kWriteZeroes, {&some, 1}), kUnsupported);
  EXPECT_TRUE(is_pattern(read_image(host_.image(), 0, 4096), 0));
}

TEST_P(Requests, DiscardWithReservedFlagsIsUnsupported) {
  start();
  const WireRange some = range(0, 8, 0x80);
  EXPECT_EQ(queue().ranges(RequestType::kDiscard, {&some, 1}), kUnsupported);
}

TEST_P(Requests, UnmapFlagInADiscardIsUnsupported) {
  start();
  const WireRange some = range(0, 8, common::blk::kRangeFlagUnmap);
  EXPECT_EQ(queue().ranges(RequestType::kDiscard, {&some, 1}), kUnsupported);
}

TEST_P(Requests, DiscardBeyondTheEndFailsAndLeavesTheDiskAlone) {
  start();
  const std::array<WireRange, 2> ranges = {range(0, 8), range(client_->capacity_sectors() - 4, 8)};
  EXPECT_EQ(queue().ranges(RequestType::kDiscard, ranges), kIoError);
  EXPECT_TRUE(is_pattern(read_image(host_.image(), client_->capacity_sectors() - 4, 2048),
                         client_->capacity_sectors() - 4));
  expect_serves(queue());
}

TEST_P(Requests, UnknownRequestTypeIsUnsupported) {
  start();
  EXPECT_EQ(queue().perform(static_cast<RequestType>(99), 0, {}, false).status, kUnsupported);
  expect_serves(queue());
}

TEST_P(Requests, SectorBeyondTheEndIsAnError) {
  start();
  std::vector<std::byte> got(4096);
  EXPECT_EQ(queue().read(client_->capacity_sectors(), got), kIoError);
  EXPECT_EQ(queue().read(client_->capacity_sectors() - 7, got), kIoError);
  EXPECT_EQ(queue().write(client_->capacity_sectors() - 7, got), kIoError);
  expect_serves(queue());
}

TEST_P(Requests, SectorThatOverflowsInBytesIsAnError) {
  start();
  std::vector<std::byte> got(4096);
  EXPECT_EQ(queue().read(~0ULL, got), kIoError);
  EXPECT_EQ(queue().read(1ULL << 55, got), kIoError);
  EXPECT_EQ(queue().write((1ULL << 55) - 1, got), kIoError);
  expect_serves(queue());
}

TEST_P(Requests, DataThatIsNoWholeSectorsIsAnError) {
  start();
  const BlkSegment segment{BlkClient::kSpareAddr, 700};
  EXPECT_EQ(queue().perform(RequestType::kIn, 0, {&segment, 1}, true).status, kIoError);
  EXPECT_EQ(queue().perform(RequestType::kOut, 0, {&segment, 1}, false).status, kIoError);
  expect_serves(queue());
}

TEST_P(Requests, WriteToAReadOnlyDiskIsAnErrorAndReadsWork) {
  start({.options = {"--read-only"}});
  EXPECT_NE(client_->offered() & common::blk::kFeatureReadOnly, 0U);
  std::vector<std::byte> got(4096);
  EXPECT_EQ(queue().write(8, pattern(8, 4096, 1)), kIoError);
  EXPECT_EQ(queue().read(8, got), kOk);
  EXPECT_TRUE(is_pattern(got, 8));
  EXPECT_TRUE(is_pattern(read_image(host_.image(), 8, 4096), 8));
}

// Firecracker does not negotiate BLK_SIZE, so its guest knows nothing of larger blocks.
TEST_P(Requests, SectorsSmallerThanTheBlockSizeWorkForADriverThatDoesNotKnowIt) {
  start({.options = {"--block-size=4096"}}, {.features = ~common::blk::kFeatureBlkSize});
  std::vector<std::byte> got(kSector);
  ASSERT_EQ(queue().write(33, pattern(33, kSector, 4)), kOk);
  ASSERT_EQ(queue().read(33, got), kOk);
  EXPECT_TRUE(is_pattern(got, 33, 4));
  ASSERT_EQ(queue().read(34, got), kOk);
  EXPECT_TRUE(is_pattern(got, 34));
}

TEST_P(Requests, ManyRequestsInFlightAreAllAnsweredOnce) {
  start({}, {.shape = {.size = 256, .slots = 128, .slot_bytes = 4096}});
  for (std::uint16_t slot = 0; slot < 128; ++slot) {
    const BlkSegment segment{queue().data_addr(slot), 4096};
    queue().prepare(slot, RequestType::kIn, slot * 8ULL, {&segment, 1}, true);
  }
  queue().send();
  for (int i = 0; i < 128; ++i) {
    const std::optional<BlkDone> done = queue().wait(10000);
    ASSERT_TRUE(done.has_value());
    EXPECT_EQ(done->status, kOk);
    EXPECT_TRUE(is_pattern(queue().data(done->slot).first(4096), done->slot * 8ULL));
  }
  EXPECT_FALSE(queue().harvest().has_value());
}

TEST_P(Requests, GuestMemoryOutsideTheBuffersIsLeftAlone) {
  start();
  const std::span<std::byte> around = guest(BlkClient::kSpareAddr, 16384);
  std::ranges::fill(around, std::byte{0x5a});
  const BlkSegment segment{BlkClient::kSpareAddr + 4096 + 512, 4096};
  ASSERT_EQ(queue().perform(RequestType::kIn, 0, {&segment, 1}, true).status, kOk);
  EXPECT_THAT(around.first(4096 + 512), testing::Each(std::byte{0x5a}));
  EXPECT_THAT(around.subspan(8192 + 512), testing::Each(std::byte{0x5a}));
}

}  // namespace
}  // namespace integration
