// What a worker is told before it is sealed, and what of that it refuses.
// Long because each message and each of its fields is tried here.
#include "worker/blk_start.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <span>
#include <thread>
#include <utility>
#include <vector>

#include "common/ipc/channel.h"
#include "common/sys.h"
#include "common/virtqueue_wire.h"
#include "policy/worker_blk.h"

namespace worker_test {
namespace {

using common::Fd;
using common::FdRef;
using common::ipc::MemoryRegions;
using common::ipc::RingStart;
using common::ipc::WorkerExit;
using common::ipc::WorkerFault;

constexpr std::uint64_t kRegionBytes = 1 << 20;

// A session that says whatever the test wants, to a worker that is about to start.
class StartTest : public testing::Test {
 protected:
  StartTest() {
    auto pair = *common::make_packet_pair();
    session_ = std::move(pair.first);
    control_ = std::move(pair.second);
    memory_ = *common::make_sealed_memfd("guest", 8 * kRegionBytes);
    kick_ = *common::make_eventfd();
    call_ = *common::make_eventfd();
  }

  template <typename T>
  void send(const T& message, std::vector<FdRef> fds = {}) {
    ASSERT_TRUE(common::ipc::send(session_.ref(), message, fds));
  }
  // `count` regions of a megabyte each, one after the other in guest and file.
  static MemoryRegions table(std::uint32_t total, std::uint32_t first, std::uint32_t count) {
    MemoryRegions table{};
    table.kind = MemoryRegions::kKind;
    table.total = total;
    table.first = first;
    table.count = count;
    for (std::uint32_t i = 0; i < std::min<std::uint32_t>(count, 8); ++i) {
      const std::uint64_t at = (first + i) * kRegionBytes;
      table.regions[i] = {at, kRegionBytes, at % (8 * kRegionBytes)};
    }
    return table;
  }
  void send_table(const MemoryRegions& message) {
    send(message, std::vector<FdRef>(message.count, memory_.ref()));
  }
  static RingStart ring() {
    RingStart ring{};
    ring.kind = RingStart::kKind;
    ring.queue_size = 256;
    ring.has_kick = ring.has_call = 1;
    return ring;
  }
  void send_ring(const RingStart& message) { send(message, {kick_.ref(), call_.ref()}); }

  worker::Started<void> receive() { return worker::receive_guest(control_.ref(), guest_); }
  void expect_refused(WorkerFault fault) {
    const auto received = receive();
    ASSERT_FALSE(received);
    EXPECT_EQ(received.error().fault, fault);
    EXPECT_EQ(received.error().exit, WorkerExit::kStartRefused);
  }

  Fd session_;
  Fd control_;
  Fd memory_;
  Fd kick_;
  Fd call_;
  worker::Guest guest_;
};

TEST_F(StartTest, TakesMemoryInPiecesAndThenTheRing) {
  send_table(table(3, 0, 2));
  send_table(table(3, 2, 1));
  RingStart ring = StartTest::ring();
  ring.next_avail = 0xffff;
  send_ring(ring);
  ASSERT_TRUE(receive());
  EXPECT_EQ(guest_.ring.next_avail, 0xffffU);
  EXPECT_TRUE(guest_.kick.valid());
  EXPECT_TRUE(guest_.call.valid());
  EXPECT_EQ(guest_.mapped.size(), 3U);
  const common::GuestMemory memory = guest_.map.memory();
  EXPECT_EQ(memory.translate(common::GuestAddr{2 * kRegionBytes}, 16).iov_len, 16U);
  EXPECT_EQ(memory.translate(common::GuestAddr{3 * kRegionBytes}, 16).iov_len, 0U);
}

TEST_F(StartTest, TakesAllTheRegionsThereMayBe) {
  constexpr auto kTotal = static_cast<std::uint32_t>(common::kMemoryRegionsMax);
  std::thread sender([&] {
    for (std::uint32_t first = 0; first < kTotal; first += 8) {
      send_table(table(kTotal, first, std::min<std::uint32_t>(8, kTotal - first)));
    }
    send_ring(ring());
  });
  const auto received = receive();
  sender.join();
  EXPECT_TRUE(received);
  EXPECT_EQ(guest_.mapped.size(), common::kMemoryRegionsMax);
}

TEST_F(StartTest, RefusesMoreRegionsThanThereMayBe) {
  send_table(table(static_cast<std::uint32_t>(common::kMemoryRegionsMax) + 1, 0, 1));
  expect_refused(WorkerFault::kBadMessage);
}

TEST_F(StartTest, RefusesARingWithoutMemory) {
  send_ring(ring());
  expect_refused(WorkerFault::kBadMessage);
}

TEST_F(StartTest, RefusesARingBeforeAllMemoryHasCome) {
  send_table(table(2, 0, 1));
  send_ring(ring());
  expect_refused(WorkerFault::kBadMessage);
}

TEST_F(StartTest, RefusesMemoryBeyondTheTotal) {
  send_table(table(1, 0, 2));
  expect_refused(WorkerFault::kBadMessage);
}

TEST_F(StartTest, RefusesMemoryAfterTheLastRegion) {
  send_table(table(1, 0, 1));
  send_table(table(1, 0, 1));
  expect_refused(WorkerFault::kBadMessage);
}

TEST_F(StartTest, RefusesATotalThatChanges) {
  send_table(table(3, 0, 1));
  send_table(table(2, 1, 1));
  expect_refused(WorkerFault::kBadMessage);
}

TEST_F(StartTest, RefusesRegionsOutOfOrder) {
  send_table(table(3, 1, 1));
  expect_refused(WorkerFault::kBadMessage);
}

TEST_F(StartTest, RefusesACountThatIsNotThatOfTheDescriptors) {
  send(table(3, 0, 3), {memory_.ref()});
  expect_refused(WorkerFault::kBadMessage);
}

TEST_F(StartTest, RefusesACountBeyondTheArray) {
  send(table(300, 0, 200), {memory_.ref()});
  expect_refused(WorkerFault::kBadMessage);
}

TEST_F(StartTest, RefusesACountThatWraps) {
  send(table(3, 0, 0xffff'ffff), {memory_.ref()});
  expect_refused(WorkerFault::kBadMessage);
}

TEST_F(StartTest, RefusesRegionsThatOverlap) {
  MemoryRegions message = table(2, 0, 2);
  message.regions[1].guest_addr = kRegionBytes / 2;
  send_table(message);
  expect_refused(WorkerFault::kMapFailed);
}

TEST_F(StartTest, RefusesARegionThatWraps) {
  MemoryRegions message = table(1, 0, 1);
  message.regions[0].guest_addr = ~std::uint64_t{0} - 4095;
  send_table(message);
  expect_refused(WorkerFault::kMapFailed);
}

TEST_F(StartTest, RefusesAnEmptyRegion) {
  MemoryRegions message = table(1, 0, 1);
  message.regions[0].bytes = 0;
  send_table(message);
  expect_refused(WorkerFault::kMapFailed);
}

TEST_F(StartTest, RefusesARegionBeyondItsFile) {
  MemoryRegions message = table(1, 0, 1);
  message.regions[0].file_offset = 7 * kRegionBytes + 4096;
  send_table(message);
  expect_refused(WorkerFault::kMapFailed);
}

TEST_F(StartTest, RefusesAnOffsetThatWraps) {
  MemoryRegions message = table(1, 0, 1);
  message.regions[0].file_offset = ~std::uint64_t{0} - 4095;
  send_table(message);
  expect_refused(WorkerFault::kMapFailed);
}

TEST_F(StartTest, RefusesMemoryThatCannotBeMapped) {
  send(table(1, 0, 1), {kick_.ref()});
  expect_refused(WorkerFault::kMapFailed);
}

TEST_F(StartTest, RefusesMemoryThatCannotBeWritten) {
  const Fd read_only(::open("/proc/self/exe", O_RDONLY | O_CLOEXEC));
  MemoryRegions message = table(1, 0, 1);
  message.regions[0].bytes = 4096;
  send(message, {read_only.ref()});
  expect_refused(WorkerFault::kMapFailed);
}

class BadRingTest : public StartTest {
 protected:
  void expect_ring_refused(const RingStart& message, const std::vector<FdRef>& fds,
                           WorkerFault fault = WorkerFault::kBadMessage) {
    send_table(table(1, 0, 1));
    send(message, fds);
    expect_refused(fault);
  }
  RingStart ring_ = ring();
};

// virtio 1.2, 2.8.10.1, and vhost-user's 32 bits of where it stands.
TEST_F(StartTest, TakesAPackedRingOfAnySizeWhereverItStands) {
  send_table(table(1, 0, 1));
  RingStart ring = StartTest::ring();
  ring.features |= common::kFeatureRingPacked;
  ring.queue_size = 192;
  ring.next_avail = common::pack_vring_base({{190, false}, {191, true}});
  send_ring(ring);
  ASSERT_TRUE(receive());
  EXPECT_EQ(guest_.ring.queue_size, 192U);
}

TEST_F(BadRingTest, PackedRingIsTooLarge) {
  ring_.features |= common::kFeatureRingPacked;
  ring_.next_avail = common::kPackedBaseFresh;
  ring_.queue_size = 1025;
  expect_ring_refused(ring_, {kick_.ref(), call_.ref()});
}

TEST_F(BadRingTest, PackedRingStandsOutsideItself) {
  ring_.features |= common::kFeatureRingPacked;
  ring_.next_avail = common::pack_vring_base({{256, true}, {0, true}});
  expect_ring_refused(ring_, {kick_.ref(), call_.ref()});
}

TEST_F(BadRingTest, SizeIsNoPowerOfTwo) {
  ring_.queue_size = 192;
  expect_ring_refused(ring_, {kick_.ref(), call_.ref()});
}

TEST_F(BadRingTest, SizeIsZero) {
  ring_.queue_size = 0;
  expect_ring_refused(ring_, {kick_.ref(), call_.ref()});
}

TEST_F(BadRingTest, SizeIsTooLarge) {
  ring_.queue_size = 2048;
  expect_ring_refused(ring_, {kick_.ref(), call_.ref()});
}

TEST_F(BadRingTest, NextAvailIsNoIndex) {
  ring_.next_avail = 0x10000;
  expect_ring_refused(ring_, {kick_.ref(), call_.ref()});
}

TEST_F(BadRingTest, SaysItHasAKickAndHasNone) { expect_ring_refused(ring_, {call_.ref()}); }

TEST_F(BadRingTest, SaysItHasNoKickAndHasOne) {
  ring_.has_kick = 0;
  expect_ring_refused(ring_, {kick_.ref(), call_.ref()});
}

TEST_F(BadRingTest, HasIsNeitherYesNorNo) {
  ring_.has_kick = 2;
  ring_.has_call = 0;
  expect_ring_refused(ring_, {kick_.ref(), call_.ref()});
}

TEST_F(BadRingTest, KickIsAPipe) {
  int ends[2] = {-1, -1};
  ASSERT_EQ(::pipe2(ends, O_CLOEXEC), 0);
  const Fd reader(ends[0]);
  const Fd writer(ends[1]);
  expect_ring_refused(ring_, {reader.ref(), call_.ref()}, WorkerFault::kKickUnreadable);
}

TEST_F(BadRingTest, KickIsMemory) {
  expect_ring_refused(ring_, {memory_.ref(), call_.ref()}, WorkerFault::kKickUnreadable);
}

TEST_F(BadRingTest, KickIsASocket) {
  expect_ring_refused(ring_, {session_.ref(), call_.ref()}, WorkerFault::kKickUnreadable);
}

TEST_F(BadRingTest, KickIsADirectory) {
  const Fd directory(::open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  expect_ring_refused(ring_, {directory.ref(), call_.ref()}, WorkerFault::kKickUnreadable);
}

TEST_F(BadRingTest, CallIsAPipe) {
  int ends[2] = {-1, -1};
  ASSERT_EQ(::pipe2(ends, O_CLOEXEC), 0);
  const Fd reader(ends[0]);
  const Fd writer(ends[1]);
  expect_ring_refused(ring_, {kick_.ref(), writer.ref()}, WorkerFault::kCallUnwritable);
}

TEST_F(BadRingTest, CallIsMemory) {
  expect_ring_refused(ring_, {kick_.ref(), memory_.ref()}, WorkerFault::kCallUnwritable);
}

TEST_F(StartTest, ABlockingKickDoesNotHoldUpTheStart) {
  const Fd kick(::eventfd(0, EFD_CLOEXEC));
  send_table(table(1, 0, 1));
  send(ring(), {kick.ref(), call_.ref()});
  EXPECT_TRUE(receive());
}

TEST_F(StartTest, CheckingTheCallDoesNotRingOrConsumeIt) {
  const std::uint64_t three = 3;
  ASSERT_EQ(::write(call_.ref().number, &three, sizeof(three)), 8);
  send_table(table(1, 0, 1));
  send_ring(ring());
  ASSERT_TRUE(receive());
  std::uint64_t value = 0;
  ASSERT_EQ(::read(call_.ref().number, &value, sizeof(value)), 8);
  EXPECT_EQ(value, three);
}

TEST_F(StartTest, NeitherKickNorCallIsFine) {
  RingStart message = ring();
  message.has_kick = message.has_call = 0;
  send_table(table(1, 0, 1));
  send(message);
  ASSERT_TRUE(receive());
  EXPECT_FALSE(guest_.kick.valid());
  EXPECT_FALSE(guest_.call.valid());
}

// --- the in-flight region -----------------------------------------------------------------------

TEST_F(StartTest, MapsItsOwnPartOfTheInflightFileAndSealsWholePages) {
  RingStart message = ring();
  message.has_inflight = 1;
  message.inflight_offset = 4096 + 64;
  message.inflight_entries = 512;
  send_table(table(1, 0, 1));
  send(message, {kick_.ref(), call_.ref(), memory_.ref()});
  ASSERT_TRUE(receive());
  EXPECT_EQ(guest_.inflight.bytes().size(), 16U + 512 * 16);
  EXPECT_EQ(guest_.mapped.size(), 2U);
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(guest_.mapped[1].data()) % 4096, 0U);
  EXPECT_EQ(guest_.mapped[1].data() + 64, guest_.inflight.bytes().data());
}

TEST_F(StartTest, MapsAsMuchOfTheInflightFileAsAPackedRingHas) {
  RingStart message = ring();
  message.features |= common::kFeatureRingPacked;
  message.next_avail = common::kPackedBaseFresh;
  message.has_inflight = 1;
  message.inflight_entries = 512;
  send_table(table(1, 0, 1));
  send(message, {kick_.ref(), call_.ref(), memory_.ref()});
  ASSERT_TRUE(receive());
  EXPECT_EQ(guest_.inflight.bytes().size(), 32U + 512 * 32);
}

class BadInflight : public StartTest {
 protected:
  void send_with(FdRef file) {
    send_table(table(1, 0, 1));
    send(message_, {kick_.ref(), call_.ref(), file});
  }
  BadInflight() {
    message_.has_inflight = 1;
    message_.inflight_entries = 256;
  }
  RingStart message_ = ring();
};

TEST_F(BadInflight, FileThatEndsBeforeIsRefused) {
  message_.inflight_offset = 8 * kRegionBytes - 4096;
  send_with(memory_.ref());
  expect_refused(WorkerFault::kInflightUnmapped);
}
TEST_F(BadInflight, OffsetThatWrapsIsRefused) {
  message_.inflight_offset = UINT64_MAX - 7;
  send_with(memory_.ref());
  expect_refused(WorkerFault::kInflightUnmapped);
}
TEST_F(BadInflight, WhatCannotBeMappedIsRefused) {
  send_with(kick_.ref());
  expect_refused(WorkerFault::kInflightUnmapped);
}
TEST_F(BadInflight, OffsetThatIsNotAlignedIsRefused) {
  message_.inflight_offset = 4;
  send_with(memory_.ref());
  expect_refused(WorkerFault::kBadMessage);
}
TEST_F(BadInflight, FewerEntriesThanTheRingHasAreRefused) {
  message_.inflight_entries = 128;
  send_with(memory_.ref());
  expect_refused(WorkerFault::kBadMessage);
}

// --- the log of a migration ---------------------------------------------------------------------

TEST_F(StartTest, MapsTheLogWhereverItBeginsAndSealsWholePages) {
  RingStart message = ring();
  message.has_log = 1;
  message.log_offset = 4096 + 13;
  message.log_bytes = 5000;
  send_table(table(1, 0, 1));
  send(message, {kick_.ref(), call_.ref(), memory_.ref()});
  ASSERT_TRUE(receive());
  EXPECT_EQ(guest_.log.bytes().size(), 5000U);
  ASSERT_EQ(guest_.mapped.size(), 2U);
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(guest_.mapped[1].data()) % 4096, 0U);
  EXPECT_EQ(guest_.mapped[1].data() + 13, guest_.log.bytes().data());
}

class BadLog : public StartTest {
 protected:
  void send_with(FdRef file) {
    send_table(table(1, 0, 1));
    send(message_, {kick_.ref(), call_.ref(), file});
  }
  BadLog() {
    message_.has_log = 1;
    message_.log_bytes = 4096;
  }
  RingStart message_ = ring();
};

TEST_F(BadLog, FileThatEndsBeforeIsRefused) {
  message_.log_offset = 8 * kRegionBytes - 4095;
  send_with(memory_.ref());
  expect_refused(WorkerFault::kLogUnmapped);
}
TEST_F(BadLog, EndThatWrapsIsRefused) {
  message_.log_offset = UINT64_MAX - 7;
  send_with(memory_.ref());
  expect_refused(WorkerFault::kLogUnmapped);
}
TEST_F(BadLog, WhatCannotBeMappedIsRefused) {
  send_with(kick_.ref());
  expect_refused(WorkerFault::kLogUnmapped);
}
TEST_F(BadLog, NoBytesAreRefused) {
  message_.log_bytes = 0;
  send_with(memory_.ref());
  expect_refused(WorkerFault::kBadMessage);
}
TEST_F(BadLog, DescriptorThatIsMissingIsRefused) {
  send_table(table(1, 0, 1));
  send(message_, {kick_.ref(), call_.ref()});
  expect_refused(WorkerFault::kBadMessage);
}

TEST_F(StartTest, RefusesAnUnknownMessage) {
  send(common::ipc::Serving{});
  expect_refused(WorkerFault::kBadMessage);
}

TEST_F(StartTest, RefusesAMessageOfTheBrokersFromTheSession) {
  common::ipc::BlkStart start{};
  start.kind = common::ipc::BlkStart::kKind;
  send(start);
  expect_refused(WorkerFault::kBadMessage);
}

TEST_F(StartTest, RefusesHalfAMessage) {
  const MemoryRegions message = table(1, 0, 1);
  const FdRef fds[] = {memory_.ref()};
  const auto half = std::as_bytes(std::span(&message, 1)).first(sizeof(message) / 2);
  ASSERT_TRUE(common::ipc::send_bytes(session_.ref(), half, fds, true));
  expect_refused(WorkerFault::kBadMessage);
}

TEST_F(StartTest, RefusesAnOversizedPacket) {
  const std::vector<std::byte> huge(common::ipc::kMessageBytesMax + 1);
  ASSERT_TRUE(common::ipc::send_bytes(session_.ref(), huge, {}, true));
  expect_refused(WorkerFault::kBadMessage);
}

TEST_F(StartTest, EndsWhenTheSessionGoesAway) {
  session_.reset();
  expect_refused(WorkerFault::kBadMessage);
}

TEST(StartOrders, TakesTheLayoutOnlyWithARing) {
  const auto pair = *common::make_packet_pair();
  common::ipc::BlkStart start{};
  start.kind = common::ipc::BlkStart::kKind;
  start.engine = static_cast<std::uint32_t>(common::EngineKind::kIoUring);
  common::ipc::UringLayout layout{};
  layout.kind = common::ipc::UringLayout::kKind;
  layout.sq_entries = 64;
  ASSERT_TRUE(common::ipc::send(pair.first.ref(), start));
  ASSERT_TRUE(common::ipc::send(pair.first.ref(), layout));
  const auto orders = worker::receive_orders(pair.second.ref());
  ASSERT_TRUE(orders);
  EXPECT_TRUE(orders->uses_ring());
  EXPECT_EQ(orders->layout.sq_entries, 64U);
}

TEST(StartLimits, TheImageCannotGrow) {
  worker::Orders orders;
  orders.device.capacity_sectors = 2048;
  orders.device.engine = static_cast<std::uint32_t>(common::EngineKind::kIoUring);
  EXPECT_EQ(worker::limits_for(orders).file_size_bytes, 1024U * 1024U);
  EXPECT_EQ(worker::limits_for(orders).descriptors, 0U);
  EXPECT_EQ(worker::limits_for(orders).processes, common::ipc::kRingThreads + 2);
}

TEST(StartLimits, AReadOnlyWorkerWritesNoFile) {
  worker::Orders orders;
  orders.device.capacity_sectors = 2048;
  orders.device.read_only = 1;
  EXPECT_EQ(worker::limits_for(orders).file_size_bytes, 0U);
}

TEST(StartLimits, TheFallbackHasItsDescriptorsAndNoThreads) {
  worker::Orders orders;
  orders.device.engine = static_cast<std::uint32_t>(common::EngineKind::kFallback);
  EXPECT_EQ(worker::limits_for(orders).descriptors, 11U);
  EXPECT_EQ(worker::limits_for(orders).processes, 1U);
}

// In a process of its own, since the numbers of descriptors are what it is about. Exits with 0, or
// with the number of the expectation that failed.
int place_descriptors(bool direct, bool crossed) {
  Fd disk(::open(".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600));
  Fd stop = *common::make_eventfd();
  for (int number = 3; number < 16; ++number) {
    if (number != disk.ref().number && number != stop.ref().number) ::close(number);
  }
  Fd high_disk = *common::duplicate(disk.ref(), 40);
  Fd high_stop = *common::duplicate(stop.ref(), 40);
  disk.reset();
  stop.reset();
  if (::dup3(high_disk.ref().number, 5, O_CLOEXEC) != 5) return 1;
  if (::dup3(high_stop.ref().number, 6, O_CLOEXEC) != 6) return 2;
  if (::dup3(high_disk.ref().number, 7, O_CLOEXEC) != 7) return 3;

  worker::Guest guest;
  guest.ring.queue_size = 128;
  guest.kick = *common::duplicate(common::make_eventfd()->ref(), crossed ? 9 : 20);
  guest.call = *common::duplicate(common::make_eventfd()->ref(), crossed ? 8 : 21);
  worker::Orders orders;
  orders.device.engine = static_cast<std::uint32_t>(common::EngineKind::kFallback);
  orders.device.direct = orders.device.has_buffered = direct ? 1 : 0;
  const std::uint64_t one = 1;
  if (::write(guest.kick.ref().number, &one, sizeof(one)) != 8) return 4;

  auto machine = worker::make_engine(orders, guest);
  if (!machine) return 5;
  const std::span<const int> wanted =
      direct ? std::span<const int>(policy::kWorkerBlkFallbackDirectFds)
             : std::span<const int>(policy::kWorkerBlkFallbackFds);
  if (!std::equal(machine->keep.begin(), machine->keep.end(), wanted.begin(), wanted.end())) {
    return 6;
  }
  if (!machine->engine->turn(true).kicked) return 7;
  std::uint64_t value = 0;
  machine->engine->ring_call();
  return ::read(9, &value, sizeof(value)) == 8 && value == 1 ? 0 : 8;
}

TEST(StartPlacementDeathTest, DescriptorsAreWhereThePolicySays) {
  EXPECT_EXIT(_exit(place_descriptors(false, false)), testing::ExitedWithCode(0), "");
  EXPECT_EXIT(_exit(place_descriptors(true, false)), testing::ExitedWithCode(0), "");
}

TEST(StartPlacementDeathTest, EvenWhereTheyCameCrossed) {
  EXPECT_EXIT(_exit(place_descriptors(false, true)), testing::ExitedWithCode(0), "");
  EXPECT_EXIT(_exit(place_descriptors(true, true)), testing::ExitedWithCode(0), "");
}

}  // namespace
}  // namespace worker_test
