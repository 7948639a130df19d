// A block queue whose guest is held back by the operator's limits.
#include <gtest/gtest.h>

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "common/inflight_wire.h"
#include "tests/fakes/blk_rig.h"
#include "worker/blk_queue.h"
#include "worker/poller.h"

namespace {

using common::Counter;
using common::GuestAddr;
using common::Rate;
using common::blk::RequestType;
using common::ipc::WorkerExit;
using fakes::BlkRig;
using worker::RateLimiter;

class LimitedQueue : public testing::Test {
 protected:
  LimitedQueue() {
    rig.number_sectors();
    rig.device.tsc_per_us = fakes::kFrozenClock;
  }

  void add_reads(std::uint32_t count) {
    for (std::uint32_t i = 0; i < count; ++i) {
      ASSERT_TRUE(rig.blk.read(i, {data.value + i * 4096}, 512));
    }
  }
  [[nodiscard]] bool add_range(RequestType type, std::uint32_t sectors) {
    const common::blk::WireRange range{common::Le64(0), common::Le32(sectors), common::Le32(0)};
    return rig.blk.ranges(type, std::span(&range, 1)).has_value();
  }
  std::size_t answered() {
    while (rig.blk.next()) ++answers;
    return answers;
  }
  // Until then, as often as it sleeps: what was answered before the first of these sleeps.
  WorkerExit serve_and_lift() {
    rig.engine.on_nap = [this](std::uint32_t us) {
      slept_us = us;
      answered_at_nap = answered();
      rig.rates.lift();
    };
    return rig.serve();
  }

  BlkRig rig;
  GuestAddr data = rig.ram.alloc(4U << 20, 4096);
  std::size_t answers = 0;
  std::size_t answered_at_nap = 0;
  std::uint32_t slept_us = 0;
};

TEST_F(LimitedQueue, ServesWithoutASleepWhereNothingIsLimited) {
  add_reads(10);
  EXPECT_EQ(rig.serve(), WorkerExit::kStopped);
  EXPECT_EQ(answered(), 10U);
  EXPECT_EQ(rig.engine.naps, 0U);
}

TEST_F(LimitedQueue, TakesABurstAndLeavesTheRestInTheRing) {
  rig.rates.set(Rate::kOperations, 1, 4);
  add_reads(10);
  EXPECT_EQ(serve_and_lift(), WorkerExit::kStopped);
  EXPECT_EQ(answered_at_nap, 4U);
  EXPECT_EQ(slept_us, RateLimiter::kLookUs);
  EXPECT_EQ(answered(), 10U);
  EXPECT_EQ(rig.count(Counter::kThrottledRequests), 1U);
}

TEST_F(LimitedQueue, LimitsReadsAndWritesApart) {
  rig.rates.set(Rate::kWriteOperations, 1, 2);
  add_reads(5);
  for (std::uint32_t i = 0; i < 3; ++i) ASSERT_TRUE(rig.blk.write(i, data, 512));
  add_reads(5);
  EXPECT_EQ(serve_and_lift(), WorkerExit::kStopped);
  EXPECT_EQ(answered_at_nap, 7U);
  EXPECT_EQ(answered(), 13U);
}

TEST_F(LimitedQueue, LimitsBytesAndLetsWhatIsLargerThanTheBurstPass) {
  rig.rates.set(Rate::kBytes, 1, 65536);
  ASSERT_TRUE(rig.blk.read(0, data, 512 * 1024));
  ASSERT_TRUE(rig.blk.read(0, data, 512));
  EXPECT_EQ(serve_and_lift(), WorkerExit::kStopped);
  EXPECT_EQ(answered_at_nap, 1U);
  EXPECT_EQ(answered(), 2U);
}

TEST_F(LimitedQueue, CountsFlushDiscardAndZeroesAsWrites) {
  rig.rates.set(Rate::kWriteOperations, 1, 3);
  ASSERT_TRUE(rig.blk.flush());
  ASSERT_TRUE(add_range(RequestType::kDiscard, 8));
  ASSERT_TRUE(add_range(RequestType::kWriteZeroes, 8));
  ASSERT_TRUE(rig.blk.flush());
  EXPECT_EQ(serve_and_lift(), WorkerExit::kStopped);
  EXPECT_EQ(answered_at_nap, 3U);
  EXPECT_EQ(answered(), 4U);
}

TEST_F(LimitedQueue, CountsBytesOfZeroesOnABlockDevice) {
  rig.device.block_device = 1;
  rig.rates.set(Rate::kWriteBytes, 1, 65536);
  ASSERT_TRUE(add_range(RequestType::kWriteZeroes, 1024));
  ASSERT_TRUE(rig.blk.write(0, data, 512));
  EXPECT_EQ(serve_and_lift(), WorkerExit::kStopped);
  EXPECT_EQ(answered_at_nap, 1U);
}

TEST_F(LimitedQueue, CountsNoBytesOfZeroesInAFile) {
  rig.rates.set(Rate::kWriteBytes, 1, 65536);
  ASSERT_TRUE(add_range(RequestType::kWriteZeroes, 1024));
  ASSERT_TRUE(rig.blk.write(0, data, 512));
  EXPECT_EQ(serve_and_lift(), WorkerExit::kStopped);
  EXPECT_EQ(rig.engine.naps, 0U);
  EXPECT_EQ(answered(), 2U);
}

TEST_F(LimitedQueue, DoesNotLimitWhatNeverReachesTheDisk) {
  rig.rates.set(Rate::kOperations, 1, 1);
  for (int i = 0; i < 5; ++i) ASSERT_TRUE(rig.blk.add_raw(77, 0, {}));
  add_reads(1);
  EXPECT_EQ(rig.serve(), WorkerExit::kStopped);
  EXPECT_EQ(answered(), 6U);
  EXPECT_EQ(rig.engine.naps, 0U);
}

TEST_F(LimitedQueue, AsksForNoKickWhileItWaits) {
  rig.rates.set(Rate::kOperations, 1, 1);
  add_reads(2);
  bool kick_wanted = true;
  rig.engine.on_nap = [&](std::uint32_t) {
    add_reads(1);
    kick_wanted = rig.ring.publish();
    rig.rates.lift();
  };
  EXPECT_EQ(rig.serve(), WorkerExit::kStopped);
  EXPECT_FALSE(kick_wanted);
  EXPECT_EQ(answered(), 3U);
}

TEST_F(LimitedQueue, AnswersWhatCompletesWhileTheNextWaits) {
  rig.rates.set(Rate::kOperations, 1, 2);
  rig.engine.held = true;
  add_reads(3);
  EXPECT_EQ(serve_and_lift(), WorkerExit::kStopped);
  EXPECT_EQ(answered_at_nap, 2U);
  EXPECT_EQ(answered(), 3U);
}

TEST_F(LimitedQueue, EndsAtOnceWhereItIsToldToWhileItWaits) {
  rig.rates.set(Rate::kOperations, 1, 4);
  add_reads(10);
  rig.engine.on_nap = [this](std::uint32_t) { rig.engine.stop(); };
  EXPECT_EQ(rig.serve(), WorkerExit::kStopped);
  EXPECT_EQ(rig.engine.naps, 1U);
  EXPECT_EQ(answered(), 4U);
  EXPECT_EQ(rig.status.next_avail.load(), 4U);
}

TEST_F(LimitedQueue, KeepsToItsRateByTheClock) {
  rig.device.tsc_per_us = 1;  // Time flies: a second is a million ticks.
  rig.rates.set(Rate::kOperations, 1000, 1);
  add_reads(40);
  const std::uint64_t before = worker::read_ticks();
  EXPECT_EQ(rig.serve(), WorkerExit::kStopped);
  EXPECT_EQ(answered(), 40U);
  EXPECT_GE(worker::read_ticks() - before, 39U * 1000U);
}

TEST_F(LimitedQueue, DoesNotMakeAReplacedWorkersRequestsWaitAgain) {
  alignas(8) std::array<std::byte, common::inflight::queue_bytes(128)> region{};
  const auto make = [&](fakes::ScriptedEngine& engine, bool resume) {
    auto start = rig.ring.ring_start(rig.features);
    start.inflight_entries = start.queue_size;
    start.inflight_resume = resume ? 1 : 0;
    return worker::BlkQueue::create({.memory = rig.ram.memory(),
                                     .device = rig.device,
                                     .ring = start,
                                     .engine = &engine,
                                     .status = &rig.status,
                                     .inflight = std::span(region),
                                     .rates = {rig.rates.view(), {}}});
  };
  rig.rates.set(Rate::kOperations, 1, 5);
  add_reads(5);
  (void)rig.ring.publish();
  rig.engine.held = true;
  rig.engine.on_turn = [this](bool) { rig.engine.break_host(); };
  EXPECT_EQ(make(rig.engine, false)->run(), WorkerExit::kHostFault);

  fakes::ScriptedEngine next(1U << 20);
  EXPECT_EQ(make(next, true)->run(), WorkerExit::kStopped);
  EXPECT_EQ(next.naps, 0U);
  EXPECT_EQ(answered(), 5U);
}

}  // namespace
