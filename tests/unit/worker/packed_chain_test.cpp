// Chains of a packed ring: which are read, and what of a driver is refused. What both kinds of ring
// have in common, chain_test.cpp tries.
#include "worker/packed_chain.h"

#include <gtest/gtest.h>

#include <array>
#include <cstdint>
#include <memory>
#include <vector>

#include "common/virtqueue_wire.h"
#include "tests/fakes/guest_driver.h"
#include "tests/fakes/watched_memory.h"

namespace {

using common::GuestAddr;
using common::kDescIndirect;
using common::kDescNext;
using common::kDescWrite;
using common::Le16;
using common::Le32;
using common::Le64;
using common::WirePackedDesc;
using common::ipc::WorkerFault;

constexpr std::uint16_t kAvail = common::kPackedAvail;

struct PackedChain : testing::Test {
  static constexpr std::uint16_t kSize = 8;

  // A descriptor of the ring, made available in its first round.
  void put(std::uint16_t index, std::uint64_t addr, std::uint32_t len, std::uint16_t flags) {
    driver.packed().write_desc(index, {Le64(addr), Le32(len), Le16(index),
                                       Le16(static_cast<std::uint16_t>(flags | kAvail))});
  }
  void put_table(GuestAddr table, std::uint32_t index, std::uint64_t addr, std::uint32_t len,
                 std::uint16_t flags) {
    ram.put(GuestAddr{table.value + index * sizeof(WirePackedDesc)},
            WirePackedDesc{Le64(addr), Le32(len), Le16(77), Le16(flags)});
  }
  // The fault of the first chain; kNone where it is read.
  WorkerFault read(bool indirect_allowed = true) {
    const common::GuestMemory memory = ram.memory();
    ring = std::make_unique<worker::PackedRing>(
        worker::PackedRing::create(memory, driver.ring_start(0)).value());
    (void)ring->begin();
    if (ring->peek() == worker::PackedRing::Peek::kFault) return ring->fault().code;
    worker::PackedChainReader reader(memory, *ring, indirect_allowed, *scratch);
    const auto done = reader.read(ring->head(), chain);
    fault = done ? worker::RingFault{} : done.error();
    return fault.code;
  }

  fakes::GuestRam ram;
  fakes::GuestDriver driver{ram, {.queue_size = kSize, .packed = true}};
  std::uint64_t data = ram.alloc(64 * 1024, 4096).value;
  std::unique_ptr<worker::SegmentScratch> scratch = std::make_unique<worker::SegmentScratch>();
  std::unique_ptr<worker::PackedRing> ring;
  worker::Chain chain;
  worker::RingFault fault;
};

TEST_F(PackedChain, IsReadFromTheRing) {
  put(0, data, 16, kDescNext);
  put(1, data + 4096, 512, kDescNext | kDescWrite);
  put(2, data + 8192, 1, kDescWrite);
  ASSERT_EQ(read(), WorkerFault::kNone);
  ASSERT_EQ(chain.readable.size(), 1U);
  ASSERT_EQ(chain.writable.size(), 2U);
  EXPECT_EQ(chain.readable_bytes, 16U);
  EXPECT_EQ(chain.writable_bytes, 513U);
  EXPECT_EQ(chain.head, ring->head());
}

// 2.8.7: of the flags in a table only WRITE means something, and ids mean nothing.
TEST_F(PackedChain, IsReadFromAllOfAnIndirectTable) {
  const GuestAddr table = ram.alloc(3 * 16);
  put(0, table.value, 3 * 16, kDescIndirect | kDescWrite);
  put_table(table, 0, data, 16, kDescIndirect | 8);
  put_table(table, 1, data + 4096, 32, static_cast<std::uint16_t>(~kDescWrite));
  put_table(table, 2, data + 8192, 64, kDescWrite | kDescNext);
  ASSERT_EQ(read(), WorkerFault::kNone);
  EXPECT_EQ(chain.readable.size(), 2U);
  EXPECT_EQ(chain.readable_bytes, 48U);
  EXPECT_EQ(chain.writable_bytes, 64U);
}

TEST_F(PackedChain, IsReadFromATableThatLiesInTwoRegions) {
  ram.add_region({fakes::GuestRam::kDefaultStart + (16U << 20)}, 4096);
  const GuestAddr table{fakes::GuestRam::kDefaultStart + (16U << 20) - 16};
  put(0, table.value, 32, kDescIndirect);
  ram.put(table, WirePackedDesc{Le64(data), Le32(16), Le16(0), Le16(0)});
  put_table({table.value + 16}, 0, data + 4096, 16, 0);
  ASSERT_EQ(read(), WorkerFault::kNone);
  EXPECT_EQ(chain.readable_bytes, 32U);
}

TEST_F(PackedChain, IsRefusedWhereATableWasNotNegotiated) {
  put(0, data, 16, kDescIndirect);
  EXPECT_EQ(read(false), WorkerFault::kIndirectNotNegotiated);
}

TEST_F(PackedChain, IsRefusedWithATableAndNext) {
  put(0, data, 16, kDescIndirect | kDescNext);
  put(1, data, 16, 0);
  EXPECT_EQ(read(), WorkerFault::kIndirectAndNext);
}

TEST_F(PackedChain, IsRefusedWithATableAtTheEndOfAList) {
  put(0, data, 16, kDescNext);
  put(1, data, 16, kDescIndirect);
  EXPECT_EQ(read(), WorkerFault::kIndirectAndNext);
}

class PackedTableSize : public PackedChain, public testing::WithParamInterface<std::uint32_t> {};
TEST_P(PackedTableSize, IsRefusedWhereItIsNoNumberOfDescriptors) {
  put(0, data, GetParam(), kDescIndirect);
  EXPECT_EQ(read(), WorkerFault::kIndirectTableSize);
}
INSTANTIATE_TEST_SUITE_P(PackedChain, PackedTableSize, testing::Values(0, 1, 15, 17, 0xffff'ffff));

TEST_F(PackedChain, IsRefusedWithATableOfMoreThanOurLimit) {
  put(0, data, (worker::kIndirectChainMax + 1) * 16, kDescIndirect);
  EXPECT_EQ(read(), WorkerFault::kChainTooLong);
  EXPECT_EQ(fault.second, worker::kIndirectChainMax);
  put(0, data, worker::kIndirectChainMax * 16, kDescIndirect);
  EXPECT_EQ(read(), WorkerFault::kNone);
}

TEST_F(PackedChain, IsRefusedWithATableThatIsNotMapped) {
  put(0, 0x1000, 16, kDescIndirect);
  EXPECT_EQ(read(), WorkerFault::kUnmappedBuffer);
  put(0, UINT64_MAX - 15, 32, kDescIndirect);
  EXPECT_EQ(read(), WorkerFault::kUnmappedBuffer);
}

TEST_F(PackedChain, IsRefusedWithFlagsThatMeanNothing) {
  put(0, data, 16, 8);
  EXPECT_EQ(read(), WorkerFault::kUnknownDescFlags);
  put(0, data, 16, kDescIndirect | 0x4000);
  EXPECT_EQ(read(), WorkerFault::kUnknownDescFlags);
}

TEST_F(PackedChain, IsRefusedWithWhatIsReadableBehindWhatIsWritable) {
  put(0, data, 16, kDescNext | kDescWrite);
  put(1, data, 16, 0);
  EXPECT_EQ(read(), WorkerFault::kReadableAfterWritable);
}

TEST_F(PackedChain, IsRefusedWithABufferThatIsNotMapped) {
  put(0, 0x1000, 16, 0);
  EXPECT_EQ(read(), WorkerFault::kUnmappedBuffer);
}

// Faults name the place of the chain's first descriptor: what we call it ourselves says nothing.
TEST_F(PackedChain, IsNamedByItsPlaceInTheRing) {
  driver.packed().start_at({5, true});
  put(5, data, 16, kDescIndirect | kDescNext);
  put(6, data, 16, 0);
  EXPECT_EQ(read(), WorkerFault::kIndirectAndNext);
  EXPECT_EQ(fault.first, 5U);
}

// The guest's other CPU changes a descriptor as soon as any of it was looked at.
TEST_F(PackedChain, FetchesEachFieldOfADescriptorOnce) {
  if constexpr (!fakes::WatchedMemory::kSupported) return;
  const GuestAddr table = ram.alloc(4096, 4096);
  put(0, table.value, 2 * 16, kDescIndirect);
  put_table(table, 0, data, 16, 0);
  put_table(table, 1, data + 4096, 16, kDescWrite);
  const common::GuestMemory memory = ram.memory();
  auto served = worker::PackedRing::create(memory, driver.ring_start(0)).value();
  (void)served.begin();
  worker::PackedChainReader reader(memory, served, true, *scratch);
  fakes::WatchedMemory of_ring(ram.bytes(driver.desc_addr(), 4096));
  ASSERT_EQ(served.peek(), worker::PackedRing::Peek::kHead);
  EXPECT_EQ(of_ring.accesses(0), 1U);
  EXPECT_EQ(of_ring.accesses(8), 1U);
  EXPECT_EQ(of_ring.accesses(common::kPackedDescIdOffset), 1U);
#ifndef __SANITIZE_THREAD__  // Whose run-time loads twice to acquire once.
  EXPECT_EQ(of_ring.accesses(common::kPackedDescFlagsOffset), 1U);
#endif
  const std::uint32_t after_peek = of_ring.total();
  ASSERT_TRUE(reader.read(served.head(), chain));
  EXPECT_EQ(of_ring.total(), after_peek);
}

}  // namespace
