// Short transfers, retries, long requests and O_DIRECT, through the whole queue.
#include "worker/blk_transfer.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <vector>

#include "tests/fakes/blk_rig.h"

namespace {

using common::Counter;
using common::GuestAddr;
using common::blk::RequestType;
using common::ipc::WorkerExit;
using fakes::BlkAnswer;
using fakes::BlkRig;
using fakes::Buffer;
using fakes::GuestDriver;
using fakes::ScriptedEngine;
using Kind = worker::IoRequest::Kind;
using Layout = GuestDriver::Layout;

constexpr std::uint8_t kOk = 0;
constexpr std::uint8_t kIoError = 1;

struct Transfer : testing::Test {
  Transfer() { rig.number_sectors(); }

  BlkAnswer read(std::uint64_t sector, std::uint32_t bytes) {
    return read_into(data, sector, bytes);
  }
  BlkAnswer read_into(GuestAddr to, std::uint64_t sector, std::uint32_t bytes) {
    EXPECT_TRUE(rig.blk.read(sector, to, bytes));
    return rig.only_answer();
  }
  BlkAnswer write_from(GuestAddr from, std::uint64_t sector, std::uint32_t bytes) {
    EXPECT_TRUE(rig.blk.write(sector, from, bytes));
    return rig.only_answer();
  }
  bool holds_sectors(GuestAddr at, std::uint64_t sector, std::uint64_t bytes) {
    const auto memory = rig.ram.bytes(at, bytes);
    return std::equal(memory.begin(), memory.end(),
                      rig.engine.disk().begin() + static_cast<std::ptrdiff_t>(sector * 512));
  }
  // `count` pieces of 512 bytes, none beside the next.
  std::vector<Buffer> pieces(std::uint32_t count, bool writable) {
    std::vector<Buffer> buffers(count);
    for (std::uint32_t i = 0; i < count; ++i) {
      buffers[i] = {{data.value + std::uint64_t{i} * 1024}, 512, writable};
    }
    return buffers;
  }

  BlkRig rig;
  GuestAddr data = rig.ram.alloc(4U << 20, 4096);
};

struct DirectTransfer : Transfer {
  DirectTransfer() {
    rig.device.direct = 1;
    rig.device.has_buffered = 1;
    rig.device.memory_alignment = 512;
    rig.device.offset_alignment = 512;
  }
};

struct Direct4k : DirectTransfer {
  Direct4k() { rig.device.memory_alignment = rig.device.offset_alignment = 4096; }
};

// --- short and failing ------------------------------------------------------------------------

TEST_F(Transfer, GoesOnAfterAShortRead) {
  rig.engine.shorten(Kind::kRead, 700);
  EXPECT_EQ(read(0, 4096).status, kOk);
  ASSERT_EQ(rig.engine.seen.size(), 2U);
  EXPECT_EQ(rig.engine.seen[1].offset, 700U);
  EXPECT_EQ(rig.engine.seen[1].bytes, 4096U - 700U);
  EXPECT_TRUE(holds_sectors(data, 0, 4096));
}

TEST_F(Transfer, GoesOnAfterAShortWriteAcrossSegments) {
  rig.engine.shorten(Kind::kWrite, 513, 3);
  for (std::uint32_t i = 0; i < 8; ++i)
    rig.ram.fill({data.value + i * 1024}, 512, static_cast<std::uint8_t>(0x80 + i));
  ASSERT_TRUE(rig.blk.add(RequestType::kOut, 0, pieces(8, false)));
  EXPECT_EQ(rig.only_answer().status, kOk);
  EXPECT_EQ(rig.engine.disk()[0], std::byte{0x80});
  EXPECT_EQ(rig.engine.disk()[7 * 512 + 511], std::byte{0x87});
}

TEST_F(Transfer, OfADiskThatGivesOneByteAtATimeEnds) {
  rig.engine.shorten(Kind::kRead, 1, ScriptedEngine::kAlways);
  EXPECT_EQ(read(0, 512).status, kOk);
  EXPECT_EQ(rig.engine.seen.size(), 512U);
}

TEST_F(Transfer, FromADiskThatHasShrunkIsAnErrorWithTheTrueLength) {
  rig.engine.shorten(Kind::kRead, 1024);
  rig.engine.shorten(Kind::kRead, 0, ScriptedEngine::kAlways);
  const BlkAnswer answer = read(0, 4096);
  EXPECT_EQ(answer.status, kIoError);
  EXPECT_EQ(answer.written, 1024U);
  EXPECT_EQ(rig.engine.seen.size(), 2U);
}

TEST_F(Transfer, ThatReadNothingAtAllIsAnError) {
  rig.engine.shorten(Kind::kRead, 0, ScriptedEngine::kAlways);
  EXPECT_EQ(read(0, 512).status, kIoError);
  EXPECT_EQ(rig.engine.seen.size(), 1U);
}

class Transient : public Transfer, public testing::WithParamInterface<int> {};
TEST_P(Transient, ErrorsAreTriedAgain) {
  rig.engine.fail(Kind::kRead, GetParam(), 5);
  EXPECT_EQ(read(0, 512).status, kOk);
}
TEST_P(Transient, ErrorsOfAFlushAreTriedAgain) {
  rig.engine.fail(Kind::kSync, GetParam(), 5);
  ASSERT_TRUE(rig.blk.flush());
  EXPECT_EQ(rig.only_answer().status, kOk);
}
TEST_P(Transient, ErrorsThatDoNotEndAreErrors) {
  rig.engine.fail(Kind::kWrite, GetParam(), ScriptedEngine::kAlways);
  EXPECT_EQ(write_from(data, 0, 512).status, kIoError);
  EXPECT_EQ(rig.engine.seen.size(), 17U);
}
INSTANTIATE_TEST_SUITE_P(Blk, Transient, testing::Values(EINTR, EAGAIN));

// --- long ones --------------------------------------------------------------------------------

// Windows sends more segments than SEG_MAX says (virtio-win 578).
TEST_F(Transfer, MayHaveMoreSegmentsThanSegMaxAndThanTheQueue) {
  ASSERT_TRUE(rig.blk.add(RequestType::kIn, 0, pieces(400, true), Layout::kIndirect));
  const BlkAnswer answer = rig.only_answer();
  EXPECT_EQ(answer.status, kOk);
  EXPECT_EQ(answer.written, 400U * 512 + 1);
  EXPECT_EQ(rig.engine.seen.size(), 1U);
  EXPECT_TRUE(holds_sectors({data.value + 399 * 1024}, 399, 512));
}

TEST_F(Transfer, MayHaveAsManySegmentsAsOneSystemCallTakes) {
  ASSERT_TRUE(rig.blk.add(RequestType::kIn, 0, pieces(1024, true), Layout::kIndirect));
  EXPECT_EQ(rig.only_answer().status, kOk);
  EXPECT_EQ(rig.engine.seen.size(), 1U);
}

// A region border in every 16th buffer makes more segments than one readv takes.
TEST_F(Transfer, WithMoreSegmentsThanOneSystemCallTakesIsCutInTwo) {
  std::vector<Buffer> buffers = pieces(1024, true);
  std::uint64_t border = 0x8000'0000;
  rig.ram.add_region({border}, 4096);
  for (std::uint32_t i = 0; i < 20; ++i) {
    border += 4096;
    rig.ram.add_region({border}, 4096);
    buffers[i * 16] = {{border - 256}, 512, true};
  }
  ASSERT_TRUE(rig.blk.add(RequestType::kIn, 0, buffers, Layout::kIndirect));

  EXPECT_EQ(rig.only_answer().status, kOk);

  ASSERT_EQ(rig.engine.seen.size(), 2U);
  EXPECT_EQ(rig.engine.seen[0].segments, 1024U);
  EXPECT_EQ(rig.engine.seen[1].segments, 20U);
  EXPECT_TRUE(holds_sectors({data.value + 1023 * 1024}, 1023, 512));
}

TEST_F(Transfer, LargerThanSizeMaxIsServed) {
  ASSERT_LT(common::blk::kSizeMax, 3U << 20);
  BlkRig large({}, 8192);
  const GuestAddr to = large.ram.alloc(3U << 20, 4096);
  ASSERT_TRUE(large.blk.read(0, to, 3U << 20));
  EXPECT_EQ(large.only_answer().status, kOk);
}

TEST_F(Transfer, WaitsInTheRingWhileAllRoomForLongOnesIsTaken) {
  rig.engine.held = true;
  const std::uint32_t count = worker::SegmentPool::kLargeCount + 4;
  for (std::uint32_t i = 0; i < count; ++i) {
    ASSERT_TRUE(rig.blk.add(RequestType::kIn, 0, pieces(200, true), Layout::kIndirect));
  }
  std::size_t most_under_way = 0;
  rig.engine.on_turn = [&](bool) {
    most_under_way = std::max(most_under_way, rig.engine.under_way());
  };

  EXPECT_EQ(rig.serve(), WorkerExit::kStopped);

  EXPECT_EQ(most_under_way, worker::SegmentPool::kLargeCount);
  EXPECT_EQ(rig.ring.used_idx(), count);
  EXPECT_EQ(rig.count(Counter::kReadRequests), count);
}

// --- O_DIRECT ---------------------------------------------------------------------------------

TEST_F(DirectTransfer, GoesStraightWhereMemoryIsAligned) {
  EXPECT_EQ(read(1, 1024).status, kOk);
  ASSERT_EQ(rig.engine.seen.size(), 1U);
  EXPECT_EQ(rig.engine.seen[0].address_bits & 511,
            reinterpret_cast<std::uintptr_t>(rig.ram.bytes(data, 1).data()) & 511);
  EXPECT_EQ(rig.count(Counter::kBounced), 0U);
}

TEST_F(DirectTransfer, OfMisalignedMemoryGoesThroughAnAlignedCopy) {
  const GuestAddr odd{data.value + 8};
  EXPECT_EQ(read_into(odd, 2, 2048).status, kOk);
  ASSERT_EQ(rig.engine.seen.size(), 1U);
  EXPECT_EQ(rig.engine.seen[0].address_bits % 512, 0U);
  EXPECT_TRUE(holds_sectors(odd, 2, 2048));
  EXPECT_EQ(rig.count(Counter::kBounced), 1U);
}

TEST_F(DirectTransfer, WritesMisalignedMemoryInPiecesOfABuffer) {
  const std::uint32_t bytes = 2 * worker::BouncePool::kBufferBytes + 512;
  const GuestAddr odd{data.value + 4};
  rig.ram.fill(odd, bytes, 0x3c);
  EXPECT_EQ(write_from(odd, 8, bytes).status, kOk);
  ASSERT_EQ(rig.engine.seen.size(), 3U);
  EXPECT_EQ(rig.engine.seen[2].bytes, 512U);
  EXPECT_TRUE(holds_sectors(odd, 8, bytes));
  EXPECT_EQ(rig.engine.disk()[8 * 512 + bytes],
            std::byte{static_cast<std::uint8_t>(8 + bytes / 512)});
}

TEST_F(DirectTransfer, OfSegmentsThatAreNoWholeBlocksGoesThroughAnAlignedCopy) {
  const Buffer buffers[] = {{data, 256, true}, {{data.value + 512}, 256, true}};
  ASSERT_TRUE(rig.blk.add(RequestType::kIn, 6, buffers));
  EXPECT_EQ(rig.only_answer().status, kOk);
  EXPECT_EQ(rig.count(Counter::kBounced), 1U);
  EXPECT_TRUE(holds_sectors(data, 6, 256));
}

TEST_F(DirectTransfer, GoesOnAfterAShortReadThroughTheCopy) {
  const GuestAddr odd{data.value + 8};
  rig.engine.shorten(Kind::kRead, 1024);
  EXPECT_EQ(read_into(odd, 0, 4096).status, kOk);
  EXPECT_TRUE(holds_sectors(odd, 0, 4096));
}

TEST_F(DirectTransfer, GoesOnThroughThePageCacheAfterAShortReadOfNoWholeBlock) {
  const GuestAddr odd{data.value + 8};
  rig.engine.shorten(Kind::kRead, 700);
  EXPECT_EQ(read_into(odd, 0, 4096).status, kOk);
  ASSERT_EQ(rig.engine.seen.size(), 2U);
  EXPECT_FALSE(rig.engine.seen[0].buffered);
  EXPECT_TRUE(rig.engine.seen[1].buffered);
  EXPECT_TRUE(holds_sectors(odd, 0, 4096));
}

TEST_F(DirectTransfer, IsDurableThroughTheCopyToo) {
  rig.write_back = false;
  (void)write_from({data.value + 8}, 0, 512);
  EXPECT_TRUE(rig.engine.seen.at(0).durable);
}

TEST_F(DirectTransfer, OfADiskThatWantsMoreAlignmentThanItSaidGoesThroughTheCopy) {
  rig.engine.fail(Kind::kRead, EINVAL);
  EXPECT_EQ(read(0, 4096).status, kOk);
  EXPECT_EQ(rig.count(Counter::kBounced), 1U);
  EXPECT_TRUE(holds_sectors(data, 0, 4096));
}

TEST_F(DirectTransfer, ThatIsInvalidEvenAlignedIsAnError) {
  rig.engine.fail(Kind::kRead, EINVAL, ScriptedEngine::kAlways);
  EXPECT_EQ(read(0, 4096).status, kIoError);
  EXPECT_EQ(rig.engine.seen.size(), 2U);
}

TEST_F(DirectTransfer, WaitsForABufferInTheOrderOfArrival) {
  rig.engine.held = true;
  std::vector<std::uint16_t> heads;
  const std::uint32_t count = worker::BouncePool::kBuffers * 3;
  for (std::uint32_t i = 0; i < count; ++i) {
    heads.push_back(rig.blk.read(i, {data.value + i * 8192 + 8}, 4096).value());
  }
  std::size_t most_under_way = 0;
  rig.engine.on_turn = [&](bool) {
    most_under_way = std::max(most_under_way, rig.engine.under_way());
  };

  EXPECT_EQ(rig.serve(), WorkerExit::kStopped);

  EXPECT_EQ(most_under_way, worker::BouncePool::kBuffers);
  EXPECT_EQ(rig.count(Counter::kBounced), count);
  std::vector<std::uint16_t> answered;
  while (const auto answer = rig.blk.next()) answered.push_back(answer->head);
  EXPECT_EQ(answered, heads);
  EXPECT_TRUE(holds_sectors({data.value + (count - 1) * 8192 + 8}, count - 1, 4096));
}

TEST_F(DirectTransfer, GivesItsBufferOnWhenItFails) {
  rig.engine.fail(Kind::kRead, EIO, worker::BouncePool::kBuffers);
  for (std::uint32_t i = 0; i < 2 * worker::BouncePool::kBuffers; ++i) {
    ASSERT_TRUE(rig.blk.read(i, {data.value + i * 8192 + 8}, 4096));
  }
  EXPECT_EQ(rig.serve(), WorkerExit::kStopped);
  EXPECT_EQ(rig.count(Counter::kStatusIoError), worker::BouncePool::kBuffers);
  EXPECT_EQ(rig.ring.used_idx(), 2 * worker::BouncePool::kBuffers);
}

// Firecracker does not pass BLK_SIZE on: its guests send single sectors to a disk of 4096.
TEST_F(Direct4k, OfASingleSectorGoesThroughThePageCache) {
  EXPECT_EQ(read(3, 512).status, kOk);
  ASSERT_EQ(rig.engine.seen.size(), 1U);
  EXPECT_TRUE(rig.engine.seen[0].buffered);
  EXPECT_TRUE(holds_sectors(data, 3, 512));
}

TEST_F(Direct4k, OfASingleSectorIsAnErrorWithoutAPageCache) {
  rig.device.has_buffered = 0;
  EXPECT_EQ(read(3, 512).status, kIoError);
  EXPECT_TRUE(rig.engine.seen.empty());
}

TEST_F(Direct4k, OfWholeBlocksAtAnOddOffsetGoesThroughThePageCache) {
  EXPECT_EQ(write_from(data, 1, 4096).status, kOk);
  EXPECT_TRUE(rig.engine.seen.at(0).buffered);
}

TEST_F(Direct4k, OfWholeBlocksGoesStraight) {
  EXPECT_EQ(read(8, 8192).status, kOk);
  EXPECT_FALSE(rig.engine.seen.at(0).buffered);
  EXPECT_EQ(rig.count(Counter::kBounced), 0U);
}

}  // namespace
