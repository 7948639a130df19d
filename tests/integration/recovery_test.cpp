// Processes die while a guest works: no request is lost or repeated, and the guest goes on.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "tests/fakes/hijack.h"
#include "tests/fakes/process.h"
#include "tests/integration/recovery_stories.h"
#include "tests/integration/verified_load.h"

namespace integration {
namespace {

using fakes::BlkClient;
using fakes::VhostRequest;
using testing::IsEmpty;
using testing::Not;

class Recovery : public RecoveryStories {
 protected:
  // It sleeps, so that it stands right behind a system call.
  void hijack_worker(std::uint32_t queue) {
    const std::vector<pid_t> victims = workers_of(queue);
    ASSERT_EQ(victims.size(), 1U);
    fakes::make_it_call(victims[0], SYS_getppid);
    ASSERT_TRUE(fakes::wait_gone(victims[0]));
  }
};
BULKHEAD_FOR_BOTH_ENGINES(Recovery);
class RecoveryOnDisk : public Recovery {};
BULKHEAD_FOR_ALL_SETTINGS(RecoveryOnDisk);

// --- workers ------------------------------------------------------------------------------------

TEST_P(RecoveryOnDisk, WorkerAfterWorkerDiesAndTheGuestNoticesNothing) {
  workers_die_and_the_guest_notices_nothing({.queues = 2});
}

TEST_P(RecoveryOnDisk, SameWithAFrontEndThatKnowsNoInflightTracking) {
  workers_die_under_a_front_end_without_tracking({});
}

TEST_P(Recovery, CrashIsSurvivedLikeAKill) {
  start();
  VerifiedLoad load(queue(0), {.depth = 8});
  for (int death = 0; death < 3; ++death) {
    load.expect_progress(20);
    const std::vector<pid_t> victims = workers_of(0);
    ASSERT_EQ(victims.size(), 1U);
    fakes::make_it_crash(victims[0]);
    ASSERT_TRUE(fakes::wait_gone(victims[0]));
  }
#ifndef BULKHEAD_SANITIZER  // Whose run-time takes the signal, reports it and exits.
  EXPECT_THAT(host_.broker().wait_for_line({"worker vda/0", "SIGSEGV"}), Not(IsEmpty()));
#endif
  load.expect_progress();
  load.stop();
}

TEST_P(Recovery, StoppedRingHasNothingInFlightEvenIfItsWorkerWasJustKilled) {
  ring_is_stopped_when_its_worker_was_just_killed({});
}

TEST_P(Recovery, CrashLoopEndsInABrokenRingAndOthersGoOn) {
  start({.queues = 2});
  VerifiedLoad other(queue(1), {.first_sector = 4096});
  std::atomic<bool> stop = false;
  std::thread killer([&] {
    while (!stop) {
      for (const pid_t pid : workers_of(0)) (void)::kill(pid, SIGKILL);
    }
  });
  EXPECT_THAT(host_.broker().wait_for_line({"queue 0 is not served any more"}), Not(IsEmpty()));
  stop = true;
  killer.join();
  EXPECT_TRUE(queue(0).error_signalled());
  other.expect_progress();
  other.stop();
  const std::uint32_t base = client_->stop_ring(0);
  client_->restart_ring(0, static_cast<std::uint16_t>(base));
  expect_serves(queue(0));
}

TEST_P(Recovery, WorkerThatItsJailKilledIsNotReplaced) {
  start();
  expect_serves(queue());
  hijack_worker(0);
  EXPECT_TRUE(queue(0).error_signalled());
  EXPECT_THAT(host_.broker().wait_for_line({"not served any more", "--on-worker-violation"}),
              Not(IsEmpty()));
  EXPECT_THAT(host_.workers(), IsEmpty());
}

TEST_P(Recovery, WorkerThatItsJailKilledIsReplacedWhereTheOperatorWantsThat) {
  start({}, {.options = {"--on-worker-violation=restart"}});
  expect_serves(queue());
  hijack_worker(0);
  EXPECT_THAT(host_.broker().wait_for_line({"queue 0 is served again"}), Not(IsEmpty()));
  expect_serves(queue());
}

// --- sessions -----------------------------------------------------------------------------------

TEST_P(RecoveryOnDisk, SessionDiesUnderLoadAndTheNextOneGoesOn) {
  start({.queues = 2});
  VerifiedLoad load(queue(0), {.depth = 8});
  VerifiedLoad other(queue(1), {.first_sector = 4096});
  for (int death = 0; death < 4; ++death) {
    load.expect_progress(30);
    ASSERT_EQ(::kill(host_.sessions().at(0), SIGKILL), 0);
    ASSERT_TRUE(client_->vhost().hung_up());
    reconnect();
    load.expect_progress(30);
  }
  load.stop();
  other.stop();
}

// Without tracking, nothing may be in flight when the front-end sees its connection end.
TEST_P(Recovery, SessionDiesUnderAFrontEndThatKnowsNoInflightTracking) {
  start({.protocol_features = ~fakes::kProtocolInflight});
  VerifiedLoad load(queue(0), {.depth = 8});
  for (int death = 0; death < 4; ++death) {
    load.expect_progress(30);
    ASSERT_EQ(::kill(host_.sessions().at(0), SIGKILL), 0);
    ASSERT_TRUE(client_->vhost().hung_up());
    reconnect();
  }
  load.expect_progress(30);
  load.stop();
}

TEST_P(RecoveryOnDisk, SessionAndWorkersDieTogetherAndNothingIsLost) {
  sessions_and_workers_die({.queues = 2}, false);
}

TEST_P(Recovery, BrokerAndAllItsChildrenAreKilledAndTheNextBrokerGoesOn) {
  broker_and_its_children_are_killed({.queues = 2});
}

// --- what changes under load --------------------------------------------------------------------

TEST_P(Recovery, CallEventfdsAreSwappedHundredsOfTimesWhileWorkersDie) {
  calls_are_swapped_while_workers_die({}, 300);
}

TEST_P(Recovery, RingsArePausedAndMemoryChangesWhileWorkersDie) {
  rings_pause_and_memory_changes_while_workers_die({}, 20);
}

// --- hostile in-flight files --------------------------------------------------------------------

TEST_P(Recovery, InflightFileThatShrinksCostsItsOwnDeviceOnly) {
  TwoDisks disks(GetParam());
  auto owner = std::make_unique<BlkClient>(
      disks.host().socket(), BlkClient::Options{.protocol_features = ~fakes::kProtocolInflight});
  BlkClient& client = *owner;
  expect_serves(client.queue());
  const common::Fd file(::memfd_create("inflight", MFD_CLOEXEC));
  ASSERT_EQ(::ftruncate(file.ref().number, 8192), 0);
  client.vhost().set_protocol_features(client.protocol_features() | fakes::kProtocolInflight);
  client.vhost().set_inflight_fd({.mmap_bytes = 8192, .queues = 1, .queue_size = 128}, file.ref());
  expect_serves(client.queue());
  ASSERT_EQ(::ftruncate(file.ref().number, 0), 0);
  const std::uint16_t slot = *client.queue().free_slot();
  const fakes::BlkSegment segment{client.queue().data_addr(slot), 4096};
  client.queue().prepare(slot, common::blk::RequestType::kIn, 0, {&segment, 1}, true);
  client.queue().send();
  EXPECT_TRUE(client.queue().error_signalled());
  owner.reset();
  disks.expect_broker_and_others_serve();
}

}  // namespace
}  // namespace integration
