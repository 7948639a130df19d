// DISCARD and WRITE_ZEROES (virtio 1.2, 5.2.6), through the whole queue.
#include "worker/blk_range.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <vector>

#include "tests/fakes/blk_rig.h"
#include "tests/fakes/watched_memory.h"

namespace {

using common::Counter;
using common::GuestAddr;
using common::blk::RequestType;
using common::blk::WireRange;
using fakes::BlkAnswer;
using fakes::BlkRig;
using fakes::make_range;
using fakes::ScriptedEngine;
using Kind = worker::IoRequest::Kind;

constexpr std::uint8_t kOk = 0;
constexpr std::uint8_t kIoError = 1;
constexpr std::uint8_t kUnsupported = 2;
constexpr std::uint32_t kUnmap = common::blk::kRangeFlagUnmap;

struct Ranges : testing::Test {
  Ranges() { std::fill(rig.engine.disk().begin(), rig.engine.disk().end(), std::byte{0xee}); }

  BlkAnswer request(RequestType type, const std::vector<WireRange>& ranges) {
    EXPECT_TRUE(rig.blk.ranges(type, ranges));
    return rig.only_answer();
  }
  std::uint8_t status(RequestType type, const std::vector<WireRange>& ranges) {
    return request(type, ranges).status;
  }
  bool zeros(std::uint64_t sector, std::uint64_t count) {
    const auto bytes = rig.engine.disk().subspan(sector * 512, count * 512);
    return std::all_of(bytes.begin(), bytes.end(), [](std::byte b) { return b == std::byte{0}; });
  }
  bool untouched(std::uint64_t sector, std::uint64_t count) {
    const auto bytes = rig.engine.disk().subspan(sector * 512, count * 512);
    return std::all_of(bytes.begin(), bytes.end(),
                       [](std::byte b) { return b == std::byte{0xee}; });
  }
  std::vector<Kind> kinds() const {
    std::vector<Kind> list;
    for (const auto& seen : rig.engine.seen) list.push_back(seen.kind);
    return list;
  }

  BlkRig rig;
};

struct BothKinds : Ranges, testing::WithParamInterface<RequestType> {};

// --- checks -----------------------------------------------------------------------------------

TEST_P(BothKinds, OfSeveralSegmentsAreDoneOneAfterTheOther) {
  EXPECT_EQ(status(GetParam(), {make_range(1, 2), make_range(100, 1), make_range(50, 8)}), kOk);
  EXPECT_TRUE(zeros(1, 2) && zeros(100, 1) && zeros(50, 8));
  EXPECT_TRUE(untouched(0, 1) && untouched(3, 47) && untouched(58, 42) && untouched(101, 10));
  EXPECT_EQ(rig.engine.seen.size(), 3U);
}

TEST_P(BothKinds, MayHaveAsManySegmentsAsPromised) {
  EXPECT_EQ(status(GetParam(), std::vector<WireRange>(64, make_range(0, 1))), kOk);
  EXPECT_EQ(rig.engine.seen.size(), 64U);
}

TEST_P(BothKinds, WithMoreSegmentsThanPromisedAreErrors) {
  EXPECT_EQ(status(GetParam(), std::vector<WireRange>(65, make_range(0, 1))), kIoError);
  EXPECT_TRUE(rig.engine.seen.empty());
}

TEST_P(BothKinds, WithoutASegmentAreErrors) {
  ASSERT_TRUE(rig.blk.add(GetParam(), 0, {}));
  EXPECT_EQ(rig.only_answer().status, kIoError);
}

TEST_P(BothKinds, OfNoWholeSegmentsAreErrors) {
  const fakes::Buffer data{rig.ram.alloc(64), 17, false};
  ASSERT_TRUE(rig.blk.add(GetParam(), 0, {&data, 1}));
  EXPECT_EQ(rig.only_answer().status, kIoError);
}

TEST_P(BothKinds, BeyondTheEndAreErrorsAndNothingIsDone) {
  EXPECT_EQ(status(GetParam(), {make_range(0, 8), make_range(BlkRig::kSectors - 1, 2)}), kIoError);
  EXPECT_TRUE(rig.engine.seen.empty());
}

TEST_P(BothKinds, WhoseSectorWrapsAreErrors) {
  EXPECT_EQ(status(GetParam(), {make_range(0xffff'ffff'ffff'ffff, 2)}), kIoError);
  EXPECT_EQ(status(GetParam(), {make_range(1ULL << 55, 1)}), kIoError);
  EXPECT_TRUE(rig.engine.seen.empty());
}

TEST_P(BothKinds, WithReservedFlagsAreUnsupportedAndNothingIsDone) {
  EXPECT_EQ(status(GetParam(), {make_range(0, 8), make_range(8, 8, 2)}), kUnsupported);
  EXPECT_EQ(status(GetParam(), {make_range(0, 8, 0x8000'0000)}), kUnsupported);
  EXPECT_TRUE(rig.engine.seen.empty());
}

TEST_P(BothKinds, OfNoSectorsAreDone) {
  EXPECT_EQ(status(GetParam(), {make_range(BlkRig::kSectors, 0), make_range(5, 0)}), kOk);
  EXPECT_TRUE(rig.engine.seen.empty());
}

TEST_P(BothKinds, OnAReadOnlyDiskAreErrors) {
  rig.device.read_only = 1;
  EXPECT_EQ(status(GetParam(), {make_range(0, 1)}), kIoError);
  EXPECT_TRUE(rig.engine.seen.empty());
}

TEST_P(BothKinds, ThatWereNotOfferedAreUnsupported) {
  rig.device.discard = rig.device.write_zeroes = 0;
  EXPECT_EQ(status(GetParam(), {make_range(0, 1)}), kUnsupported);
}

TEST_P(BothKinds, ThatWereNotAcknowledgedAreUnsupported) {
  rig.features = common::blk::kFeatureFlush;
  EXPECT_EQ(status(GetParam(), {make_range(0, 1)}), kUnsupported);
}

TEST_P(BothKinds, ThatTheDiskFailsAreErrors) {
  rig.engine.fail(Kind::kPunchHole, EIO);
  rig.engine.fail(Kind::kZeroRange, EIO);
  EXPECT_EQ(status(GetParam(), {make_range(0, 1), make_range(8, 1)}), kIoError);
  EXPECT_EQ(rig.engine.seen.size(), 1U);
}

TEST_P(BothKinds, AreStableWhenTheyCompleteWithoutAWriteBackCache) {
  rig.write_back = false;
  EXPECT_EQ(status(GetParam(), {make_range(0, 1), make_range(8, 1)}), kOk);
  EXPECT_EQ(kinds().size(), 3U);
  EXPECT_EQ(kinds().back(), Kind::kSync);
}

TEST_P(BothKinds, WhoseSyncFailsAreErrors) {
  rig.write_back = false;
  rig.engine.fail(Kind::kSync, EIO);
  EXPECT_EQ(status(GetParam(), {make_range(0, 1)}), kIoError);
}

TEST_P(BothKinds, FetchTheirSegmentsExactlyOnce) {
  if (!fakes::WatchedMemory::kSupported) GTEST_SKIP() << "x86-64 only";
  const GuestAddr page = rig.ram.alloc(4096, 4096);
  rig.ram.put(page, make_range(0, 1));
  rig.ram.put(GuestAddr{page.value + 16}, make_range(8, 1));
  const fakes::Buffer data{page, 32, false};
  ASSERT_TRUE(rig.blk.add(GetParam(), 0, {&data, 1}));
  (void)rig.ring.publish();
  const auto queue = rig.make_queue();

  const auto bytes = rig.ram.bytes(page, 4096);
  const iovec segment{bytes.data(), 32};
  const std::uint32_t one_copy = fakes::WatchedMemory::accesses_of(bytes, [&segment] {
    std::array<WireRange, 2> copy;
    (void)common::GuestMemory::gather({&segment, 1}, std::as_writable_bytes(std::span(copy)));
  });

  std::uint32_t total = 0;
  {
    fakes::WatchedMemory watched(bytes);
    (void)queue->run();
    total = watched.total();
  }
  EXPECT_GE(total, 1U);
  EXPECT_LE(total, one_copy);
  EXPECT_EQ(rig.blk.next()->status, kOk);
}

INSTANTIATE_TEST_SUITE_P(Blk, BothKinds,
                         testing::Values(RequestType::kDiscard, RequestType::kWriteZeroes));

TEST_F(Ranges, LongerThanPromisedAreErrors) {
  BlkRig large;
  large.device.capacity_sectors = 1U << 23;
  const WireRange range = make_range(0, common::blk::kRangeSectorsMax + 1);
  ASSERT_TRUE(large.blk.ranges(RequestType::kDiscard, {&range, 1}));
  EXPECT_EQ(large.only_answer().status, kIoError);
  EXPECT_TRUE(large.engine.seen.empty());
}

// --- discard ----------------------------------------------------------------------------------

TEST_F(Ranges, ADiscardPunchesHoles) {
  EXPECT_EQ(status(RequestType::kDiscard, {make_range(0, 8)}), kOk);
  EXPECT_EQ(kinds(), std::vector{Kind::kPunchHole});
  EXPECT_EQ(rig.engine.seen[0].bytes, 4096U);
  EXPECT_EQ(rig.count(Counter::kDiscardRequests), 1U);
}

TEST_F(Ranges, ADiscardWithTheUnmapFlagIsUnsupported) {
  EXPECT_EQ(status(RequestType::kDiscard, {make_range(0, 1, kUnmap)}), kUnsupported);
}

TEST_F(Ranges, ADiscardThatTheDiskDoesNotKnowSucceedsAndIsNotTriedAgain) {
  rig.engine.fail(Kind::kPunchHole, EOPNOTSUPP, ScriptedEngine::kAlways);
  EXPECT_EQ(status(RequestType::kDiscard, {make_range(0, 8), make_range(8, 8)}), kOk);
  EXPECT_EQ(rig.engine.seen.size(), 1U);
  EXPECT_TRUE(untouched(0, 16));
}

TEST_F(Ranges, ADiscardOnABlockDeviceKeepsToItsBlocks) {
  rig.device.block_device = 1;
  rig.device.offset_alignment = 4096;
  EXPECT_EQ(status(RequestType::kDiscard, {make_range(1, 16), make_range(1, 3)}), kOk);
  ASSERT_EQ(rig.engine.seen.size(), 1U);
  EXPECT_EQ(rig.engine.seen[0].offset, 4096U);
  EXPECT_EQ(rig.engine.seen[0].bytes, 4096U);
}

// --- write zeroes -----------------------------------------------------------------------------

TEST_F(Ranges, WriteZeroesKeepsTheRangeAllocated) {
  EXPECT_EQ(status(RequestType::kWriteZeroes, {make_range(0, 8)}), kOk);
  EXPECT_EQ(kinds(), std::vector{Kind::kZeroRange});
  EXPECT_EQ(rig.count(Counter::kWriteZeroesRequests), 1U);
}

TEST_F(Ranges, WriteZeroesWithTheUnmapFlagDeallocates) {
  EXPECT_EQ(status(RequestType::kWriteZeroes, {make_range(0, 8, kUnmap)}), kOk);
  EXPECT_EQ(kinds(), std::vector{Kind::kPunchHole});
}

TEST_F(Ranges, WriteZeroesWithTheUnmapFlagKeepsTheRangeAllocatedWhereDiscardIsSwitchedOff) {
  rig.device.discard = 0;
  EXPECT_EQ(status(RequestType::kWriteZeroes, {make_range(0, 8, kUnmap)}), kOk);
  EXPECT_EQ(kinds(), std::vector{Kind::kZeroRange});
}

TEST_F(Ranges, WriteZeroesFallsBackFromUnmapToZeroRange) {
  rig.engine.fail(Kind::kPunchHole, EOPNOTSUPP);
  EXPECT_EQ(status(RequestType::kWriteZeroes, {make_range(0, 8, kUnmap)}), kOk);
  EXPECT_EQ(kinds(), (std::vector{Kind::kPunchHole, Kind::kZeroRange}));
}

struct ZerosByHand : Ranges {
  ZerosByHand() {
    rig.engine.fail(Kind::kPunchHole, EOPNOTSUPP, ScriptedEngine::kAlways);
    rig.engine.fail(Kind::kZeroRange, EOPNOTSUPP, ScriptedEngine::kAlways);
  }
};

TEST_F(ZerosByHand, AreWrittenWhereTheDiskCannotMakeThem) {
  EXPECT_EQ(status(RequestType::kWriteZeroes, {make_range(3, 21, kUnmap), make_range(40, 2)}), kOk);
  EXPECT_TRUE(zeros(3, 21) && zeros(40, 2));
  EXPECT_TRUE(untouched(0, 3) && untouched(24, 16) && untouched(42, 10));
}

TEST_F(ZerosByHand, ComeInBoundedPieces) {
  BlkRig large({}, 8192);
  large.engine.fail(Kind::kZeroRange, EOPNOTSUPP, ScriptedEngine::kAlways);
  const WireRange range = make_range(0, 8192);
  ASSERT_TRUE(large.blk.ranges(RequestType::kWriteZeroes, {&range, 1}));
  EXPECT_EQ(large.only_answer().status, kOk);
  ASSERT_EQ(large.engine.seen.size(), 5U);
  EXPECT_EQ(large.engine.seen[1].bytes, 1U << 20);
}

TEST_F(ZerosByHand, GoOnAfterAShortWrite) {
  rig.engine.shorten(Kind::kWrite, 1536);
  EXPECT_EQ(status(RequestType::kWriteZeroes, {make_range(0, 16)}), kOk);
  EXPECT_TRUE(zeros(0, 16));
}

TEST_F(ZerosByHand, EndWhereTheDiskTakesNothing) {
  rig.engine.shorten(Kind::kWrite, 0, ScriptedEngine::kAlways);
  EXPECT_EQ(status(RequestType::kWriteZeroes, {make_range(0, 16)}), kIoError);
}

TEST_F(ZerosByHand, AreAlignedForADirectDiskAsFarAsTheRangeIs) {
  rig.device.direct = rig.device.has_buffered = 1;
  rig.device.memory_alignment = rig.device.offset_alignment = 4096;
  EXPECT_EQ(status(RequestType::kWriteZeroes, {make_range(8, 12)}), kOk);
  ASSERT_EQ(rig.engine.seen.size(), 3U);
  EXPECT_FALSE(rig.engine.seen[1].buffered);
  EXPECT_EQ(rig.engine.seen[1].bytes, 4096U);
  EXPECT_EQ(rig.engine.seen[1].address_bits % 4096, 0U);
  EXPECT_TRUE(rig.engine.seen[2].buffered);
  EXPECT_TRUE(zeros(8, 12));
}

TEST_F(Ranges, ARangeThatTheDiskFindsMisalignedIsWrittenByHandAndTheNextTriedAgain) {
  rig.engine.fail(Kind::kZeroRange, EINVAL);
  EXPECT_EQ(status(RequestType::kWriteZeroes, {make_range(0, 1), make_range(8, 8)}), kOk);
  EXPECT_EQ(kinds(), (std::vector{Kind::kZeroRange, Kind::kWrite, Kind::kZeroRange}));
}

TEST_F(Ranges, WriteZeroesOnAFullDiskIsAnError) {
  rig.engine.fail(Kind::kZeroRange, ENOSPC);
  EXPECT_EQ(status(RequestType::kWriteZeroes, {make_range(0, 1)}), kIoError);
  EXPECT_EQ(rig.engine.seen.size(), 1U);
}

TEST_F(Ranges, AreTriedAgainAfterASignal) {
  rig.engine.fail(Kind::kZeroRange, EINTR, 3);
  EXPECT_EQ(status(RequestType::kWriteZeroes, {make_range(0, 1)}), kOk);
}

}  // namespace
