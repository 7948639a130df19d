#include "worker/chain.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <memory>
#include <numeric>
#include <vector>

#include "tests/fakes/guest_driver.h"
#include "tests/fakes/watched_memory.h"
#include "worker/ring.h"

namespace {

using common::GuestAddr;
using common::kDescIndirect;
using common::kDescNext;
using common::kDescWrite;
using common::ipc::WorkerFault;
using fakes::Buffer;
using fakes::GuestDriver;
using fakes::GuestRam;
using fakes::make_desc;
using Layout = GuestDriver::Layout;

constexpr std::uint16_t kSize = 8;

struct Chains : testing::Test {
  explicit Chains(bool indirect_allowed = true)
      : driver(ram, {.queue_size = kSize}), indirect_allowed_(indirect_allowed) {}

  worker::ChainReader::Done read(std::uint16_t head) {
    memory = ram.memory();
    table = memory.window(driver.desc_addr(), kSize * 16, 16).value();
    worker::ChainReader reader(memory, table, kSize, indirect_allowed_, *scratch);
    return reader.read(head, chain);
  }
  WorkerFault fault(std::uint16_t head) {
    const auto done = read(head);
    return done ? WorkerFault::kNone : done.error().code;
  }
  WorkerFault fault_of(std::span<const Buffer> buffers, Layout layout = Layout::kDirect) {
    return fault(driver.add(buffers, layout).value());
  }
  // An indirect table in guest memory, and descriptor 0 that refers to it.
  GuestAddr table_of(std::uint32_t entries, std::uint16_t more_flags = 0) {
    const GuestAddr at = ram.alloc(std::uint64_t{entries} * 16);
    driver.write_desc(
        0, make_desc(at, entries * 16, static_cast<std::uint16_t>(kDescIndirect | more_flags), 1));
    return at;
  }
  // `count` writable buffers, each far from the one before.
  std::vector<Buffer> scattered(std::uint32_t count) {
    std::vector<Buffer> buffers(count);
    for (Buffer& buffer : buffers) buffer = {ram.alloc(512, 1024), 512, true};
    return buffers;
  }

  GuestRam ram;
  GuestDriver driver;
  GuestAddr page = ram.alloc(8192, 4096);
  common::GuestMemory memory;
  common::GuestWindow table;
  worker::Chain chain;
  std::unique_ptr<worker::SegmentScratch> scratch = std::make_unique<worker::SegmentScratch>();
  bool indirect_allowed_;
};

struct ChainsWithoutIndirect : Chains {
  ChainsWithoutIndirect() : Chains(false) {}
};

// --- honest chains ----------------------------------------------------------------------------

class ChainLayout : public Chains, public testing::WithParamInterface<Layout> {};

TEST_P(ChainLayout, KeepsReadableAndWritableInOrder) {
  const Buffer buffers[] = {
      {page, 16, false}, {{page.value + 1024}, 512, true}, {{page.value + 2048}, 1, true}};
  ASSERT_TRUE(read(driver.add(buffers, GetParam()).value()));

  ASSERT_EQ(chain.readable.size(), 1U);
  ASSERT_EQ(chain.writable.size(), 2U);
  EXPECT_EQ(chain.readable[0].iov_base, ram.bytes(page, 1).data());
  EXPECT_EQ(chain.readable[0].iov_len, 16U);
  EXPECT_EQ(chain.writable[1].iov_base, ram.bytes({page.value + 2048}, 1).data());
  EXPECT_EQ(chain.readable_bytes, 16U);
  EXPECT_EQ(chain.writable_bytes, 513U);
}
INSTANTIATE_TEST_SUITE_P(Chain, ChainLayout,
                         testing::Values(Layout::kDirect, Layout::kIndirect, Layout::kMixed));

TEST_F(Chains, MergeNeighboursOfOneDirection) {
  const Buffer buffers[] = {{page, 16, false},
                            {{page.value + 16}, 16, false},
                            {{page.value + 32}, 512, true},
                            {{page.value + 544}, 512, true}};
  ASSERT_TRUE(read(driver.add(buffers).value()));
  EXPECT_EQ(chain.readable.size(), 1U);
  EXPECT_EQ(chain.readable[0].iov_len, 32U);
  EXPECT_EQ(chain.writable.size(), 1U);
  EXPECT_EQ(chain.writable[0].iov_len, 1024U);
}

TEST_F(Chains, MayBeAsLongAsTheQueue) {
  const auto buffers = scattered(kSize);
  ASSERT_TRUE(read(driver.add(buffers).value()));
  EXPECT_EQ(chain.writable.size(), kSize);
}

// Windows and Linux put more into an indirect table than the queue has entries.
TEST_F(Chains, InAnIndirectTableMayBeMuchLongerThanTheQueue) {
  const auto buffers = scattered(worker::kIndirectChainMax);
  ASSERT_TRUE(read(driver.add(buffers, Layout::kIndirect).value()));
  EXPECT_EQ(chain.writable.size(), worker::kIndirectChainMax);
}

// 2.7.5.3.2: the device must ignore WRITE in the descriptor that refers to a table.
TEST_F(Chains, IgnoreTheWriteFlagOfAnIndirectDescriptor) {
  driver.write_desc_at(table_of(1, kDescWrite), 0, make_desc(page, 16));
  ASSERT_TRUE(read(0));
  EXPECT_EQ(chain.readable_bytes, 16U);
  EXPECT_EQ(chain.writable_bytes, 0U);
}

TEST_F(Chains, MayUseAnIndirectTableInAnyOrder) {
  const GuestAddr at = table_of(3);
  driver.write_desc_at(at, 0, make_desc(page, 16, kDescNext, 2));
  driver.write_desc_at(at, 2, make_desc({page.value + 100}, 10, kDescNext | kDescWrite, 1));
  driver.write_desc_at(at, 1, make_desc({page.value + 200}, 1, kDescWrite));
  ASSERT_TRUE(read(0));
  EXPECT_EQ(chain.writable_bytes, 11U);
}

TEST_F(Chains, MayHaveAnIndirectTableThatCrossesFromOneRegionIntoTheNext) {
  const std::uint64_t border = GuestRam::kDefaultStart + (16U << 20);
  ram.add_region({border}, 1U << 20);
  // Entry 0 ends in the middle of the border: its bytes come from both regions.
  const GuestAddr at{border - 24};
  const auto first = make_desc(page, 16, kDescNext, 1);
  const auto second = make_desc({page.value + 100}, 1, kDescWrite);
  driver.write_desc_at(at, 0, first);
  std::array<std::byte, 16> wire;
  std::memcpy(wire.data(), &second, 16);
  std::memcpy(ram.bytes({border - 8}, 8).data(), wire.data(), 8);
  std::memcpy(ram.bytes({border}, 8).data(), wire.data() + 8, 8);
  driver.write_desc(0, make_desc(at, 32, kDescIndirect));

  ASSERT_TRUE(read(0));
  EXPECT_EQ(chain.writable_bytes, 1U);
}

// CVE-2018-1059: a range of guest addresses is not a range of ours.
TEST_F(Chains, SplitABufferThatCrossesFromOneRegionIntoTheNext) {
  const std::uint64_t border = GuestRam::kDefaultStart + (16U << 20);
  ram.add_region({border}, 1U << 20);
  driver.write_desc(0, make_desc({border - 100}, 300, kDescWrite));
  ASSERT_TRUE(read(0));
  ASSERT_EQ(chain.writable.size(), 2U);
  EXPECT_EQ(chain.writable[0].iov_len, 100U);
  EXPECT_EQ(chain.writable[1].iov_len, 200U);
  EXPECT_EQ(chain.writable[1].iov_base, ram.bytes({border}, 1).data());
}

TEST_F(Chains, SkipBuffersOfNoBytesWhereverTheyPoint) {
  driver.write_desc(0, make_desc(page, 16, kDescNext, 1));
  driver.write_desc(1, make_desc({0xdead'0000'0000}, 0, kDescNext | kDescWrite, 2));
  driver.write_desc(2, make_desc({page.value + 64}, 1, kDescWrite));
  ASSERT_TRUE(read(0));
  EXPECT_EQ(chain.writable.size(), 1U);
  EXPECT_EQ(chain.writable_bytes, 1U);
}

TEST_F(Chains, OfNoBytesAtAllHaveNoSegments) {
  driver.write_desc(0, make_desc(page, 0));
  ASSERT_TRUE(read(0));
  EXPECT_TRUE(chain.readable.empty());
  EXPECT_TRUE(chain.writable.empty());
}

TEST_F(Chains, ForgetThePreviousOne) {
  driver.write_desc(0, make_desc(page, 100, kDescWrite));
  driver.write_desc(1, make_desc(page, 7));
  ASSERT_TRUE(read(0));
  ASSERT_TRUE(read(1));
  EXPECT_EQ(chain.readable_bytes, 7U);
  EXPECT_TRUE(chain.writable.empty());
}

// --- broken ones ------------------------------------------------------------------------------

TEST_F(Chains, RefuseAnIndexOutsideTheTable) {
  driver.write_desc(0, make_desc(page, 16, kDescNext, kSize));
  EXPECT_EQ(fault(0), WorkerFault::kIndexOutsideTable);
}

TEST_F(Chains, RefuseAnIndexOutsideTheIndirectTable) {
  driver.write_desc_at(table_of(2), 0, make_desc(page, 16, kDescNext, 2));
  EXPECT_EQ(fault(0), WorkerFault::kIndexOutsideTable);
}

// CVE-2026-86847: a chain that is a circle.
TEST_F(Chains, EndALoopInTheRingsTable) {
  driver.write_desc(0, make_desc(page, 16, kDescNext, 1));
  driver.write_desc(1, make_desc(page, 16, kDescNext, 0));
  EXPECT_EQ(fault(0), WorkerFault::kChainTooLong);
}

TEST_F(Chains, EndALoopOfOneDescriptorWithoutBytes) {
  driver.write_desc(3, make_desc(page, 0, kDescNext, 3));
  EXPECT_EQ(fault(3), WorkerFault::kChainTooLong);
}

TEST_F(Chains, EndALoopInAnIndirectTable) {
  const GuestAddr at = table_of(2);
  driver.write_desc_at(at, 0, make_desc(page, 16, kDescNext, 1));
  driver.write_desc_at(at, 1, make_desc(page, 16, kDescNext, 0));
  EXPECT_EQ(fault(0), WorkerFault::kChainTooLong);
}

TEST_F(Chains, RefuseOneMoreInAnIndirectTableThanAllowed) {
  const auto buffers = scattered(worker::kIndirectChainMax + 1);
  EXPECT_EQ(fault_of(buffers, Layout::kIndirect), WorkerFault::kChainTooLong);
}

TEST_F(Chains, RefuseMoreSegmentsThanThereIsRoomForAfterSplittingAtRegions) {
  // 1026 buffers, 64 of which lie across a border and become two segments.
  const auto buffers = [this] {
    std::vector<Buffer> made = scattered(worker::kIndirectChainMax);
    std::uint64_t border = 0x8000'0000;
    ram.add_region({border}, 4096);
    for (std::uint32_t i = 0; i < 63; ++i) {
      border += 4096;
      ram.add_region({border}, 4096);
      made[i] = {{border - 10}, 20, true};
    }
    return made;
  }();
  EXPECT_EQ(fault_of(buffers, Layout::kIndirect), WorkerFault::kChainTooLong);
}

TEST_F(Chains, RefuseUnknownFlags) {
  driver.write_desc(0, make_desc(page, 16, 8));
  EXPECT_EQ(fault(0), WorkerFault::kUnknownDescFlags);
}

TEST_F(Chains, RefuseUnknownFlagsInAnIndirectTable) {
  driver.write_desc_at(table_of(1), 0, make_desc(page, 16, 0x8000));
  EXPECT_EQ(fault(0), WorkerFault::kUnknownDescFlags);
}

TEST_F(ChainsWithoutIndirect, RefuseAnIndirectTableThatWasNotNegotiated) {
  driver.write_desc_at(table_of(1), 0, make_desc(page, 16));
  EXPECT_EQ(fault(0), WorkerFault::kIndirectNotNegotiated);
}

TEST_F(Chains, RefuseAnIndirectTableInAnIndirectTable) {
  driver.write_desc_at(table_of(1), 0, make_desc(page, 16, kDescIndirect));
  EXPECT_EQ(fault(0), WorkerFault::kNestedIndirect);
}

TEST_F(Chains, RefuseAnIndirectTableThatIsNotTheLast) {
  driver.write_desc_at(table_of(1, kDescNext), 0, make_desc(page, 16));
  EXPECT_EQ(fault(0), WorkerFault::kIndirectAndNext);
}

TEST_F(Chains, RefuseAnIndirectTableOfNoBytes) {
  driver.write_desc(0, make_desc(page, 0, kDescIndirect));
  EXPECT_EQ(fault(0), WorkerFault::kIndirectTableSize);
}

TEST_F(Chains, RefuseAnIndirectTableThatIsNoMultipleOfADescriptor) {
  driver.write_desc(0, make_desc(page, 24, kDescIndirect));
  EXPECT_EQ(fault(0), WorkerFault::kIndirectTableSize);
}

TEST_F(Chains, RefuseAnIndirectTableThatIsNotMapped) {
  driver.write_desc(0, make_desc({0x1000}, 16, kDescIndirect));
  EXPECT_EQ(fault(0), WorkerFault::kUnmappedBuffer);
}

TEST_F(Chains, RefuseAnIndirectTableWhoseAddressWraps) {
  driver.write_desc(0, make_desc({0xffff'ffff'ffff'fff8}, 16, kDescIndirect));
  EXPECT_EQ(fault(0), WorkerFault::kUnmappedBuffer);
}

TEST_F(Chains, RefuseReadableAfterWritable) {
  const Buffer buffers[] = {{page, 1, true}, {page, 16, false}};
  EXPECT_EQ(fault_of(buffers), WorkerFault::kReadableAfterWritable);
}

TEST_F(Chains, RefuseReadableAfterWritableAcrossIntoAnIndirectTable) {
  const Buffer buffers[] = {{page, 1, true}, {page, 16, false}};
  EXPECT_EQ(fault_of(buffers, Layout::kMixed), WorkerFault::kReadableAfterWritable);
}

TEST_F(Chains, RefuseReadableAfterAWritableBufferOfNoBytes) {
  const Buffer buffers[] = {{page, 0, true}, {page, 16, false}};
  EXPECT_EQ(fault_of(buffers), WorkerFault::kReadableAfterWritable);
}

TEST_F(Chains, RefuseABufferThatIsNotMapped) {
  driver.write_desc(0, make_desc({0x1000}, 16));
  EXPECT_EQ(fault(0), WorkerFault::kUnmappedBuffer);
}

TEST_F(Chains, RefuseABufferThatEndsBeyondMemory) {
  driver.write_desc(0, make_desc({GuestRam::kDefaultStart + (16U << 20) - 8}, 16));
  const auto done = read(0);
  ASSERT_FALSE(done);
  EXPECT_EQ(done.error().code, WorkerFault::kUnmappedBuffer);
  EXPECT_EQ(done.error().first, GuestRam::kDefaultStart + (16U << 20));
}

TEST_F(Chains, RefuseABufferWhoseAddressWraps) {
  driver.write_desc(0, make_desc({0xffff'ffff'ffff'f000}, 0x2000));
  EXPECT_EQ(fault(0), WorkerFault::kUnmappedBuffer);
}

TEST_F(Chains, RefuseATotalThatDoesNotFitInto32Bits) {
  GuestAddr start{0x1'0000'0000};
  ram.add_region(start, 0x8000'0000);
  const Buffer buffers[] = {{start, 0x8000'0000, true}, {start, 0x8000'0000, true}};
  EXPECT_EQ(fault_of(buffers), WorkerFault::kTotalOverflow);
}

// CVE-2026-93683, CVE-2026-86848: a descriptor that changes between two looks at it. The memory
// under this chain turns into nonsense right after each first access to a descriptor.
TEST_F(Chains, FetchEachDescriptorExactlyOnce) {
  if (!fakes::WatchedMemory::kSupported) GTEST_SKIP() << "x86-64 only";
  const Buffer buffers[] = {
      {page, 16, false}, {{page.value + 1024}, 512, true}, {{page.value + 2048}, 1, true}};
  const std::uint16_t head = driver.add(buffers).value();
  const auto bytes = ram.bytes(driver.desc_addr(), 4096);

  fakes::WatchedMemory watched(bytes);
  const bool read_well = read(head).has_value();

  EXPECT_TRUE(read_well);
  EXPECT_EQ(watched.most(), 1U);
  EXPECT_GE(watched.total(), 3U);
}

TEST_F(Chains, FetchEachDescriptorOfAnIndirectTableExactlyOnce) {
  if (!fakes::WatchedMemory::kSupported) GTEST_SKIP() << "x86-64 only";
  const GuestAddr at = ram.alloc(4096, 4096);
  driver.write_desc_at(at, 0, make_desc(page, 16, kDescNext, 1));
  driver.write_desc_at(at, 1, make_desc({page.value + 1024}, 512, kDescNext | kDescWrite, 2));
  driver.write_desc_at(at, 2, make_desc({page.value + 2048}, 1, kDescWrite));
  driver.write_desc(0, make_desc(at, 4096, kDescIndirect));

  fakes::WatchedMemory watched(ram.bytes(at, 4096));
  const bool read_well = read(0).has_value();

  EXPECT_TRUE(read_well);
  EXPECT_EQ(chain.writable_bytes, 513U);
  EXPECT_EQ(watched.most(), 1U);
  EXPECT_GE(watched.total(), 3U);
}

TEST_F(Chains, DecideOnTheirCopyWhenTheGuestRewritesADescriptorAfterTheFirstLook) {
  if (!fakes::WatchedMemory::kSupported) GTEST_SKIP() << "x86-64 only";
  const Buffer buffers[] = {{page, 16, false}, {{page.value + 1024}, 513, true}};
  const std::uint16_t head = driver.add(buffers).value();
  const auto bytes = ram.bytes(driver.desc_addr(), 4096);
  // Only once the whole descriptor has been copied: a copy may take two instructions.
  fakes::WatchedMemory watched(bytes, [&bytes](std::size_t offset) {
    const std::size_t before = offset / 16 * 16;
    std::memset(bytes.data(), 0xff, before);
  });

  const bool read_well = read(head).has_value();

  EXPECT_TRUE(read_well);
  EXPECT_EQ(chain.readable_bytes, 16U);
  EXPECT_EQ(chain.writable_bytes, 513U);
}

}  // namespace
