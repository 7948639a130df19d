// The life of rings and their workers: who starts, who is replaced, and what an end means.
#include <sys/eventfd.h>

#include <array>
#include <vector>

#include "tests/unit/session/harness.h"

namespace session_test {
namespace {

using Workers = SessionTest;
using Log = std::vector<std::string>;

const Log kReplaced = {"close 0", "open 0", "start 0", "serving 0"};

TEST_F(Workers, WorkerGetsMemoryRingAndEventfdsAndTheRingAsTheGuestSeesIt) {
  memory_.add({.guest_addr = 1ULL << 32, .bytes = kRam, .file_offset = 8192});
  start_device();
  const Start& start = broker().start_of(0);
  EXPECT_EQ(start.regions.size(), 2U);
  EXPECT_EQ(start.regions[1].guest_addr, 1ULL << 32);
  EXPECT_EQ(start.regions[1].bytes, kRam);
  EXPECT_EQ(start.regions[1].file_offset, 8192U);
  EXPECT_TRUE(same_file(start.files[1].ref(), memory_.file(1)));
  EXPECT_EQ(start.ring.queue_size, kRingSize);
  EXPECT_EQ(start.ring.desc_addr, desc_of(0));
  EXPECT_EQ(start.ring.avail_addr, avail_of(0));
  EXPECT_EQ(start.ring.used_addr, used_of(0));
  EXPECT_EQ(start.ring.features, kBlkFeatures);
  EXPECT_TRUE(same_file(start.kick.ref(), kick_.ref()));
  EXPECT_TRUE(same_file(start.call.ref(), call_.ref()));
}

TEST_F(Workers, RingWithoutKickIsPolled) {
  launch();
  negotiate();
  fe().set_mem_table(memory_);
  fe().set_vring_num(0, kRingSize);
  fe().set_vring_addr(addresses(0));
  fe().set_vring_enable(0, true);
  EXPECT_EQ(broker().take_log(), Log{});
  kick(0, common::FdRef{});
  EXPECT_EQ(broker().start_of(0).ring.has_kick, 0U);
  EXPECT_EQ(broker().start_of(0).ring.has_call, 0U);
}

TEST_F(Workers, GetVringBaseStopsTheRingUntilTheNextKick) {
  start_device();
  broker().report_next_avail(0, 65535);
  EXPECT_EQ(fe().get_vring_base(0), 65535U);
  EXPECT_EQ(broker().take_log(), Log{"close 0"});
  fe().set_vring_enable(0, true);
  EXPECT_EQ(fe().get_vring_base(0), 65535U);
  EXPECT_EQ(broker().take_log(), Log{});
  kick(0, kick_.ref());
  EXPECT_EQ(broker().take_log(), (Log{"open 0", "start 0", "serving 0"}));
  EXPECT_EQ(broker().start_of(0).ring.next_avail, 65535U);
}

TEST_F(Workers, GetVringBaseOfARingThatNeverRanGivesWhatWasSet) {
  launch();
  negotiate();
  EXPECT_EQ(fe().get_vring_base(5), 0U);
  fe().set_vring_base(5, 321);
  EXPECT_EQ(fe().get_vring_base(5), 321U);
}

TEST_F(Workers, HostileNextIndexIsCutToItsSixteenBits) {
  start_device();
  broker().report_next_avail(0, 0xdead'0007);
  EXPECT_EQ(fe().get_vring_base(0), 7U);
}

TEST_F(Workers, DisableDrainsAndKeepsKickAndBase) {
  start_device();
  broker().report_next_avail(0, 40);
  fe().set_vring_enable(0, false);
  EXPECT_EQ(broker().take_log(), Log{"close 0"});
  fe().set_vring_enable(0, false);
  fe().set_vring_enable(0, true);
  EXPECT_EQ(broker().take_log(), (Log{"open 0", "start 0", "serving 0"}));
  EXPECT_EQ(broker().start_of(0).ring.next_avail, 40U);
  EXPECT_TRUE(same_file(broker().start_of(0).kick.ref(), kick_.ref()));
}

TEST_F(Workers, BaseSetWhileRunningStartsOverFromIt) {
  start_device();
  broker().report_next_avail(0, 40);
  fe().set_vring_base(0, 5);
  EXPECT_EQ(broker().take_log(), kReplaced);
  EXPECT_EQ(broker().start_of(0).ring.next_avail, 5U);
  EXPECT_EQ(fe().get_vring_base(0), 40U);
}

TEST_F(Workers, NewKickWhileRunningReplacesTheWorker) {
  start_device();
  const common::Fd fresh = new_event();
  kick(0, fresh.ref());
  EXPECT_EQ(broker().take_log(), kReplaced);
  EXPECT_TRUE(same_file(broker().start_of(0).kick.ref(), fresh.ref()));
}

TEST_F(Workers, BrokenRingRingsItsErrorEventAndStaysStoppedUntilKicked) {
  start_device();
  const common::Fd broken = new_event();
  err(0, broken.ref());
  broker().end_queue(0, QueueOutcome::kGuestFault);
  EXPECT_EQ(broker().wait_event(EventCode::kQueueFault).numbers[0], 0U);
  EXPECT_TRUE(was_rung(broken.ref()));
  EXPECT_EQ(fe().get_u64(VhostRequest::kGetStatus), 64U);
  fe().set_vring_enable(0, true);
  EXPECT_EQ(broker().running(), 0U);
  (void)fe().get_vring_base(0);
  kick(0, kick_.ref());
  EXPECT_EQ(broker().running(), 1U);
}

TEST_F(Workers, QueueThatTheBrokerGivesUpIsReportedAndNotStartedAgain) {
  start_device();
  run_ring(1);
  const common::Fd broken = new_event();
  err(0, broken.ref());
  broker().end_queue(0, QueueOutcome::kGaveUp);
  EXPECT_EQ(broker().wait_event(EventCode::kQueueDied).numbers[0], 0U);
  EXPECT_TRUE(was_rung(broken.ref()));
  fe().barrier();
  EXPECT_EQ(broker().running(), 1U);
  EXPECT_EQ(broker().starts_of(0), 1U);
}

TEST_F(Workers, WorkerThatBreaksWhileItIsDrainedIsReportedAndTheAnswerStillComes) {
  start_device();
  broker().end_on_close_with(QueueOutcome::kGuestFault);
  broker().report_next_avail(0, 9);
  EXPECT_EQ(fe().get_vring_base(0), 9U);
  (void)broker().wait_event(EventCode::kQueueFault);
}

// A VM that is paused and goes on must not have old entries of its ring done a second time.
TEST_F(Workers, BrokenRingStartsAgainWhereItsWorkerHadGotTo) {
  start_device();
  broker().report_next_avail(0, 4711);
  broker().end_queue(0, QueueOutcome::kGuestFault);
  (void)broker().wait_event(EventCode::kQueueFault);
  EXPECT_EQ(fe().get_vring_base(0), 4711U);
}

TEST_F(Workers, RingOfADeadWorkerStartsAgainWhereThatHadGotTo) {
  start_device();
  broker().report_next_avail(0, 4711);
  broker().end_queue(0, QueueOutcome::kGaveUp);
  (void)broker().wait_event(EventCode::kQueueDied);
  EXPECT_EQ(fe().get_vring_base(0), 4711U);
}

TEST_F(Workers, WorkerThatCannotBeStartedLeavesTheBaseAlone) {
  launch();
  negotiate();
  fe().set_mem_table(memory_);
  configure(0, 7);
  broker().fail_starts(true);
  EXPECT_NE(
      fe().request_for_ack(VhostRequest::kSetVringEnable, fakes::bytes_of(fakes::VringState{0, 1})),
      0U);
  EXPECT_EQ(fe().get_vring_base(0), 7U);
}

TEST_F(Workers, WorkerThatCannotBeStartedIsARefusalOfTheMessageThatAskedForIt) {
  launch();
  negotiate();
  fe().set_mem_table(memory_);
  configure(0);
  broker().fail_starts(true);
  const fakes::VringState on{0, 1};
  EXPECT_NE(fe().request_for_ack(VhostRequest::kSetVringEnable, fakes::bytes_of(on)), 0U);
  EXPECT_EQ(broker().wait_event(EventCode::kQueueNotStarted).numbers[0], 0U);
  EXPECT_EQ(broker().take_log(), Log{"open 0"});
  broker().fail_starts(false);
  kick(0, kick_.ref());
  EXPECT_EQ(broker().running(), 1U);
}

TEST_F(Workers, WorkerThatDiesBeforeItServesIsReplacedUntilTheBrokerGivesUp) {
  launch();
  negotiate();
  fe().set_mem_table(memory_);
  configure(0);
  broker().workers_hang_up(true);
  const fakes::VringState on{0, 1};
  EXPECT_NE(fe().request_for_ack(VhostRequest::kSetVringEnable, fakes::bytes_of(on)), 0U);
  EXPECT_EQ(broker().starts_of(0), 4U);
}

TEST_F(Workers, WorkerThatSpeaksAnotherLanguageIsAFaultOfTheHost) {
  launch();
  negotiate();
  fe().set_mem_table(memory_);
  configure(0);
  broker().workers_babble(true);
  fe().ask_for_acks(false);
  fe().set_vring_enable(0, true);
  EXPECT_TRUE(fe().hung_up());
  EXPECT_EQ(end(), SessionExit::kHostFault);
}

TEST_F(Workers, ResetDeviceStopsAllRingsAndKeepsMemoryAndOwner) {
  start_device();
  run_ring(1);
  const common::Fd broken = new_event();
  err(0, broken.ref());
  fe().request(VhostRequest::kResetDevice);
  EXPECT_EQ(broker().running(), 0U);
  (void)broker().wait_event(EventCode::kDeviceReset);
  EXPECT_EQ(fe().get_vring_base(0), 0U);
  fe().set_features(kBlkFeatures | kBit30);
  run_ring(0);
  EXPECT_EQ(broker().running(), 1U);
  broker().end_queue(0, QueueOutcome::kGuestFault);
  (void)broker().wait_event(EventCode::kQueueFault);
  EXPECT_TRUE(was_rung(broken.ref()));
}

TEST_F(Workers, ResetForgetsTheDriversFeatures) {
  start_device();
  fe().request(VhostRequest::kResetDevice);
  run_ring();
  EXPECT_EQ(broker().running(), 0U);
  fe().set_features(kBlkFeatures | kBit30);
  EXPECT_EQ(broker().running(), 1U);
}

TEST_F(Workers, ResetClearsNeedsReset) {
  start_device();
  broker().end_queue(0, QueueOutcome::kGuestFault);
  (void)broker().wait_event(EventCode::kQueueFault);
  EXPECT_EQ(fe().get_u64(VhostRequest::kGetStatus) & 64, 64U);
  fe().set_u64(VhostRequest::kSetStatus, 0);
  EXPECT_EQ(fe().get_u64(VhostRequest::kGetStatus), 0U);
}

TEST_F(Workers, SixtyFourQueuesRunAndMoveToNewMemoryTogether) {
  auto start = blk_start();
  start.queues_max = 64;
  launch(start);
  negotiate();
  fakes::VmMemory memory;
  memory.add({.guest_addr = 0, .bytes = 4 << 20});
  fe().set_mem_table(memory);
  for (std::uint32_t queue = 0; queue < 64; ++queue) {
    fe().set_vring_num(queue, kRingSize);
    fe().set_vring_addr({queue, 0, memory.vmm_addr(desc_of(queue)), memory.vmm_addr(used_of(queue)),
                         memory.vmm_addr(avail_of(queue)), 0});
    kick(queue, kick_.ref());
    call(queue, call_.ref());
    fe().set_vring_enable(queue, true);
  }
  EXPECT_EQ(broker().running(), 64U);
  fe().add_mem_reg({1ULL << 40, kRam, 1ULL << 50, 0}, memory_.file(0));
  EXPECT_EQ(broker().running(), 64U);
  EXPECT_EQ(broker().starts_of(63), 2U);
  EXPECT_EQ(broker().start_of(63).regions.size(), 2U);
}

TEST_F(Workers, FiveHundredAndNineRegionsReachTheWorker) {
  launch();
  negotiate();
  fe().set_mem_table(memory_);
  for (std::uint64_t i = 1; i < 509; ++i) {
    fe().add_mem_reg({i << 32, 0x1000, i << 40, i * 0x100}, memory_.file(0));
  }
  run_ring();
  EXPECT_EQ(broker().start_of(0).regions.size(), 509U);
  EXPECT_EQ(broker().start_of(0).regions[508].file_offset, 508U * 0x100);
}

// All at once they would be more descriptors under way than Linux allows one user.
TEST_F(Workers, RingsOfManyRegionsStartOneAfterTheOther) {
  launch();
  negotiate();
  fe().set_mem_table(memory_);
  for (std::uint64_t i = 1; i < 509; ++i) {
    fe().add_mem_reg({i << 32, 0x1000, i << 40, 0}, memory_.file(0));
  }
  for (const std::uint32_t queue : {0U, 1U, 2U}) configure(queue);
  fe().set_features(kBlkFeatures);  // Without bit 30: all of them.
  EXPECT_EQ(broker().take_log(),
            (std::vector<std::string>{"open 0", "start 0", "serving 0", "open 1", "start 1",
                                      "serving 1", "open 2", "start 2", "serving 2"}));
}

TEST_F(Workers, FrontEndThatLeavesWhileAWorkerStartsEndsTheSessionAfterwards) {
  launch();
  negotiate();
  fe().set_mem_table(memory_);
  configure(0);
  fe().ask_for_acks(false);
  fe().set_vring_enable(0, true);
  EXPECT_EQ(end(), SessionExit::kPeerClosed);
}

TEST_F(Workers, EventsOfOneKindAreBoundedAndTheRestIsCounted) {
  start_device();
  for (int i = 0; i < 50; ++i) fe().request(VhostRequest::kResetOwner);
  broker().end_queue(0, QueueOutcome::kGuestFault);
  (void)broker().wait_event(EventCode::kQueueFault);
  EXPECT_EQ(broker().events_of(EventCode::kIgnoredRequest), 8U);
  EXPECT_EQ(end(), SessionExit::kPeerClosed);
  broker().wait_closed();
  EXPECT_EQ(broker().wait_event(EventCode::kEventsDropped).numbers[0], 42U);
}

TEST_F(Workers, ConnectedIsToldOnceWithBothKindsOfFeatures) {
  start_device();
  run_ring(1);
  const Event event = broker().wait_event(EventCode::kConnected);
  EXPECT_EQ(event.numbers[0], kBlkFeatures | kBit30);
  EXPECT_EQ(event.numbers[1], kAllProtocol);
  EXPECT_EQ(broker().events_of(EventCode::kConnected), 1U);
}

// Firmware, and then the system that it boots.
TEST_F(Workers, ConnectedIsToldAgainWhereAnotherDriverTakesOtherFeatures) {
  start_device();
  fe().set_vring_enable(0, false);
  (void)fe().get_vring_base(0);
  fe().set_u64(VhostRequest::kSetStatus, 0);
  fe().set_features((kBlkFeatures & ~kFlush) | kBit30);
  run_ring();
  EXPECT_EQ(end(), SessionExit::kPeerClosed);
  broker().wait_closed();
  EXPECT_EQ(broker().events_of(EventCode::kConnected), 2U);
}

TEST_F(Workers, FullErrorEventThatWouldBlockStopsNobody) {
  start_device();
  const common::Fd full(::eventfd(0, EFD_CLOEXEC));
  const std::uint64_t most = ~0ULL - 1;
  ASSERT_EQ(::write(full.ref().number, &most, sizeof(most)), 8);
  err(0, full.ref());
  broker().end_queue(0, QueueOutcome::kGuestFault);
  (void)broker().wait_event(EventCode::kQueueFault);
  fe().barrier();
}

// --- another broker ------------------------------------------------------------------------------

TEST_F(Workers, NextBrokerIsToldWhereAQueueIs) {
  launch();
  negotiate();
  broker().send(common::ipc::Resume{});
  fe().barrier();
  EXPECT_EQ(broker().take_log(), Log{"resumed 0"});
}

TEST_F(Workers, NextBrokerIsToldOfAWorkerThatServesAndCanStopIt) {
  start_device();
  (void)broker().take_log();
  broker().send(common::ipc::Resume{});
  fe().barrier();
  EXPECT_EQ(broker().take_log(), Log{"resumed 3"});
  broker().report_next_avail(0, 7);
  EXPECT_EQ(fe().get_vring_base(0), 7U);
  EXPECT_EQ(broker().take_log(), Log{"close 0"});
}

TEST_F(Workers, WorkerIsReplacedWhereTheBrokerAsks) {
  start_device();
  (void)broker().take_log();
  common::ipc::ReplaceWorker replace{};
  replace.kind = common::ipc::ReplaceWorker::kKind;
  broker().send(replace);
  fe().barrier();
  EXPECT_EQ(broker().take_log(), kReplaced);
}

TEST_F(Workers, WorkerThatIsNotThereIsNotReplaced) {
  start_device();
  (void)broker().take_log();
  common::ipc::ReplaceWorker replace{};
  replace.kind = common::ipc::ReplaceWorker::kKind;
  for (const std::uint32_t queue : {1U, 128U, ~0U}) {
    replace.queue = queue;
    broker().send(replace);
  }
  fe().barrier();
  EXPECT_EQ(broker().take_log(), Log{});
}

}  // namespace
}  // namespace session_test
