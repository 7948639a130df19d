// From the guest's pages into the tap: what arrives, what is dropped, and what a full tap does.
#include "worker/net_transmit.h"

#include <gtest/gtest.h>

#include <array>
#include <cerrno>
#include <cstring>

#include "tests/fakes/net_rig.h"

namespace {

namespace net = common::net;
using common::Counter;
using common::Le16;
using common::ipc::WorkerExit;
using common::ipc::WorkerFault;
using fakes::Buffer;
using fakes::GuestDriver;
using fakes::NetRig;

constexpr std::uint64_t kHostOffloads = net::kFeatureCsum | net::kFeatureHostTso4;

net::WireHeader tso() {
  net::WireHeader header{};
  header.flags = net::kHeaderNeedsCsum;
  header.gso_type = 1;
  header.gso_size = Le16(1448);
  header.csum_start = Le16(34);
  header.csum_offset = Le16(16);
  return header;
}

struct Transmit : testing::Test {
  explicit Transmit(const GuestDriver::Options& options = {})
      : rig(worker::TapDirection::kTransmit, options) {
    rig.features = kHostOffloads;
  }
  std::size_t answers() {
    std::size_t count = 0;
    while (const auto used = rig.ring.next_used()) count += used->written == 0;
    return count;
  }
  NetRig rig;
};

TEST_F(Transmit, SendsAPacketOfEveryLengthUnchanged) {
  constexpr std::array<std::uint32_t, 7> kLengths = {14, 60, 255, 256, 257, 1514, 65550};
  for (const std::uint32_t bytes : kLengths) ASSERT_TRUE(rig.send({}, bytes));
  EXPECT_EQ(rig.transmit(), WorkerExit::kStopped);
  for (std::uint32_t i = 0; i < kLengths.size(); ++i) {
    EXPECT_TRUE(rig.arrived(i, i, {}, kLengths[i])) << kLengths[i];
  }
  EXPECT_EQ(answers(), kLengths.size());
  EXPECT_EQ(rig.count(Counter::kSentPackets), kLengths.size());
}

TEST_F(Transmit, PassesTheOffloadsOn) {
  ASSERT_TRUE(rig.send(tso(), 60000));
  ASSERT_TRUE(rig.send(tso(), 100));
  EXPECT_EQ(rig.transmit(), WorkerExit::kStopped);
  EXPECT_TRUE(rig.arrived(0, 0, tso(), 60000));
  EXPECT_TRUE(rig.arrived(1, 1, tso(), 100));
}

TEST_F(Transmit, SendsFromPiecesHoweverTheyAreCut) {
  for (const std::uint32_t piece : {1U, 5U, 11U, 12U, 13U}) ASSERT_TRUE(rig.send({}, 20, piece));
  EXPECT_EQ(rig.transmit(), WorkerExit::kStopped);
  for (std::uint32_t i = 0; i < 5; ++i) EXPECT_TRUE(rig.arrived(i, i, {}, 20));
}

TEST_F(Transmit, SendsAPacketInMorePiecesThanTheKernelTakes) {
  // Adjacent pieces would be merged: every other one lies elsewhere.
  const auto low = rig.ram.alloc(8192);
  const auto high = rig.ram.alloc(8192);
  rig.ram.fill(low, 8192, 0);
  rig.ram.fill(high, 8192, 0);
  std::vector<Buffer> buffers = {{low, 12, false}};
  for (std::uint32_t i = 0; i < 1024; ++i) {
    buffers.push_back({{(i % 2 == 0 ? high : low).value + 16 + i * 2}, 1, false});
  }
  ASSERT_TRUE(rig.ring.add(buffers, GuestDriver::Layout::kIndirect));
  ASSERT_TRUE(rig.ring.add(buffers, GuestDriver::Layout::kIndirect));
  EXPECT_EQ(rig.transmit(), WorkerExit::kStopped);
  ASSERT_EQ(rig.tap.sent.size(), 2U);
  EXPECT_EQ(rig.tap.sent[0].size(), 12U + 1024U);
  EXPECT_EQ(answers(), 2U);
}

TEST_F(Transmit, SendsManyPacketsInOneTransferAndRingsOnce) {
  for (int i = 0; i < 16; ++i) ASSERT_TRUE(rig.send({}, 60));
  EXPECT_EQ(rig.transmit(), WorkerExit::kStopped);
  EXPECT_EQ(rig.tap.transfers, std::vector<std::size_t>{16});
  EXPECT_EQ(rig.tap.bells, 1U);
}

struct TransmitOfAnEagerGuest : Transmit {
  TransmitOfAnEagerGuest() : Transmit({.queue_size = 256, .event_idx = false}) {}
};

TEST_F(TransmitOfAnEagerGuest, RingsOnceForFourBatchesAndWhenMostIsSent) {
  for (int i = 0; i < 200; ++i) ASSERT_TRUE(rig.send({}, 60));
  std::vector<std::uint32_t> bells;
  rig.tap.on_turn = [&] { bells.push_back(rig.tap.bells); };
  EXPECT_EQ(rig.transmit(), WorkerExit::kStopped);
  EXPECT_EQ(rig.tap.sent.size(), 200U);
  // Before each of seven batches, the sleep, and the end.
  EXPECT_EQ(bells, (std::vector<std::uint32_t>{0, 0, 0, 0, 1, 1, 2, 3, 3}));
}

TEST_F(TransmitOfAnEagerGuest, RingsBeforeItWaitsForTheTap) {
  for (int i = 0; i < 100; ++i) ASSERT_TRUE(rig.send({}, 60));
  rig.tap.room = 10;
  std::uint32_t bells_at_wait = 0;
  rig.tap.on_turn = [&] {
    if (rig.count(Counter::kWaitsForTap) == 1) bells_at_wait = rig.tap.bells;
  };
  EXPECT_EQ(rig.transmit(), WorkerExit::kStopped);
  EXPECT_EQ(rig.tap.sent.size(), 100U);
  EXPECT_GE(bells_at_wait, 1U);
}

TEST_F(Transmit, CopiesAShortPacketAndLeavesALongOneWhereItIs) {
  ASSERT_TRUE(rig.send({}, 60));
  ASSERT_TRUE(rig.send({}, 1514));
  EXPECT_EQ(rig.transmit(), WorkerExit::kStopped);
  EXPECT_EQ(rig.tap.pieces, (std::vector<std::uint32_t>{1, 2}));
}

TEST_F(Transmit, UsesTheHeaderThatItHasChecked) {
  const auto head = rig.send({}, 1514);
  ASSERT_TRUE(head);
  // The guest changes the header while the tap is written to.
  const auto at = rig.ram.get<common::WireDesc>(
      {rig.ring.desc_addr().value + std::uint64_t{*head} * sizeof(common::WireDesc)});
  rig.tap.on_turn = [&] { rig.ram.put(common::GuestAddr{at.addr.get()}, tso()); };
  EXPECT_EQ(rig.transmit(), WorkerExit::kStopped);
  EXPECT_TRUE(rig.arrived(0, 0, {}, 1514));
}

TEST_F(Transmit, DropsAPacketWhoseHeaderLiesAndGoesOn) {
  net::WireHeader lie = tso();
  lie.csum_start = Le16(60000);
  ASSERT_TRUE(rig.send(lie, 100));
  lie = tso();
  lie.gso_type = 4;  // Not negotiated.
  ASSERT_TRUE(rig.send(lie, 100));
  ASSERT_TRUE(rig.send({}, 100));
  EXPECT_EQ(rig.transmit(), WorkerExit::kStopped);
  EXPECT_EQ(rig.count(Counter::kDropBadHeader), 2U);
  ASSERT_EQ(rig.tap.sent.size(), 1U);
  EXPECT_TRUE(rig.arrived(0, 2, {}, 100));
  EXPECT_EQ(answers(), 3U);
}

TEST_F(Transmit, DropsWhatIsNoPacket) {
  const auto page = rig.ram.alloc(200'000);
  const std::vector<std::uint32_t> lengths = {1, 11, 12, 25, 70'000};
  for (const std::uint32_t bytes : lengths) {
    const Buffer buffer{page, bytes, false};
    ASSERT_TRUE(rig.ring.add(std::span(&buffer, 1)));
  }
  EXPECT_EQ(rig.transmit(), WorkerExit::kStopped);
  EXPECT_EQ(rig.count(Counter::kDropBadLength), lengths.size());
  EXPECT_TRUE(rig.tap.sent.empty());
  EXPECT_EQ(answers(), lengths.size());
}

TEST_F(Transmit, DropsABufferOfNoBytes) {
  const Buffer buffer{{0}, 0, false};
  ASSERT_TRUE(rig.ring.add(std::span(&buffer, 1)));
  EXPECT_EQ(rig.transmit(), WorkerExit::kStopped);
  EXPECT_EQ(rig.count(Counter::kDropBadLength), 1U);
}

TEST_F(Transmit, StopsForABufferToBeWrittenTo) {
  ASSERT_TRUE(rig.send({}, 60));
  const Buffer buffer{rig.ram.alloc(4096), 4096, true};
  const auto head = rig.ring.add(std::span(&buffer, 1));
  EXPECT_EQ(rig.transmit(), WorkerExit::kGuestFault);
  EXPECT_EQ(rig.fault(), WorkerFault::kWrongDirection);
  EXPECT_EQ(rig.status.fault_detail[0].load(), *head);
  EXPECT_EQ(rig.tap.sent.size(), 1U);
  EXPECT_EQ(rig.status.next_avail.load(), 1U);
}

TEST_F(Transmit, StopsForABrokenRing) {
  rig.ring.offer(5000);
  EXPECT_EQ(rig.transmit(), WorkerExit::kGuestFault);
  EXPECT_EQ(rig.fault(), WorkerFault::kHeadOutsideTable);
}

TEST_F(Transmit, WaitsForAFullTapAndKeepsTheOrder) {
  for (int i = 0; i < 40; ++i) ASSERT_TRUE(rig.send({}, 60));
  rig.tap.room = rig.tap.room_after_wait = 3;
  EXPECT_EQ(rig.transmit(), WorkerExit::kStopped);
  for (std::uint32_t i = 0; i < 40; ++i) EXPECT_TRUE(rig.arrived(i, i, {}, 60));
  EXPECT_EQ(answers(), 40U);
  EXPECT_EQ(rig.count(Counter::kWaitsForTap), rig.tap.tap_waits);
  EXPECT_GT(rig.tap.tap_waits, 10U);
}

TEST_F(Transmit, AnswersInOrderWhatWasOvertaken) {
  const auto first = rig.send({}, 60);
  ASSERT_TRUE(rig.send({}, 60));
  rig.tap.results = {-EAGAIN};
  EXPECT_EQ(rig.transmit(), WorkerExit::kStopped);
  EXPECT_EQ(rig.tap.sent.size(), 2U);
  EXPECT_EQ(rig.ring.next_used()->head, *first);
}

TEST_F(Transmit, PutsBackWhatAFullTapDidNotTake) {
  for (int i = 0; i < 8; ++i) ASSERT_TRUE(rig.send({}, 60));
  rig.tap.room = 3;
  rig.tap.room_after_wait = 0;
  EXPECT_EQ(rig.transmit(), WorkerExit::kStopped);
  EXPECT_EQ(rig.tap.sent.size(), 3U);
  EXPECT_EQ(answers(), 3U);
  EXPECT_EQ(rig.status.next_avail.load(), 3U);
}

TEST_F(Transmit, AnswersWhatADeadWorkerHasToldOfAndNotShown) {
  for (int i = 0; i < 5; ++i) ASSERT_TRUE(rig.send({}, 60));
  rig.told_ahead = 3;
  EXPECT_EQ(rig.transmit(), WorkerExit::kStopped);
  EXPECT_EQ(rig.tap.sent.size(), 5U);
  EXPECT_EQ(answers(), 5U);
  EXPECT_EQ(rig.status.next_avail.load(), 5U);
}

TEST_F(Transmit, DropsWhileTheTapIsDown) {
  ASSERT_TRUE(rig.send({}, 60));
  ASSERT_TRUE(rig.send({}, 60));
  rig.tap.results = {-EIO};
  EXPECT_EQ(rig.transmit(), WorkerExit::kStopped);
  EXPECT_EQ(rig.count(Counter::kDropTapDown), 1U);
  EXPECT_EQ(rig.tap.sent.size(), 1U);
  EXPECT_EQ(answers(), 2U);
}

TEST_F(Transmit, DropsWhatTheTapRefuses) {
  ASSERT_TRUE(rig.send({}, 60));
  rig.tap.results = {-EINVAL};
  EXPECT_EQ(rig.transmit(), WorkerExit::kStopped);
  EXPECT_EQ(rig.count(Counter::kDropTapRefused), 1U);
  EXPECT_EQ(answers(), 1U);
}

TEST_F(Transmit, EndsWithAReasonWhenTheTapIsGone) {
  ASSERT_TRUE(rig.send({}, 60));
  rig.tap.results = {-EBADFD};
  EXPECT_EQ(rig.transmit(), WorkerExit::kHostFault);
  EXPECT_EQ(rig.fault(), WorkerFault::kTapGone);
}

TEST_F(Transmit, LooksAtTheRingAgainAfterAKick) {
  ASSERT_TRUE(rig.send({}, 60));
  int turns = 0;
  rig.tap.on_turn = [&] {
    if (++turns != 2) return;
    (void)rig.send({}, 100);
    if (rig.ring.publish()) rig.tap.kick();
  };
  EXPECT_EQ(rig.transmit(), WorkerExit::kStopped);
  EXPECT_EQ(rig.tap.sent.size(), 2U);
  EXPECT_EQ(rig.count(Counter::kKicks), 1U);
}

TEST_F(Transmit, LetsTheBellGoOutBeforeItPolls) {
  rig.device.poll_us = rig.device.tsc_per_us = 1000;
  ASSERT_TRUE(rig.send({}, 60));
  EXPECT_EQ(rig.transmit(), WorkerExit::kStopped);
  EXPECT_EQ(rig.tap.bells, 1U);
  EXPECT_EQ(rig.tap.flushes, 2U);  // That, and the last words.
}

TEST_F(Transmit, RingsANewCallEventfdOnce) {
  rig.tap.swap_call();
  EXPECT_EQ(rig.transmit(), WorkerExit::kStopped);
  EXPECT_EQ(rig.tap.bells, 1U);
}

TEST_F(Transmit, EndsWhenTheEngineFails) {
  ASSERT_TRUE(rig.send({}, 60));
  rig.tap.break_host();
  EXPECT_EQ(rig.transmit(), WorkerExit::kHostFault);
  EXPECT_EQ(rig.fault(), WorkerFault::kEngine);
}

TEST_F(Transmit, TakesTheShortHeaderOfALegacyDriver) {
  rig.legacy = true;
  rig.features = 0;
  ASSERT_TRUE(rig.send({}, 60));
  ASSERT_TRUE(rig.send({}, 1514, 20));
  EXPECT_EQ(rig.transmit(), WorkerExit::kStopped);
  EXPECT_TRUE(rig.arrived(0, 0, {}, 60));
  EXPECT_TRUE(rig.arrived(1, 1, {}, 1514));
}

struct WrappedTransmit : Transmit {
  WrappedTransmit() : Transmit({.queue_size = 8, .first_index = 0xfffa}) {}
};
TEST_F(WrappedTransmit, GoesOnAcrossTheWrapOfSixteenBits) {
  std::uint32_t sent = 0;
  rig.tap.on_turn = [&] {
    while (rig.ring.next_used()) {
    }
    while (sent < 100 && rig.send({}, 60)) ++sent;
    if (rig.ring.publish()) rig.tap.kick();
  };
  EXPECT_EQ(rig.transmit(), WorkerExit::kStopped);
  EXPECT_EQ(rig.tap.sent.size(), 100U);
  EXPECT_EQ(rig.status.next_avail.load(), (0xfffaU + 100) & 0xffff);
}

}  // namespace
