// From the tap into the guest's buffers: merged and not, too few and too small, and in what order.
// Long because each way that a packet can get into the buffers is here, beside the others.
#include "worker/net_receive.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <vector>

#include "tests/fakes/net_rig.h"

namespace {

namespace net = common::net;
using common::Counter;
using common::ipc::WorkerExit;
using common::ipc::WorkerFault;
using fakes::Buffer;
using fakes::GuestDriver;
using fakes::NetRig;

struct Receive : testing::Test {
  explicit Receive(const GuestDriver::Options& options = {.queue_size = 256})
      : rig(worker::TapDirection::kReceive, options) {}
  void offer(int count, std::uint32_t bytes) {
    for (int i = 0; i < count; ++i) ASSERT_TRUE(rig.offer(bytes));
  }
  NetRig rig;
};

struct MergedReceive : Receive {
  MergedReceive() { rig.features = net::kFeatureMergeableBuffers; }
};

// --- one buffer for each packet
// -------------------------------------------------------------------

TEST_F(Receive, DeliversAPacketOfEveryLengthThatFits) {
  constexpr std::array<std::uint32_t, 5> kLengths = {14, 60, 1513, 1514, 1518};
  offer(8, 1530);
  for (const std::uint32_t bytes : kLengths) rig.arrive(bytes);
  EXPECT_EQ(rig.receive(), WorkerExit::kStopped);
  for (std::uint32_t i = 0; i < kLengths.size(); ++i) EXPECT_TRUE(rig.next_is(i, kLengths[i]));
  EXPECT_EQ(rig.count(Counter::kReceivedPackets), kLengths.size());
  EXPECT_EQ(rig.count(Counter::kReceivedBytes), 14U + 60 + 1513 + 1514 + 1518);
}

TEST_F(Receive, FillsWhatADeadWorkerHasToldOfAndNotShown) {
  offer(5, 1530);
  for (int i = 0; i < 5; ++i) rig.arrive(60);
  rig.told_ahead = 3;
  EXPECT_EQ(rig.receive(), WorkerExit::kStopped);
  for (std::uint32_t i = 0; i < 5; ++i) EXPECT_TRUE(rig.next_is(i, 60));
}

TEST_F(Receive, SaysThatItTookOneBuffer) {
  offer(2, 1530);
  rig.arrive(60);
  EXPECT_EQ(rig.receive(), WorkerExit::kStopped);
  const auto got = rig.next_packet();
  ASSERT_TRUE(got);
  EXPECT_EQ(got->header.num_buffers.get(), 1);
  EXPECT_EQ(got->header.flags, net::kHeaderDataValid);
}

TEST_F(Receive, SaysSoHoweverTheHeaderIsCut) {
  for (const std::uint32_t piece : {1U, 10U, 11U, 12U}) ASSERT_TRUE(rig.offer(100, piece));
  for (int i = 0; i < 4; ++i) rig.arrive(60);
  EXPECT_EQ(rig.receive(), WorkerExit::kStopped);
  for (std::uint32_t i = 0; i < 4; ++i) {
    const auto got = rig.next_packet();
    ASSERT_TRUE(got);
    EXPECT_EQ(got->header.num_buffers.get(), 1);
    EXPECT_TRUE(NetRig::matches(got->packet, i));
  }
}

TEST_F(Receive, DeliversTheLongestPacketIntoOneLargeBuffer) {
  offer(2, 65562);
  rig.arrive(65550);
  EXPECT_EQ(rig.receive(), WorkerExit::kStopped);
  EXPECT_TRUE(rig.next_is(0, 65550));
}

TEST_F(Receive, WritesNothingBeyondTheLongestPacketIntoAHugeBuffer) {
  offer(1, 1 << 20);
  rig.arrive(65550);
  rig.arrive(70000);
  EXPECT_EQ(rig.receive(), WorkerExit::kStopped);
  EXPECT_TRUE(rig.next_is(0, 65550));
  EXPECT_FALSE(rig.next_packet());
}

TEST_F(Receive, DropsWhatDoesNotFitAndUsesTheBufferForTheNext) {
  offer(3, 100);
  rig.arrive(60);
  rig.arrive(89);
  rig.arrive(61);
  EXPECT_EQ(rig.receive(), WorkerExit::kStopped);
  EXPECT_TRUE(rig.next_is(0, 60));
  EXPECT_TRUE(rig.next_is(2, 61));
  EXPECT_FALSE(rig.next_packet());
  EXPECT_EQ(rig.count(Counter::kDropNoRoom), 1U);
  EXPECT_EQ(rig.status.next_avail.load(), 2U);
}

TEST_F(Receive, ReadsIntoOneSegmentWhereTheDriverHasAnMtu) {
  rig.device.mtu = 1500;
  rig.features = net::kFeatureMtu;
  offer(4, 1536);
  rig.arrive(1518);
  EXPECT_EQ(rig.receive(), WorkerExit::kStopped);
  EXPECT_EQ(rig.tap.pieces[0], 1U);
  EXPECT_TRUE(rig.next_is(0, 1518));
}

TEST_F(Receive, PassesNothingOnThatIsLongerThanTheMtu) {
  rig.device.mtu = 1500;
  rig.features = net::kFeatureMtu;
  offer(8, 1536);
  for (const std::uint32_t bytes : {1519U, 1518U, 3000U, 60U}) rig.arrive(bytes);
  EXPECT_EQ(rig.receive(), WorkerExit::kStopped);
  EXPECT_TRUE(rig.next_is(1, 1518));
  EXPECT_TRUE(rig.next_is(3, 60));
  EXPECT_EQ(rig.count(Counter::kDropBadLength), 2U);
}

TEST_F(Receive, PassesOnWhatAnOffloadHasPutTogether) {
  rig.device.mtu = 1500;
  rig.features = net::kFeatureMtu | net::kFeatureGuestTso4;
  offer(2, 65562);
  rig.arrive(60000);
  EXPECT_EQ(rig.receive(), WorkerExit::kStopped);
  EXPECT_EQ(rig.tap.pieces[0], 2U);
  EXPECT_TRUE(rig.next_is(0, 60000));
}

TEST_F(Receive, FillsABufferToTheLastByte) {
  offer(1, 72);
  rig.arrive(60);
  EXPECT_EQ(rig.receive(), WorkerExit::kStopped);
  EXPECT_TRUE(rig.next_is(0, 60));
}

TEST_F(Receive, ReceivesIntoMorePiecesThanTheKernelTakes) {
  // Adjacent pieces would be merged: every other byte lies elsewhere.
  const auto low = rig.ram.alloc(8192);
  const auto high = rig.ram.alloc(8192);
  std::vector<Buffer> buffers;
  for (std::uint32_t i = 0; i < 1026; ++i) {
    buffers.push_back({{(i % 2 == 0 ? high : low).value + i * 2}, 1, true});
  }
  ASSERT_TRUE(rig.ring.add(buffers, GuestDriver::Layout::kIndirect));
  rig.arrive(1014);
  EXPECT_EQ(rig.receive(), WorkerExit::kStopped);
  const auto used = rig.ring.next_used();
  ASSERT_TRUE(used);
  EXPECT_EQ(used->written, 1026U);
  for (std::uint32_t i = 12; i < 1026; ++i) {
    EXPECT_EQ(rig.ram.get<std::byte>(buffers[i].addr), NetRig::pattern(0, i - 12)) << i;
  }
}

TEST_F(Receive, ReadsManyPacketsInOneTransfer) {
  offer(64, 1530);
  for (int i = 0; i < 62; ++i) rig.arrive(60);
  EXPECT_EQ(rig.receive(), WorkerExit::kStopped);
  EXPECT_LT(rig.tap.transfers.size(), 9U);
  for (std::uint32_t i = 0; i < 62; ++i) EXPECT_TRUE(rig.next_is(i, 60));
}

TEST_F(Receive, KeepsTheOrderWhereTheTapWasEmptyInBetween) {
  offer(16, 1530);
  rig.arrive(60);
  rig.arrive(61);
  rig.arrive(62);
  // Two reads find nothing; what follows them in the batch has arrived meanwhile.
  rig.tap.results = {-EAGAIN, 0, -EAGAIN, 0};
  EXPECT_EQ(rig.receive(), WorkerExit::kStopped);
  EXPECT_TRUE(rig.next_is(0, 60));
  EXPECT_TRUE(rig.next_is(1, 61));
  EXPECT_TRUE(rig.next_is(2, 62));
  EXPECT_EQ(rig.status.next_avail.load(), 3U);
}

TEST_F(Receive, UsesTheBuffersInTheOrderOfTheirOffer) {
  std::vector<std::uint16_t> heads;
  for (int i = 0; i < 12; ++i) heads.push_back(*rig.offer(1530));
  for (int i = 0; i < 9; ++i) rig.arrive(60);
  rig.tap.results = {0, -EAGAIN, 0, -EAGAIN, 0, 0};
  EXPECT_EQ(rig.receive(), WorkerExit::kStopped);
  for (int i = 0; i < 9; ++i)
    EXPECT_EQ(rig.ring.next_used()->head, heads[static_cast<std::size_t>(i)]);
}

TEST_F(Receive, WaitsForTheGuestToOfferBuffersAndLosesNothing) {
  for (int i = 0; i < 20; ++i) rig.arrive(60);
  int offered = 0;
  rig.tap.on_turn = [&] {
    if (offered == 20) return;
    offered += 2;
    offer(2, 1530);
    if (rig.ring.publish()) rig.tap.kick();
  };
  EXPECT_EQ(rig.receive(), WorkerExit::kStopped);
  for (std::uint32_t i = 0; i < 20; ++i) EXPECT_TRUE(rig.next_is(i, 60));
  EXPECT_GT(rig.count(Counter::kWaitsForBuffers), 0U);
  EXPECT_EQ(rig.count(Counter::kDropNoRoom), 0U);
}

TEST_F(Receive, SleepsForTheTapWhileThereAreBuffers) {
  offer(4, 1530);
  EXPECT_EQ(rig.receive(), WorkerExit::kStopped);
  EXPECT_EQ(rig.tap.tap_waits, 1U);
  EXPECT_EQ(rig.tap.kick_waits, 0U);
}

TEST_F(Receive, SleepsForAKickWhileThereAreNone) {
  rig.arrive(60);
  EXPECT_EQ(rig.receive(), WorkerExit::kStopped);
  EXPECT_EQ(rig.tap.tap_waits, 0U);
  EXPECT_EQ(rig.tap.kick_waits, 1U);
}

TEST_F(Receive, PutsBackTheBuffersThatItHasNotUsed) {
  offer(16, 1530);
  rig.arrive(60);
  EXPECT_EQ(rig.receive(), WorkerExit::kStopped);
  EXPECT_EQ(rig.status.next_avail.load(), 1U);
  EXPECT_EQ(rig.ring.used_idx(), 1U);
  // Who comes next is asked for a kick behind the one that was used.
  EXPECT_EQ(rig.ring.avail_event(), 1U);
}

TEST_F(Receive, StopsForABufferToBeReadFrom) {
  const Buffer buffer{rig.ram.alloc(2048), 2048, false};
  const auto head = rig.ring.add(std::span(&buffer, 1));
  EXPECT_EQ(rig.receive(), WorkerExit::kGuestFault);
  EXPECT_EQ(rig.fault(), WorkerFault::kWrongDirection);
  EXPECT_EQ(rig.status.fault_detail[0].load(), *head);
}

TEST_F(Receive, StopsForABufferShorterThanTheHeader) {
  offer(1, 11);
  EXPECT_EQ(rig.receive(), WorkerExit::kGuestFault);
  EXPECT_EQ(rig.fault(), WorkerFault::kBufferTooSmall);
  EXPECT_EQ(rig.status.fault_detail[1].load(), 11U);
}

TEST_F(Receive, StopsForABrokenRing) {
  rig.ring.offer(5000);
  EXPECT_EQ(rig.receive(), WorkerExit::kGuestFault);
  EXPECT_EQ(rig.fault(), WorkerFault::kHeadOutsideTable);
}

TEST_F(Receive, EndsWithAReasonWhenTheTapIsGone) {
  offer(4, 1530);
  rig.tap.results = {-EBADFD, -EBADFD};
  EXPECT_EQ(rig.receive(), WorkerExit::kHostFault);
  EXPECT_EQ(rig.fault(), WorkerFault::kTapGone);
}

TEST_F(Receive, CountsWhatTheGuestsMemoryDidNotTake) {
  offer(4, 1530);
  rig.arrive(60);
  rig.tap.results = {-EFAULT};
  EXPECT_EQ(rig.receive(), WorkerExit::kStopped);
  EXPECT_EQ(rig.count(Counter::kDropTapRefused), 1U);
  EXPECT_TRUE(rig.next_is(0, 60));
}

TEST_F(Receive, LetsTheBellGoOutBeforeItPollsForBuffers) {
  rig.device.poll_us = rig.device.tsc_per_us = 1000;
  offer(1, 1530);
  rig.arrive(60);
  EXPECT_EQ(rig.receive(), WorkerExit::kStopped);
  EXPECT_EQ(rig.tap.bells, 1U);
  EXPECT_EQ(rig.tap.flushes, 2U);  // That, and the last words.
}

TEST_F(Receive, RingsOnceForABatch) {
  offer(16, 1530);
  rig.arrive(60);
  rig.arrive(60);
  EXPECT_EQ(rig.receive(), WorkerExit::kStopped);
  EXPECT_EQ(rig.tap.bells, 1U);
}

struct ReceiveOfAnEagerGuest : Receive {
  ReceiveOfAnEagerGuest() : Receive({.queue_size = 256, .event_idx = false}) {}
};

TEST_F(ReceiveOfAnEagerGuest, TellsOfTheFirstPacketsAtOnceAndOfManyTogether) {
  offer(256, 1530);
  for (int i = 0; i < 200; ++i) rig.arrive(60);
  std::vector<std::uint32_t> bells;
  rig.tap.on_turn = [&] { bells.push_back(rig.tap.bells); };
  EXPECT_EQ(rig.receive(), WorkerExit::kStopped);
  EXPECT_EQ(rig.count(Counter::kReceivedPackets), 200U);
  // Batches of 2, 4, 8, 16 and then 32; the last finds the tap empty. The sleep, and the end.
  EXPECT_EQ(bells, (std::vector<std::uint32_t>{0, 1, 1, 1, 1, 1, 2, 2, 3, 3, 4, 4}));
}

TEST_F(Receive, GivesALegacyDriverItsShortHeader) {
  rig.legacy = true;
  offer(4, 1528);
  rig.arrive(60);
  rig.arrive(1514);
  EXPECT_EQ(rig.receive(), WorkerExit::kStopped);
  const auto used = rig.ring.next_used();
  ASSERT_TRUE(used);
  EXPECT_EQ(used->written, 70U);
  EXPECT_TRUE(rig.next_is(1, 1514));
}

// --- merged buffers
// ---------------------------------------------------------------------------------

TEST_F(MergedReceive, SpreadsAPacketOverAsManyBuffersAsItNeeds) {
  offer(64, 1536);
  rig.arrive(65550);
  EXPECT_EQ(rig.receive(), WorkerExit::kStopped);
  const auto got = rig.next_packet();
  ASSERT_TRUE(got);
  EXPECT_EQ(got->header.num_buffers.get(), 43);
  EXPECT_TRUE(NetRig::matches(got->packet, 0));
  EXPECT_EQ(got->packet.size(), 65550U);
  // Each is filled before the next is begun.
  EXPECT_TRUE(std::all_of(got->lengths.begin(), got->lengths.end() - 1,
                          [](std::uint32_t length) { return length == 1536; }));
}

TEST_F(MergedReceive, ReadsLongPacketsStraightIntoTheBuffersAfterTheFirst) {
  offer(250, 1536);
  for (int i = 0; i < 5; ++i) rig.arrive(60000);
  EXPECT_EQ(rig.receive(), WorkerExit::kStopped);
  for (std::uint32_t i = 0; i < 5; ++i) EXPECT_TRUE(rig.next_is(i, 60000));
  // 43 buffers and what does not fit into them.
  EXPECT_EQ(rig.tap.pieces.back(), 44U);
}

TEST_F(MergedReceive, DeliversShortAndLongPacketsInTheirOrder) {
  offer(256, 1536);
  constexpr std::array<std::uint32_t, 9> kLengths = {60,   60,   9000, 60,   65550,
                                                     1514, 3000, 60,   20000};
  for (const std::uint32_t bytes : kLengths) rig.arrive(bytes);
  EXPECT_EQ(rig.receive(), WorkerExit::kStopped);
  for (std::uint32_t i = 0; i < kLengths.size(); ++i) EXPECT_TRUE(rig.next_is(i, kLengths[i])) << i;
}

TEST_F(MergedReceive, UsesTheBuffersInTheOrderOfTheirOffer) {
  std::vector<std::uint16_t> heads;
  for (int i = 0; i < 100; ++i) heads.push_back(*rig.offer(1536));
  for (const std::uint32_t bytes : {60U, 60U, 9000U, 60U, 3000U, 60U}) rig.arrive(bytes);
  EXPECT_EQ(rig.receive(), WorkerExit::kStopped);
  for (std::size_t i = 0; i < 12; ++i) EXPECT_EQ(rig.ring.next_used()->head, heads[i]) << i;
}

TEST_F(MergedReceive, GoesBackToABufferForEachPacketWhenTheyAreShort) {
  offer(256, 1536);
  rig.arrive(9000);
  for (int i = 0; i < 120; ++i) rig.arrive(60);
  EXPECT_EQ(rig.receive(), WorkerExit::kStopped);
  EXPECT_TRUE(rig.next_is(0, 9000));
  for (std::uint32_t i = 1; i <= 120; ++i) EXPECT_TRUE(rig.next_is(i, 60)) << i;
  EXPECT_GT(rig.tap.transfers.back(), 1U);
}

TEST_F(MergedReceive, HoldsAPacketUntilTheGuestHasOfferedEnough) {
  offer(3, 1536);
  rig.arrive(9000);
  rig.arrive(60);
  int offered = 3;
  rig.tap.on_turn = [&] {
    if (offered == 8) return;
    ++offered;
    offer(1, 1536);
    if (rig.ring.publish()) rig.tap.kick();
  };
  EXPECT_EQ(rig.receive(), WorkerExit::kStopped);
  EXPECT_TRUE(rig.next_is(0, 9000));
  EXPECT_TRUE(rig.next_is(1, 60));
  EXPECT_EQ(rig.count(Counter::kDropNoRoom), 0U);
}

TEST_F(MergedReceive, PutsBackTheBuffersOfAPacketThatItCouldNotDeliver) {
  offer(3, 1536);
  rig.arrive(9000);
  EXPECT_EQ(rig.receive(), WorkerExit::kStopped);
  EXPECT_FALSE(rig.next_packet());
  EXPECT_EQ(rig.status.next_avail.load(), 0U);
  EXPECT_EQ(rig.count(Counter::kDropNoRoom), 1U);
}

struct SmallRing : Receive {
  SmallRing() : Receive({.queue_size = 4}) { rig.features = net::kFeatureMergeableBuffers; }
};
TEST_F(SmallRing, DropsAPacketThatAllBuffersTogetherCannotHold) {
  offer(4, 1536);
  rig.arrive(9000);
  rig.arrive(60);
  EXPECT_EQ(rig.receive(), WorkerExit::kStopped);
  EXPECT_TRUE(rig.next_is(1, 60));
  EXPECT_EQ(rig.count(Counter::kDropNoRoom), 1U);
}

TEST_F(MergedReceive, DeliversIntoTheSmallestBuffersThereCanBe) {
  offer(200, 12);
  rig.arrive(1514);
  rig.arrive(60);
  EXPECT_EQ(rig.receive(), WorkerExit::kStopped);
  EXPECT_TRUE(rig.next_is(0, 1514));
  EXPECT_TRUE(rig.next_is(1, 60));
}

TEST_F(MergedReceive, DeliversIntoBuffersInManyPieces) {
  // Each byte is a segment of its own, so few such buffers go into one read.
  for (int b = 0; b < 8; ++b) {
    const auto low = rig.ram.alloc(4096);
    const auto high = rig.ram.alloc(4096);
    std::vector<Buffer> buffers;
    for (std::uint32_t i = 0; i < 1000; ++i) {
      buffers.push_back({{(i % 2 == 0 ? high : low).value + i * 2}, 1, true});
    }
    ASSERT_TRUE(rig.ring.add(buffers, GuestDriver::Layout::kIndirect));
  }
  for (int i = 0; i < 3; ++i) rig.arrive(1800);
  EXPECT_EQ(rig.receive(), WorkerExit::kStopped);
  std::vector<std::uint32_t> written;
  while (const auto used = rig.ring.next_used()) written.push_back(used->written);
  EXPECT_EQ(written, (std::vector<std::uint32_t>{1000, 812, 1000, 812, 1000, 812}));
}

struct WrappedReceive : Receive {
  WrappedReceive() : Receive({.queue_size = 64, .first_index = 0xfff0}) {
    rig.features = net::kFeatureMergeableBuffers;
  }
};
TEST_F(WrappedReceive, GoesOnAcrossTheWrapOfSixteenBits) {
  std::uint32_t offered = 0;
  std::uint32_t got = 0;
  rig.tap.on_turn = [&] {
    while (rig.ring.used_idx() != static_cast<std::uint16_t>(0xfff0U + got) &&
           rig.ring.next_used()) {
      ++got;
    }
    for (; offered < 3000 && rig.offer(1536); ++offered) rig.arrive(offered % 7 == 0 ? 1800 : 60);
    if (rig.ring.publish()) rig.tap.kick();
  };
  EXPECT_EQ(rig.receive(), WorkerExit::kStopped);
  EXPECT_EQ(rig.count(Counter::kReceivedPackets) + rig.count(Counter::kDropNoRoom),
            3000U - rig.tap.incoming.size());
}

}  // namespace
