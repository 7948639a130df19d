// Network queues whose guest is held back by the operator's limits.
#include <gtest/gtest.h>

#include <cstdint>

#include "tests/fakes/net_rig.h"

namespace {

using common::Counter;
using common::Rate;
using common::ipc::WorkerExit;
using fakes::NetRig;
using worker::RateLimiter;
using worker::TapDirection;

class LimitedCard : public testing::Test {
 protected:
  static void prepare(NetRig& rig) { rig.device.tsc_per_us = fakes::kFrozenClock; }
};

TEST_F(LimitedCard, SendsABurstAndLeavesTheRestInTheRing) {
  NetRig rig(TapDirection::kTransmit);
  prepare(rig);
  rig.rates.set(Rate::kWriteOperations, 1, 3);
  for (int i = 0; i < 8; ++i) ASSERT_TRUE(rig.send({}, 100));
  std::size_t sent_at_nap = 0;
  bool kick_wanted = true;
  rig.tap.on_nap = [&](std::uint32_t us) {
    EXPECT_EQ(us, RateLimiter::kLookUs);
    sent_at_nap = rig.tap.sent.size();
    ASSERT_TRUE(rig.send({}, 100));
    kick_wanted = rig.ring.publish();
    rig.rates.lift();
  };
  EXPECT_EQ(rig.transmit(), WorkerExit::kStopped);
  EXPECT_EQ(sent_at_nap, 3U);
  EXPECT_FALSE(kick_wanted);
  EXPECT_EQ(rig.tap.sent.size(), 9U);
  EXPECT_EQ(rig.count(Counter::kThrottledRequests), 1U);
}

TEST_F(LimitedCard, SendsNoMoreBytesThanItsBurst) {
  NetRig rig(TapDirection::kTransmit);
  prepare(rig);
  rig.rates.set(Rate::kBytes, 1, 4000);
  for (int i = 0; i < 8; ++i) ASSERT_TRUE(rig.send({}, 1000));
  std::size_t sent_at_nap = 0;
  rig.tap.on_nap = [&](std::uint32_t) {
    sent_at_nap = rig.tap.sent.size();
    rig.rates.lift();
  };
  EXPECT_EQ(rig.transmit(), WorkerExit::kStopped);
  EXPECT_EQ(sent_at_nap, 4U);
  EXPECT_EQ(rig.tap.sent.size(), 8U);
}

TEST_F(LimitedCard, EndsAtOnceWhereItIsToldToWhileItWaits) {
  NetRig rig(TapDirection::kTransmit);
  prepare(rig);
  rig.rates.set(Rate::kOperations, 1, 3);
  for (int i = 0; i < 8; ++i) ASSERT_TRUE(rig.send({}, 100));
  rig.tap.on_nap = [&](std::uint32_t) { rig.tap.stop(); };
  EXPECT_EQ(rig.transmit(), WorkerExit::kStopped);
  EXPECT_EQ(rig.tap.sent.size(), 3U);
  EXPECT_EQ(rig.status.next_avail.load(), 3U);
}

// What is read at once is known only afterwards: the batch that begins within the limit may exceed
// it, and is paid for.
TEST_F(LimitedCard, LeavesPacketsInTheTapWhereNoMoreMayBeReceived) {
  NetRig rig(TapDirection::kReceive);
  prepare(rig);
  rig.rates.set(Rate::kReadOperations, 1, 4);
  for (int i = 0; i < 40; ++i) ASSERT_TRUE(rig.offer(2048));
  for (int i = 0; i < 40; ++i) rig.arrive(100);
  std::size_t left_at_nap = 0;
  rig.tap.on_nap = [&](std::uint32_t us) {
    EXPECT_EQ(us, RateLimiter::kLookUs);
    left_at_nap = rig.tap.incoming.size();
    rig.rates.lift();
  };
  EXPECT_EQ(rig.receive(), WorkerExit::kStopped);
  EXPECT_LE(left_at_nap, 40U - 4U);
  EXPECT_GT(left_at_nap, 20U);
  EXPECT_TRUE(rig.tap.incoming.empty());
  EXPECT_EQ(rig.count(Counter::kReceivedPackets), 40U);
  EXPECT_EQ(rig.count(Counter::kThrottledRequests), 1U);
}

TEST_F(LimitedCard, CountsReceivedBytesWithoutTheirHeaders) {
  NetRig rig(TapDirection::kReceive);
  prepare(rig);
  rig.rates.set(Rate::kReadBytes, 1, 3000);
  for (int i = 0; i < 40; ++i) ASSERT_TRUE(rig.offer(2048));
  for (int i = 0; i < 2; ++i) rig.arrive(1500);
  rig.tap.on_nap = [&](std::uint32_t) {
    EXPECT_EQ(rig.count(Counter::kReceivedPackets), 2U);
    rig.rates.lift();
  };
  EXPECT_EQ(rig.receive(), WorkerExit::kStopped);
  EXPECT_EQ(rig.count(Counter::kReceivedPackets), 2U);
  EXPECT_EQ(rig.count(Counter::kThrottledRequests), 0U) << "nothing waited";
}

}  // namespace
