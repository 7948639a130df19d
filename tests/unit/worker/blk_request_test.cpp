// What a guest gets for each request it can make: through the whole queue, seen from its side.
#include "worker/blk_request.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "tests/fakes/blk_rig.h"
#include "tests/fakes/watched_memory.h"

namespace {

using common::Counter;
using common::GuestAddr;
using common::blk::RequestType;
using common::ipc::WorkerExit;
using common::ipc::WorkerFault;
using fakes::BlkAnswer;
using fakes::BlkRig;
using fakes::Buffer;
using fakes::GuestDriver;
using Kind = worker::IoRequest::Kind;
using Layout = GuestDriver::Layout;

constexpr std::uint8_t kOk = 0;
constexpr std::uint8_t kIoError = 1;
constexpr std::uint8_t kUnsupported = 2;

struct BlkRequest : testing::Test {
  BlkRequest() { rig.number_sectors(); }

  BlkAnswer read(std::uint64_t sector, std::uint32_t bytes) {
    EXPECT_TRUE(rig.blk.read(sector, data, bytes));
    return rig.only_answer();
  }
  BlkAnswer write(std::uint64_t sector, std::uint32_t bytes) {
    EXPECT_TRUE(rig.blk.write(sector, data, bytes));
    return rig.only_answer();
  }
  BlkAnswer request(RequestType type, std::uint64_t sector, std::vector<Buffer> buffers) {
    EXPECT_TRUE(rig.blk.add(type, sector, buffers));
    return rig.only_answer();
  }
  // A chain of our own making, whole: no header or status is added.
  void chain(std::vector<Buffer> buffers, Layout layout = Layout::kDirect) {
    ASSERT_TRUE(rig.ring.add(buffers, layout));
  }
  GuestAddr header(RequestType type, std::uint64_t sector) {
    const GuestAddr at = rig.ram.alloc(16);
    rig.ram.put(at, common::blk::WireRequestHeader{common::Le32(static_cast<std::uint32_t>(type)),
                                                   common::Le32(0), common::Le64(sector)});
    return at;
  }
  std::uint8_t byte(GuestAddr at, std::uint64_t offset = 0) {
    return rig.ram.get<std::uint8_t>({at.value + offset});
  }

  BlkRig rig;
  GuestAddr data = rig.ram.alloc(1U << 20, 4096);
};

// --- reads and writes -------------------------------------------------------------------------

TEST_F(BlkRequest, ReadBringsTheSectorsAndTheirLengthWithTheStatus) {
  const BlkAnswer answer = read(8, 4096);
  EXPECT_EQ(answer.status, kOk);
  EXPECT_EQ(answer.written, 4097U);
  EXPECT_EQ(byte(data), 8);
  EXPECT_EQ(byte(data, 4095), 15);
  EXPECT_EQ(rig.count(Counter::kReadRequests), 1U);
  EXPECT_EQ(rig.count(Counter::kReadBytes), 4096U);
}

TEST_F(BlkRequest, WriteChangesTheSectorsAndAnswersWithTheStatusAlone) {
  rig.ram.fill(data, 1024, 0xab);
  const BlkAnswer answer = write(3, 1024);
  EXPECT_EQ(answer.status, kOk);
  EXPECT_EQ(answer.written, 1U);
  EXPECT_EQ(rig.engine.disk()[3 * 512], std::byte{0xab});
  EXPECT_EQ(rig.engine.disk()[5 * 512], std::byte{5});
  EXPECT_EQ(rig.count(Counter::kWriteRequests), 1U);
  EXPECT_EQ(rig.count(Counter::kWrittenBytes), 1024U);
}

TEST_F(BlkRequest, ReachesTheLastSector) { EXPECT_EQ(read(BlkRig::kSectors - 1, 512).status, kOk); }

TEST_F(BlkRequest, BeyondTheEndIsAnError) {
  const BlkAnswer answer = read(BlkRig::kSectors - 1, 1024);
  EXPECT_EQ(answer.status, kIoError);
  EXPECT_EQ(answer.written, 1U);
  EXPECT_TRUE(rig.engine.seen.empty());
  EXPECT_EQ(rig.count(Counter::kStatusIoError), 1U);
}

TEST_F(BlkRequest, BehindTheEndIsAnError) {
  EXPECT_EQ(write(BlkRig::kSectors, 512).status, kIoError);
  EXPECT_TRUE(rig.engine.seen.empty());
}

TEST_F(BlkRequest, WithASectorThatOverflowsInBytesIsAnError) {
  EXPECT_EQ(read(0xffff'ffff'ffff'ffff, 512).status, kIoError);
}

TEST_F(BlkRequest, WithASectorWhoseByteOffsetWrapsToZeroIsAnError) {
  EXPECT_EQ(write(1ULL << 55, 512).status, kIoError);
  EXPECT_TRUE(rig.engine.seen.empty());
}

TEST_F(BlkRequest, OfNoWholeSectorsIsAnError) { EXPECT_EQ(read(0, 513).status, kIoError); }

TEST_F(BlkRequest, OfLessThanASectorIsAnError) { EXPECT_EQ(write(0, 511).status, kIoError); }

TEST_F(BlkRequest, ReadWithoutDataIsAnError) {
  const BlkAnswer answer = request(RequestType::kIn, 0, {});
  EXPECT_EQ(answer.status, kIoError);
  EXPECT_EQ(answer.written, 1U);
}

TEST_F(BlkRequest, WriteWithoutDataIsAnError) {
  EXPECT_EQ(request(RequestType::kOut, 0, {}).status, kIoError);
}

TEST_F(BlkRequest, WriteToAReadOnlyDiskIsAnErrorAndWritesNothing) {
  rig.device.read_only = 1;
  EXPECT_EQ(write(0, 512).status, kIoError);
  EXPECT_TRUE(rig.engine.seen.empty());
}

TEST_F(BlkRequest, ReadFromAReadOnlyDiskIsServed) {
  rig.device.read_only = 1;
  EXPECT_EQ(read(0, 512).status, kOk);
}

TEST_F(BlkRequest, ReadThatTheDiskFailsLeavesALengthThatIsTrue) {
  rig.engine.fail(Kind::kRead, EIO);
  rig.ram.fill(data, 512, 0x77);
  const BlkAnswer answer = read(0, 512);
  EXPECT_EQ(answer.status, kIoError);
  // 2.7.8.2: that many bytes from the first writable one have been written.
  EXPECT_EQ(answer.written, 1U);
  EXPECT_EQ(byte(data), 0);
  EXPECT_EQ(byte(data, 1), 0x77);
}

TEST_F(BlkRequest, WriteToAFullDiskIsAnError) {
  rig.engine.fail(Kind::kWrite, ENOSPC);
  EXPECT_EQ(write(0, 512).status, kIoError);
}

// --- framing (2.7.4.2) ------------------------------------------------------------------------

TEST_F(BlkRequest, MayHaveItsHeaderCutIntoBytes) {
  const GuestAddr at = header(RequestType::kIn, 5);
  std::vector<Buffer> buffers;
  for (std::uint64_t i = 0; i < 16; ++i) {
    const GuestAddr piece = rig.ram.alloc(1, 64);
    rig.ram.put(piece, byte(at, i));
    buffers.push_back({piece, 1, false});
  }
  buffers.push_back({data, 513, true});
  chain(buffers, Layout::kIndirect);

  EXPECT_EQ(rig.serve(), WorkerExit::kStopped);
  EXPECT_EQ(rig.ring.next_used()->written, 513U);
  EXPECT_EQ(byte(data), 5);
  EXPECT_EQ(byte(data, 512), kOk);
}

TEST_F(BlkRequest, MayHaveItsHeaderAndDataInOneDescriptor) {
  const GuestAddr at = rig.ram.alloc(16 + 512);
  rig.ram.put(at, common::blk::WireRequestHeader{
                      common::Le32(static_cast<std::uint32_t>(RequestType::kOut)), common::Le32(0),
                      common::Le64(7)});
  rig.ram.fill({at.value + 16}, 512, 0xcd);
  chain({{at, 528, false}, {data, 1, true}});

  (void)rig.serve();

  EXPECT_EQ(byte(data), kOk);
  EXPECT_EQ(rig.engine.disk()[7 * 512], std::byte{0xcd});
  EXPECT_EQ(rig.engine.disk()[7 * 512 + 511], std::byte{0xcd});
}

TEST_F(BlkRequest, MayHaveItsStatusInTheLastDescriptorOfTheData) {
  chain({{header(RequestType::kIn, 9), 16, false},
         {data, 100, true},
         {{data.value + 200}, 413, true}});
  (void)rig.serve();
  EXPECT_EQ(rig.ring.next_used()->written, 513U);
  EXPECT_EQ(byte(data), 9);
  EXPECT_EQ(byte(data, 200 + 412), kOk);
}

TEST_F(BlkRequest, MayHaveBuffersOfNoBytesAroundItsStatus) {
  chain(
      {{header(RequestType::kFlush, 0), 16, false}, {data, 1, true}, {{data.value + 8}, 0, true}});
  rig.ram.put(data, std::uint8_t{0xff});
  (void)rig.serve();
  EXPECT_EQ(byte(data), kOk);
  EXPECT_EQ(rig.ring.next_used()->written, 1U);
}

// CVE-2026-86566: buffers smaller than the header, and lengths that underflow.
TEST_F(BlkRequest, ShorterThanAHeaderIsAnErrorInItsStatusByte) {
  chain({{header(RequestType::kIn, 0), 15, false}, {data, 1, true}});
  rig.ram.put(data, std::uint8_t{0xff});
  EXPECT_EQ(rig.serve(), WorkerExit::kStopped);
  EXPECT_EQ(byte(data), kIoError);
  EXPECT_EQ(rig.ring.next_used()->written, 1U);
}

TEST_F(BlkRequest, WithoutAnythingReadableIsAnErrorInItsStatusByte) {
  chain({{data, 513, true}});
  EXPECT_EQ(rig.serve(), WorkerExit::kStopped);
  EXPECT_EQ(byte(data, 512), kIoError);
}

TEST_F(BlkRequest, WithoutAStatusByteBreaksTheRing) {
  chain({{header(RequestType::kFlush, 0), 16, false}});
  EXPECT_EQ(rig.serve(), WorkerExit::kGuestFault);
  EXPECT_EQ(rig.fault(), WorkerFault::kNoStatusByte);
  EXPECT_FALSE(rig.ring.next_used());
}

TEST_F(BlkRequest, WithAStatusDescriptorOfNoBytesBreaksTheRing) {
  chain({{header(RequestType::kFlush, 0), 16, false}, {data, 0, true}});
  EXPECT_EQ(rig.serve(), WorkerExit::kGuestFault);
  EXPECT_EQ(rig.fault(), WorkerFault::kNoStatusByte);
}

TEST_F(BlkRequest, OfNoBytesAtAllBreaksTheRing) {
  chain({{data, 0, false}});
  EXPECT_EQ(rig.serve(), WorkerExit::kGuestFault);
  EXPECT_EQ(rig.fault(), WorkerFault::kNoStatusByte);
}

// The header is looked at once, even if the guest rewrites it while we do.
TEST_F(BlkRequest, FetchesItsHeaderExactlyOnce) {
  if (!fakes::WatchedMemory::kSupported) GTEST_SKIP() << "x86-64 only";
  const GuestAddr page = rig.ram.alloc(4096, 4096);
  rig.ram.put(page,
              common::blk::WireRequestHeader{common::Le32(0), common::Le32(0), common::Le64(4)});
  chain({{page, 16, false}, {data, 513, true}});
  (void)rig.ring.publish();
  const auto queue = rig.make_queue();
  const auto bytes = rig.ram.bytes(page, 4096);

  const iovec segment{bytes.data(), 16};
  const std::uint32_t one_copy = fakes::WatchedMemory::accesses_of(bytes, [&segment] {
    common::blk::WireRequestHeader copy;
    (void)common::GuestMemory::gather_one({&segment, 1}, copy);
  });
  std::uint32_t total = 0;
  {
    fakes::WatchedMemory watched(bytes);
    (void)queue->run();
    total = watched.total();
  }
  EXPECT_GE(total, 1U);
  EXPECT_LE(total, one_copy);
  EXPECT_EQ(byte(data), 4);
}

// --- the other types --------------------------------------------------------------------------

TEST_F(BlkRequest, FlushSyncsTheDisk) {
  ASSERT_TRUE(rig.blk.flush());
  EXPECT_EQ(rig.only_answer().status, kOk);
  ASSERT_EQ(rig.engine.seen.size(), 1U);
  EXPECT_EQ(rig.engine.seen[0].kind, Kind::kSync);
  EXPECT_EQ(rig.count(Counter::kFlushRequests), 1U);
}

TEST_F(BlkRequest, FlushWithDataIsAFlush) {
  EXPECT_EQ(request(RequestType::kFlush, 3, {{data, 512, false}}).status, kOk);
}

TEST_F(BlkRequest, FlushThatFailsIsAnError) {
  rig.engine.fail(Kind::kSync, EIO);
  ASSERT_TRUE(rig.blk.flush());
  EXPECT_EQ(rig.only_answer().status, kIoError);
}

TEST_F(BlkRequest, FlushThatTheDiskDoesNotKnowIsUnsupported) {
  rig.engine.fail(Kind::kSync, EOPNOTSUPP);
  ASSERT_TRUE(rig.blk.flush());
  EXPECT_EQ(rig.only_answer().status, kUnsupported);
}

TEST_F(BlkRequest, GetIdBringsTwentyBytes) {
  const BlkAnswer answer = request(RequestType::kGetId, 0, {{data, 20, true}});
  EXPECT_EQ(answer.status, kOk);
  EXPECT_EQ(answer.written, 21U);
  EXPECT_EQ(byte(data), 'A');
  EXPECT_EQ(byte(data, 19), 'T');
  EXPECT_EQ(rig.count(Counter::kGetIdRequests), 1U);
}

TEST_F(BlkRequest, GetIdIntoAShorterBufferBringsTheBeginning) {
  rig.ram.fill(data, 20, 0x77);
  const BlkAnswer answer = request(RequestType::kGetId, 0, {{data, 5, true}});
  EXPECT_EQ(answer.status, kOk);
  EXPECT_EQ(answer.written, 6U);
  EXPECT_EQ(byte(data, 4), 'E');
  EXPECT_EQ(byte(data, 5), 0x77);
}

TEST_F(BlkRequest, GetIdIntoALongerBufferSaysHowMuchItWrote) {
  const BlkAnswer answer = request(RequestType::kGetId, 0, {{data, 64, true}});
  EXPECT_EQ(answer.status, kOk);
  EXPECT_EQ(answer.written, 20U);
}

TEST_F(BlkRequest, GetIdWithoutABufferIsAnError) {
  EXPECT_EQ(request(RequestType::kGetId, 0, {}).status, kIoError);
}

class UnknownType : public BlkRequest, public testing::WithParamInterface<std::uint32_t> {};
TEST_P(UnknownType, IsUnsupported) {
  rig.ram.fill(data, 512, 0x77);
  const Buffer buffer{data, 512, true};
  ASSERT_TRUE(rig.blk.add_raw(GetParam(), 0, {&buffer, 1}));
  const BlkAnswer answer = rig.only_answer();
  EXPECT_EQ(answer.status, kUnsupported);
  EXPECT_EQ(answer.written, 1U);
  EXPECT_TRUE(rig.engine.seen.empty());
  EXPECT_EQ(rig.count(Counter::kOtherRequests), 1U);
  EXPECT_EQ(rig.count(Counter::kStatusUnsupported), 1U);
}
INSTANTIATE_TEST_SUITE_P(Blk, UnknownType,
                         testing::Values(2, 3, 5, 7, 10, 12, 14, 15, 26, 0x8000'0000, UINT32_MAX));

// --- the cache (5.2.6.2) ----------------------------------------------------------------------

TEST_F(BlkRequest, WriteIsNotDurableWithAWriteBackCache) {
  (void)write(0, 512);
  EXPECT_FALSE(rig.engine.seen.at(0).durable);
}

TEST_F(BlkRequest, WriteIsDurableOnceTheDriverSwitchesTheCacheOff) {
  rig.write_back = false;
  (void)write(0, 512);
  EXPECT_TRUE(rig.engine.seen.at(0).durable);
}

TEST_F(BlkRequest, WriteIsDurableForADriverThatCannotFlush) {
  rig.features = 0;
  (void)write(0, 512);
  EXPECT_TRUE(rig.engine.seen.at(0).durable);
}

TEST_F(BlkRequest, WriteIsNotDurableWhereTheCacheModeIsNotTheDriversToChoose) {
  rig.features = common::blk::kFeatureFlush;
  rig.write_back = false;
  (void)write(0, 512);
  EXPECT_FALSE(rig.engine.seen.at(0).durable);
}

TEST_F(BlkRequest, ReadIsNeverDurable) {
  rig.write_back = false;
  (void)read(0, 512);
  EXPECT_FALSE(rig.engine.seen.at(0).durable);
}

}  // namespace
