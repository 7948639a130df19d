// A block queue whose worker died, served by the next one with the same in-flight region.
#include <gtest/gtest.h>

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "common/inflight_wire.h"
#include "tests/fakes/blk_rig.h"
#include "worker/blk_queue.h"

namespace {

using common::GuestAddr;
using common::ipc::WorkerExit;
using common::ipc::WorkerFault;
using fakes::BlkRig;
using fakes::ScriptedEngine;

// A worker dies with the requests that its engine has started; the next one has the same region.
class QueueAfterADeath : public testing::Test {
 protected:
  QueueAfterADeath() { rig.number_sectors(); }

  void add_reads(std::uint32_t count) {
    for (std::uint32_t i = 0; i < count; ++i) {
      ASSERT_TRUE(rig.blk.read(i, {data.value + i * 4096}, 512));
    }
  }
  std::vector<std::uint16_t> answered() {
    std::vector<std::uint16_t> heads;
    while (const auto answer = rig.blk.next()) heads.push_back(answer->head);
    return heads;
  }
  [[nodiscard]] std::unique_ptr<worker::BlkQueue> make(ScriptedEngine& engine, bool resume) {
    auto start = rig.ring.ring_start(rig.features);
    start.inflight_entries = start.queue_size;
    start.inflight_resume = resume ? 1 : 0;
    return worker::BlkQueue::create(
        {rig.ram.memory(), rig.device, start, &engine, &rig.status, std::span(region)});
  }
  // Takes what is there, completes `answers` of it, and is gone.
  void serve_and_die(std::size_t answers) {
    dead.held = true;
    dead.release(answers);
    dead.on_turn = [this, left = 2](bool) mutable {
      if (--left == 0) dead.break_host();
    };
    (void)rig.ring.publish();
    EXPECT_EQ(make(dead, false)->run(), WorkerExit::kHostFault);
  }

  BlkRig rig;
  GuestAddr data = rig.ram.alloc(4U << 20, 4096);
  alignas(8) std::array<std::byte, common::inflight::queue_bytes(128)> region{};
  ScriptedEngine dead{1U << 20};
  ScriptedEngine next{1U << 20};
};

TEST_F(QueueAfterADeath, EveryRequestIsAnsweredOnce) {
  add_reads(7);
  serve_and_die(3);
  add_reads(2);
  (void)rig.ring.publish();
  EXPECT_EQ(make(next, true)->run(), WorkerExit::kStopped);
  EXPECT_EQ(answered().size(), 9U);
  EXPECT_EQ(next.seen.size(), 6U);
  EXPECT_EQ(rig.status.next_avail.load(), 9U);
}

TEST_F(QueueAfterADeath, GuestIsRungOnceSinceADeadWorkerMayHaveAnsweredSilently) {
  add_reads(1);
  serve_and_die(1);
  EXPECT_EQ(make(next, true)->run(), WorkerExit::kStopped);
  EXPECT_GE(next.bells(), 1U);
}

TEST_F(QueueAfterADeath, WorkerThatIsToldToStopAtOnceStillFinishesWhatWasInFlight) {
  add_reads(5);
  serve_and_die(0);
  add_reads(2);
  (void)rig.ring.publish();
  next.stop();
  EXPECT_EQ(make(next, true)->run(), WorkerExit::kStopped);
  EXPECT_GE(answered().size(), 5U);
  EXPECT_EQ(rig.status.in_flight.load(), 0U);
}

TEST_F(QueueAfterADeath, DamagedRegionStopsTheQueueBeforeAnythingIsTaken) {
  add_reads(2);
  serve_and_die(0);
  region[8] = std::byte{9};  // The version.
  EXPECT_EQ(make(next, true)->run(), WorkerExit::kGuestFault);
  EXPECT_EQ(rig.fault(), WorkerFault::kInflightBroken);
  EXPECT_EQ(next.seen.size(), 0U);
}

TEST_F(QueueAfterADeath, GuestThatRewroteItsChainBreaksItsOwnRingOnly) {
  add_reads(1);
  serve_and_die(0);
  for (std::uint32_t i = 0; i < 128; ++i) {
    rig.ring.write_desc(i, fakes::make_desc({0x1}, 16, common::kDescNext, 0xffff));
  }
  EXPECT_EQ(make(next, true)->run(), WorkerExit::kGuestFault);
}

}  // namespace
