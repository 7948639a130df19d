// The loop: batches, notifications, stopping, and what a broken ring does to it.
// Long because every reason to sleep or to wake is here, beside each other.
#include "worker/blk_queue.h"

#include <gtest/gtest.h>

#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdint>
#include <thread>
#include <vector>

#include "common/ticks.h"
#include "tests/fakes/blk_rig.h"
#include "worker/heap_lock.h"

namespace {

using common::Counter;
using common::GuestAddr;
using common::ipc::WorkerExit;
using common::ipc::WorkerFault;
using fakes::BlkRig;
using fakes::Buffer;
using fakes::GuestDriver;
using fakes::make_desc;
using fakes::ScriptedEngine;
using Kind = worker::IoRequest::Kind;

struct Queue : testing::Test {
  explicit Queue(const GuestDriver::Options& options = {}) : rig(options) { rig.number_sectors(); }

  // As many reads as asked for, each into a page of its own.
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

  BlkRig rig;
  GuestAddr data = rig.ram.alloc(4U << 20, 4096);
};

struct QueueWithoutEventIdx : Queue {
  QueueWithoutEventIdx() : Queue({.event_idx = false}) {}
};

// --- starting ---------------------------------------------------------------------------------

TEST_F(Queue, LooksAtTheRingBeforeAnyKick) {
  add_reads(3);
  (void)rig.ring.publish();
  EXPECT_EQ(rig.make_queue()->run(), WorkerExit::kStopped);
  EXPECT_EQ(answered().size(), 3U);
  EXPECT_EQ(rig.count(Counter::kKicks), 0U);
}

TEST_F(Queue, TouchesNoGuestByteBeforeItRuns) {
  rig.ring.store_used_event(1234);
  const std::uint16_t event = rig.ring.avail_event();
  rig.ring.store_avail_idx(999);
  const auto queue = rig.make_queue();
  ASSERT_TRUE(queue);
  EXPECT_EQ(rig.ring.avail_event(), event);
  EXPECT_EQ(rig.fault(), WorkerFault::kNone);
}

TEST_F(Queue, IsRefusedWithTheReasonWhereTheRingIsNotMapped) {
  auto start = rig.ring.ring_start(rig.features);
  start.used_addr = 0x1000;
  EXPECT_FALSE(
      worker::BlkQueue::create({rig.ram.memory(), rig.device, start, &rig.engine, &rig.status}));
  EXPECT_EQ(rig.fault(), WorkerFault::kRingUnmapped);
  EXPECT_EQ(rig.status.fault_detail[0].load(), 2U);
  EXPECT_EQ(rig.status.fault_detail[1].load(), 0x1000U);
}

TEST_F(Queue, RingsOnceWhenItTakesOverARingThatWasInUse) {
  BlkRig used({.queue_size = 8, .first_index = 500});
  (void)used.serve();
  EXPECT_EQ(used.engine.bells(), 1U);
}

TEST_F(Queue, DoesNotRingAFreshRingWithoutAnAnswer) {
  (void)rig.serve();
  EXPECT_EQ(rig.engine.bells(), 0U);
}

class QueueSizes : public testing::TestWithParam<std::uint16_t> {};
TEST_P(QueueSizes, ServesMoreRequestsThanTheRingIsLongAcrossTheWrapOfSixteenBits) {
  BlkRig rig({.queue_size = GetParam(), .first_index = 0xfff0});
  rig.number_sectors();
  rig.engine.forget_requests();
  const GuestAddr data = rig.ram.alloc(512);
  std::uint32_t sent = 0;
  std::uint32_t good = 0;
  rig.engine.on_turn = [&](bool) {
    while (const auto answer = rig.blk.next()) good += answer->status == 0;
    const auto add = [&] {
      return rig.blk.read(sent % 64, data, 512, GuestDriver::Layout::kIndirect);
    };
    while (sent < 4000 && add()) ++sent;
    if (rig.ring.publish()) rig.engine.kick();
  };
  EXPECT_EQ(rig.serve(), WorkerExit::kStopped);
  while (const auto answer = rig.blk.next()) good += answer->status == 0;
  EXPECT_EQ(good, 4000U);
  EXPECT_EQ(rig.status.next_avail.load(), (0xfff0U + 4000U) & 0xffff);
}
INSTANTIATE_TEST_SUITE_P(Blk, QueueSizes, testing::Values(1, 2, 4, 256, 1024));

// --- batches and notifications ----------------------------------------------------------------

TEST_F(Queue, AnswersABatchWithOneInterrupt) {
  add_reads(10);
  (void)rig.serve();
  EXPECT_EQ(answered().size(), 10U);
  EXPECT_EQ(rig.engine.bells(), 1U);
  EXPECT_EQ(rig.count(Counter::kCalls), 1U);
}

// Too few answers to be worth a bell while there is more to do, but nobody sleeps on them.
TEST_F(Queue, RingsForASingleAnswerBeforeItSleepsOverTheRest) {
  rig.engine.held = true;
  rig.engine.release(1);
  add_reads(4);
  std::vector<std::uint32_t> bells_at_sleep;
  rig.engine.on_turn = [&](bool may_sleep) {
    if (may_sleep && rig.ring.used_idx() == 1) bells_at_sleep.push_back(rig.engine.bells());
  };
  (void)rig.serve();
  EXPECT_EQ(bells_at_sleep, std::vector<std::uint32_t>{1});
  EXPECT_EQ(answered().size(), 4U);
}

TEST_F(Queue, ServesAFullRing) {
  add_reads(42);  // Three descriptors each, of 128.
  (void)rig.serve();
  EXPECT_EQ(answered().size(), 42U);
}

TEST_F(Queue, DoesNotRingForAnswersTheGuestDoesNotWaitFor) {
  rig.ring.call_after(11);
  add_reads(10);
  (void)rig.serve();
  EXPECT_EQ(rig.engine.bells(), 0U);
  EXPECT_GT(rig.count(Counter::kCallsSuppressed), 0U);
}

TEST_F(QueueWithoutEventIdx, HonourTheNoInterruptFlag) {
  rig.ring.disable_calls();
  add_reads(3);
  (void)rig.serve();
  EXPECT_EQ(answered().size(), 3U);
  EXPECT_EQ(rig.engine.bells(), 0U);
}

TEST_F(QueueWithoutEventIdx, RingOnceForABatch) {
  add_reads(3);
  (void)rig.serve();
  EXPECT_EQ(rig.engine.bells(), 1U);
}

TEST_F(Queue, RingsAtOnceWhenTheCallDescriptorWasSwapped) {
  rig.engine.swap_call();
  (void)rig.serve();
  EXPECT_EQ(rig.engine.bells(), 1U);
}

TEST_F(Queue, AnswersInTheOrderOfCompletion) {
  rig.engine.held = true;
  rig.engine.order = ScriptedEngine::Order::kReversed;
  std::vector<std::uint16_t> heads;
  for (std::uint32_t i = 0; i < 5; ++i)
    heads.push_back(*rig.blk.read(i, {data.value + i * 4096}, 512));
  (void)rig.serve();
  std::reverse(heads.begin(), heads.end());
  EXPECT_EQ(answered(), heads);
}

TEST_F(Queue, ShowsEachAnswerAsSoonAsItIsThere) {
  rig.engine.held = true;
  add_reads(3);
  std::vector<std::uint16_t> shown;
  rig.engine.on_turn = [&](bool) { shown.push_back(rig.ring.used_idx()); };
  (void)rig.serve();
  EXPECT_TRUE(std::find(shown.begin(), shown.end(), 1) != shown.end());
  EXPECT_TRUE(std::find(shown.begin(), shown.end(), 2) != shown.end());
}

TEST_F(Queue, TakesNewRequestsWhileOthersAreUnderWay) {
  rig.engine.held = true;
  add_reads(1);
  bool added = false;
  std::size_t most = 0;
  rig.engine.on_turn = [&](bool may_sleep) {
    most = std::max(most, rig.engine.under_way());
    if (!may_sleep || added) return;
    added = true;
    rig.engine.release(0);
    ASSERT_TRUE(rig.blk.read(1, data, 512));
    EXPECT_TRUE(rig.ring.publish());  // It sleeps, so it must want the kick.
    rig.engine.kick();
  };
  (void)rig.serve();
  EXPECT_EQ(answered().size(), 2U);
}

TEST_F(Queue, SaysSinceWhenTheOldestRequestIsUnderWay) {
  rig.engine.held = true;
  add_reads(1);
  const std::uint64_t before = common::read_ticks();
  std::uint64_t since = 0;
  rig.engine.on_turn = [&](bool may_sleep) {
    if (!may_sleep || since != 0) return;
    since = rig.status.oldest_ticks.load();
    rig.engine.release(0);
  };
  (void)rig.serve();
  EXPECT_GE(since, before);
  EXPECT_LE(since, common::read_ticks());
  EXPECT_EQ(rig.status.oldest_ticks.load(), 0U);
}

TEST_F(Queue, MeasuresHowLongEachKindOfRequestTakes) {
  rig.device.tsc_per_us = 1;
  add_reads(3);
  (void)rig.serve();
  const auto& reads = rig.status.latency[static_cast<std::size_t>(common::LatencyKind::kRead)];
  const auto& writes = rig.status.latency[static_cast<std::size_t>(common::LatencyKind::kWrite)];
  std::uint64_t counted = 0;
  for (const auto& bucket : reads.buckets) counted += bucket.load();
  EXPECT_EQ(counted, 3U);
  EXPECT_GT(reads.max_ns.load(), 0U);
  EXPECT_GE(reads.sum_ns.load(), reads.max_ns.load());
  EXPECT_EQ(writes.max_ns.load(), 0U);
}

TEST_F(Queue, NeverSleepsWithoutAskingForAKick) {
  std::uint32_t sent = 0;
  std::uint32_t kicks_wanted = 0;
  std::uint32_t sleeps = 0;
  rig.engine.on_turn = [&](bool may_sleep) {
    while (rig.blk.next()) continue;
    if (!may_sleep || sent == 1000) return;
    ++sleeps;
    ++sent;
    ASSERT_TRUE(rig.blk.read(1, data, 512));
    const bool wanted = rig.ring.publish();
    kicks_wanted += wanted;
    if (wanted) rig.engine.kick();
  };
  (void)rig.serve();
  EXPECT_EQ(sent, 1000U);
  EXPECT_EQ(kicks_wanted, sleeps);
  EXPECT_EQ(rig.count(Counter::kReadRequests), 1000U);
}

TEST_F(Queue, WantsNoKickWhileItIsBusy) {
  std::uint32_t wanted = 0;
  std::uint32_t sent = 0;
  rig.engine.on_turn = [&](bool may_sleep) {
    while (rig.blk.next()) continue;
    if (may_sleep || sent == 1000) return;
    ++sent;
    ASSERT_TRUE(rig.blk.read(1, data, 512));
    wanted += rig.ring.publish();
  };
  add_reads(1);
  (void)rig.serve();
  EXPECT_GT(sent, 0U);
  EXPECT_EQ(wanted, 0U);
  EXPECT_EQ(rig.count(Counter::kReadRequests), sent + 1);
}

TEST_F(Queue, SurvivesKicksForNothing) {
  std::uint32_t kicks = 0;
  rig.engine.on_turn = [&](bool) {
    if (++kicks <= 100) rig.engine.kick();
  };
  EXPECT_EQ(rig.serve(), WorkerExit::kStopped);
  EXPECT_EQ(rig.ring.used_idx(), 0);
}

// --- polling ----------------------------------------------------------------------------------

TEST_F(Queue, WithPollingTakesARequestThatComesWithoutAKick) {
  rig.device.poll_us = 1'000'000;
  std::uint32_t sent = 0;
  std::uint32_t wanted = 0;
  rig.engine.on_turn = [&](bool) {
    while (rig.blk.next()) continue;
    if (sent == 50) return rig.engine.stop();
    ++sent;
    ASSERT_TRUE(rig.blk.read(1, data, 512));
    wanted += rig.ring.publish();
  };
  add_reads(1);
  (void)rig.serve();
  EXPECT_EQ(wanted, 0U);
  EXPECT_EQ(rig.engine.sleeps, 0U);
}

TEST_F(Queue, WithPollingSleepsOnceNothingComes) {
  rig.device.poll_us = 50;
  add_reads(1);
  (void)rig.serve();
  EXPECT_GE(rig.engine.sleeps, 1U);
  EXPECT_EQ(answered().size(), 1U);
}

// --- stopping ---------------------------------------------------------------------------------

TEST_F(Queue, DrainsWhatItHasTakenAndTakesNothingMore) {
  rig.engine.held = true;
  add_reads(3);
  bool told = false;
  rig.engine.on_turn = [&](bool) {
    if (told || rig.engine.under_way() + rig.engine.seen.size() == 0) return;
    told = true;
    rig.engine.stop();
    ASSERT_TRUE(rig.blk.read(9, data, 512));
    (void)rig.ring.publish();
  };
  EXPECT_EQ(rig.serve(), WorkerExit::kStopped);
  EXPECT_EQ(answered().size(), 3U);
  EXPECT_EQ(rig.status.next_avail.load(), 3U);
  EXPECT_EQ(rig.status.in_flight.load(), 0U);
}

TEST_F(Queue, RingsForWhatItDrains) {
  rig.engine.held = true;
  add_reads(1);
  rig.engine.on_turn = [&](bool) { rig.engine.stop(); };
  (void)rig.serve();
  EXPECT_EQ(rig.engine.bells(), 1U);
}

TEST_F(QueueWithoutEventIdx, LeaveKicksEnabledBehindThem) {
  (void)rig.serve();
  EXPECT_EQ(rig.ring.used_flags(), 0);
}

TEST_F(Queue, GoesOnWhereThePreviousWorkerStopped) {
  add_reads(3);
  (void)rig.serve();
  EXPECT_EQ(answered().size(), 3U);
  ScriptedEngine next(1U << 20);
  add_reads(2);
  (void)rig.ring.publish();
  auto start = rig.ring.ring_start(rig.features);
  start.next_avail = rig.status.next_avail.load();
  const auto queue =
      worker::BlkQueue::create({rig.ram.memory(), rig.device, start, &next, &rig.status});
  EXPECT_EQ(queue->run(), WorkerExit::kStopped);
  EXPECT_EQ(answered().size(), 2U);
}

// One that dies before its first turn is over has taken nothing.
TEST_F(Queue, SaysWhereItStartsBeforeItTouchesTheRing) {
  auto start = rig.ring.ring_start(rig.features);
  start.next_avail = 4711;
  ASSERT_NE(
      worker::BlkQueue::create({rig.ram.memory(), rig.device, start, &rig.engine, &rig.status}),
      nullptr);
  EXPECT_EQ(rig.status.next_avail.load(), 4711U);
}

TEST_F(Queue, EndsWhenTheEngineFails) {
  add_reads(1);
  rig.engine.break_host();
  EXPECT_EQ(rig.serve(), WorkerExit::kHostFault);
  EXPECT_EQ(rig.fault(), WorkerFault::kEngine);
}

// --- a broken ring ----------------------------------------------------------------------------

TEST_F(Queue, AnswersWhatCameBeforeABrokenChain) {
  rig.engine.held = true;
  add_reads(3);
  rig.ring.offer(999);
  EXPECT_EQ(rig.serve(), WorkerExit::kGuestFault);
  EXPECT_EQ(answered().size(), 3U);
  EXPECT_EQ(rig.engine.bells(), 1U);
  EXPECT_EQ(rig.fault(), WorkerFault::kHeadOutsideTable);
  EXPECT_EQ(rig.status.fault_detail[0].load(), 999U);
  EXPECT_EQ(rig.status.fault_detail[1].load(), 128U);
  EXPECT_EQ(rig.status.next_avail.load(), 3U);
}

TEST_F(Queue, TakesNothingAfterABrokenChain) {
  rig.ring.write_desc(127, make_desc({0x10}, 16));
  rig.ring.offer(127);
  add_reads(2);
  EXPECT_EQ(rig.serve(), WorkerExit::kGuestFault);
  EXPECT_EQ(rig.fault(), WorkerFault::kUnmappedBuffer);
  EXPECT_EQ(rig.ring.used_idx(), 0);
  EXPECT_TRUE(rig.engine.seen.empty());
}

TEST_F(Queue, StopsAtAnAvailIndexThatJumps) {
  rig.ring.store_avail_idx(0x8000);
  EXPECT_EQ(rig.make_queue()->run(), WorkerExit::kGuestFault);
  EXPECT_EQ(rig.fault(), WorkerFault::kAvailJump);
  EXPECT_EQ(rig.status.fault_detail[0].load(), 0x8000U);
}

TEST_F(Queue, StaysBoundedWhenTheGuestOffersOneChainOverAndOver) {
  rig.engine.held = true;
  rig.engine.forget_requests();
  const std::uint16_t head = rig.blk.read(0, data, 512).value();
  std::size_t most = 0;
  std::uint32_t rounds = 0;
  rig.engine.on_turn = [&](bool) {
    most = std::max(most, rig.engine.under_way());
    if (++rounds > 2000) return rig.engine.stop();
    rig.ring.offer(head);
    if (rig.ring.publish()) rig.engine.kick();
  };
  (void)rig.serve();
  EXPECT_LE(most, 128U);
}

// --- memory -----------------------------------------------------------------------------------

// An engine without memory of its own, which completes everything at once and stops when told.
class BareEngine final : public worker::Engine {
 public:
  explicit BareEngine(std::uint32_t turns) : turns_left_(turns) {}
  void start(const worker::IoRequest& request) noexcept override {
    const bool moves = !request.segments.empty();
    std::int32_t bytes = 0;
    for (const iovec& segment : request.segments)
      bytes += static_cast<std::int32_t>(segment.iov_len);
    done_[count_++] = {request.tag, moves ? bytes : -EOPNOTSUPP};
  }
  void ring_call() noexcept override {}
  [[nodiscard]] worker::Wakeup turn(bool) noexcept override {
    worker::Wakeup wakeup;
    wakeup.stop = --turns_left_ == 0;
    return wakeup;
  }
  [[nodiscard]] bool ready() const noexcept override { return count_ != 0; }
  [[nodiscard]] bool next_completion(worker::Completion& completion) noexcept override {
    if (count_ == 0) return false;
    completion = done_[--count_];
    return true;
  }
  [[nodiscard]] std::uint64_t system_calls() const noexcept override { return 0; }

 private:
  std::array<worker::Completion, worker::kRequestsMax> done_{};
  std::size_t count_ = 0;
  std::uint32_t turns_left_;
};

// One request of every kind, bounced, long and zeroed by hand, with a heap that traps.
TEST(QueueDeathTest, AllocatesNothingOnceItRuns) {
  BlkRig rig;
  rig.device.direct = rig.device.has_buffered = 1;
  rig.device.memory_alignment = rig.device.offset_alignment = 512;
  const GuestAddr data = rig.ram.alloc(1U << 20, 4096);
  std::vector<Buffer> pieces(200);
  for (std::uint32_t i = 0; i < 200; ++i) pieces[i] = {{data.value + i * 2048}, 512, true};
  const common::blk::WireRange range = fakes::make_range(0, 100);
  using common::blk::RequestType;
  ASSERT_TRUE(rig.blk.read(0, data, 4096));
  ASSERT_TRUE(rig.blk.write(0, {data.value + 1}, 512 * 1024));
  ASSERT_TRUE(rig.blk.flush());
  ASSERT_TRUE(rig.blk.add(RequestType::kIn, 0, pieces, fakes::BlkDriver::Layout::kIndirect));
  ASSERT_TRUE(rig.blk.ranges(RequestType::kWriteZeroes, {&range, 1}));
  ASSERT_TRUE(rig.blk.ranges(RequestType::kDiscard, {&range, 1}));
  (void)rig.ring.publish();
  BareEngine engine(100);
  const auto queue = worker::BlkQueue::create(
      {rig.ram.memory(), rig.device, rig.ring.ring_start(rig.features), &engine, &rig.status});

  EXPECT_EXIT(
      {
        worker::lock_heap();
        const WorkerExit exit = queue->run();
        _exit(exit == WorkerExit::kStopped && rig.ring.used_idx() == 6 ? 0 : 1);
      },
      testing::ExitedWithCode(0), "");
}

// --- another CPU ------------------------------------------------------------------------------

// A guest that really runs beside us: whatever the interleaving, no request is lost and nobody
// sleeps for ever. ThreadSanitizer checks the ring's ordering here.
void serve_beside_a_guest(const GuestDriver::Options& options, std::uint32_t poll_us) {
  constexpr std::uint32_t kRequests = 2'000;
  BlkRig rig(options);
  rig.number_sectors();
  rig.device.poll_us = poll_us;
  rig.engine.live = true;
  rig.engine.forget_requests();
  const GuestAddr data = rig.ram.alloc(512);
  const auto queue = rig.make_queue();
  WorkerExit exit = WorkerExit::kHostFault;
  std::thread device([&] { exit = queue->run(); });

  std::uint32_t sent = 0;
  std::uint32_t good = 0;
  while (good < kRequests) {
    const bool had_room = sent < kRequests && rig.blk.read(sent % 64, data, 512).has_value();
    sent += had_room;
    if (had_room && rig.ring.publish()) rig.engine.kick();
    while (const auto answer = rig.blk.next()) good += answer->status == 0;
    if (!had_room) std::this_thread::yield();
  }
  rig.engine.stop();
  device.join();
  EXPECT_EQ(exit, WorkerExit::kStopped);
  EXPECT_EQ(good, kRequests);
}

TEST(QueueBesideAGuest, LosesNoRequestWithEventIdx) { serve_beside_a_guest({.queue_size = 16}, 0); }

TEST(QueueBesideAGuest, LosesNoRequestWithoutEventIdx) {
  serve_beside_a_guest({.queue_size = 16, .event_idx = false}, 0);
}

TEST(QueueBesideAGuest, LosesNoRequestWhilePolling) {
  serve_beside_a_guest({.queue_size = 16}, 20);
}

// The guest sleeps until its bell rings: a lost interrupt would hang this test.
TEST(QueueBesideAGuest, LosesNoInterrupt) {
  constexpr std::uint32_t kRequests = 2'000;
  BlkRig rig({.queue_size = 16});
  rig.engine.live = true;
  rig.engine.forget_requests();
  const GuestAddr data = rig.ram.alloc(512);
  const auto queue = rig.make_queue();
  std::thread device([&] { (void)queue->run(); });

  std::uint32_t sent = 0;
  std::uint32_t good = 0;
  std::uint32_t heard = 0;
  while (good < kRequests) {
    while (sent < kRequests && rig.blk.read(sent % 64, data, 512)) ++sent;
    if (rig.ring.publish()) rig.engine.kick();
    while (const auto answer = rig.blk.next()) good += answer->status == 0;
    if (good == sent && sent == kRequests) break;
    if (rig.ring.free_descriptors() >= 3 && sent < kRequests) continue;
    if (rig.ring.enable_calls()) continue;
    while (rig.engine.bells() == heard) std::this_thread::yield();
    heard = rig.engine.bells();
  }
  rig.engine.stop();
  device.join();
  EXPECT_EQ(good, kRequests);
}

}  // namespace
