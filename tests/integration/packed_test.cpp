// Disks and cards whose drivers have chosen packed rings: what dies, stops, resets or changes, as
// recovery_test.cpp and others have it for split ones.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <signal.h>

#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include "tests/fakes/dirty_log.h"
#include "tests/fakes/process.h"
#include "tests/integration/net_host.h"
#include "tests/integration/packet_flow.h"
#include "tests/integration/recovery_stories.h"
#include "tests/integration/verified_load.h"

namespace integration {
namespace {

using common::blk::RequestType;
using fakes::BlkClient;
using fakes::BlkSegment;
using fakes::VhostRequest;
using testing::IsEmpty;
using testing::Not;

class PackedRings : public RecoveryStories {
 protected:
  static Options packed(std::uint16_t queues = 1) {
    return {.queues = queues, .shape = {.packed = true}};
  }
  // The region has to say where the rings are.
  static Options packed_and_lost(std::uint16_t queues = 1) {
    Options options = packed(queues);
    options.forgets_places = true;
    return options;
  }
  void expect_load_is_served(const Options& with) {
    start(with);
    VerifiedLoad load(queue(), {.depth = 8});
    load.expect_progress(300);
    kill_worker(0);
    load.expect_progress(300);
    load.stop();
    (void)load.verify_all();
  }
};
BULKHEAD_FOR_BOTH_ENGINES(PackedRings);
class PackedRingsOnDisk : public PackedRings {};
BULKHEAD_FOR_ALL_SETTINGS(PackedRingsOnDisk);

// --- rings --------------------------------------------------------------------------------------

TEST_P(PackedRings, ServeAGuest) { expect_load_is_served(packed()); }

// 2.8.10.1; chains of several descriptors cross the end of the ring.
TEST_P(PackedRings, ServeASizeThatIsNoPowerOfTwoWithoutTablesAndEventIndex) {
  Options odd = packed();
  odd.shape.size = 100;
  odd.shape.indirect = odd.shape.event_idx = false;
  expect_load_is_served(odd);
}

TEST_P(PackedRings, PlaceOutsideTheRingEndsTheSessionWithALineThatSaysSo) {
  start(packed());
  client_->vhost().ask_for_acks(false);
  client_->vhost().set_vring_base(0, 0x8000'8080);
  EXPECT_TRUE(client_->vhost().hung_up());
  EXPECT_THAT(host_.broker().wait_for_line({"queue 0 the base 0x80008080"}), Not(IsEmpty()));
}

TEST_P(PackedRings, SplitRegionForPackedRingsEndsTheSessionWithALineThatSaysSo) {
  start(packed());
  const auto region = client_->vhost().get_inflight_fd(1, 128);
  client_->vhost().ask_for_acks(false);
  client_->vhost().set_inflight_fd({.mmap_bytes = 4096, .queues = 1, .queue_size = 128},
                                   region.file.ref());
  EXPECT_TRUE(client_->vhost().hung_up());
  EXPECT_THAT(host_.broker().wait_for_line({"SET_INFLIGHT_FD", "4096"}), Not(IsEmpty()));
}

// --- what dies ----------------------------------------------------------------------------------

TEST_P(PackedRingsOnDisk, WorkerAfterWorkerDiesAndTheGuestNoticesNothing) {
  workers_die_and_the_guest_notices_nothing(packed(2));
}

TEST_P(PackedRings, WorkersDieUnderAFrontEndThatKnowsNoInflightTracking) {
  workers_die_under_a_front_end_without_tracking(packed());
}

TEST_P(PackedRings, StoppedRingHasNothingInFlightEvenIfItsWorkerWasJustKilled) {
  ring_is_stopped_when_its_worker_was_just_killed(packed());
}

// The front-end gives back the region, and a place at which the ring has not been for long.
TEST_P(PackedRingsOnDisk, SessionsAndWorkersDieAndTheRegionSaysWhereToGoOn) {
  sessions_and_workers_die(packed_and_lost(2), true);
}

TEST_P(PackedRings, BrokerAndAllItsChildrenAreKilledAndTheNextBrokerGoesOn) {
  broker_and_its_children_are_killed(packed_and_lost());
}

TEST_P(PackedRings, AnotherBrokerTakesOverAndItsWorkersGoOn) {
  start(packed());
  VerifiedLoad load(queue(0), {.depth = 8});
  load.expect_progress(30);
  const std::vector<pid_t> adopted = workers_of(0);
  ASSERT_EQ(adopted.size(), 1U);
  host_.take_over(same_disk());
  load.expect_progress(30);
  ASSERT_EQ(::kill(adopted[0], SIGKILL), 0);
  ASSERT_TRUE(fakes::wait_gone(adopted[0]));
  load.expect_progress(30);
  client_->restart_ring(0, client_->stop_ring(0));
  load.expect_progress(30);
  load.stop();
}

// --- what changes under load --------------------------------------------------------------------

TEST_P(PackedRings, CallEventfdsAreSwappedWhileWorkersDie) {
  calls_are_swapped_while_workers_die(packed(), 120);
}

TEST_P(PackedRings, RingsArePausedAndMemoryChangesWhileWorkersDie) {
  rings_pause_and_memory_changes_while_workers_die(packed(), 12);
}

// Whether the front-end gives the region it has or a fresh one: the ring begins anew.
TEST_P(PackedRings, BeginAnewWhenTheGuestResetsItsDevice) {
  start(packed_and_lost());
  for (int round = 0; round < 3; ++round) {
    expect_serves(queue(), 64 + 1024 * static_cast<std::uint64_t>(round));
    (void)client_->stop_ring(0);
    client_->vhost().request(VhostRequest::kResetDevice);
    queue().ring() = fakes::ChainRing(queue().place(), client_->memory(), true, true);
    client_->vhost().set_features(client_->features());
    client_->start_all();
  }
  expect_serves(queue(), 8192);
}

// Whoever writes into the ring's pages, guest or device: they are marked.
TEST_P(PackedRings, EveryPageThatIsWrittenIsInTheMigrationsLog) {
  start(packed());
  fakes::DirtyLog log(client_->memory(), 4096 + 13);
  client_->set_log(log);
  client_->log_writes(true);
  for (std::uint8_t round = 0; round < 4; ++round) {
    fakes::BlkQueueDriver& into = queue();
    std::ranges::fill(into.data(0), std::byte(0xc0 + round));
    const BlkSegment all{into.data_addr(0), 64 * 1024};
    into.prepare(0, RequestType::kIn, 0, std::span(&all, 1), true);
    (void)log.take();
    const fakes::MemorySnapshot before(client_->memory());
    (void)into.ring().publish();
    into.kick();
    const auto give_up = std::chrono::steady_clock::now() + fakes::kPatience;
    while (!into.ring().has_used()) {
      ASSERT_LT(std::chrono::steady_clock::now(), give_up) << "queue 0 stands still";
      ::sched_yield();
    }
    const std::uint32_t base = client_->stop_ring(0);
    const fakes::Pages changed = before.changed();
    EXPECT_TRUE(changed.contains(into.place().desc / fakes::kLogPageBytes));
    EXPECT_EQ(fakes::missing(changed, log.take()), "") << "changed and not in the log";
    EXPECT_TRUE(log.nothing_outside_changed());
    client_->restart_ring(0, base);
    EXPECT_EQ(into.harvest()->status, kOk);
  }
}

// --- cards --------------------------------------------------------------------------------------

class PackedCards : public NetTest {
 protected:
  static fakes::NetClient::Options packed() {
    fakes::NetClient::Options options;
    options.packed = options.control = true;
    options.features = ~common::net::kFeatureMq;
    return options;
  }
};
BULKHEAD_FOR_BOTH_ENGINES(PackedCards);

TEST_P(PackedCards, SendReceiveAndTakeCommands) {
  start(packed(), {.options = {"--packed-rings=on"}});
  // More often than the rings are long.
  for (std::uint32_t seed = 0; seed < 300; ++seed) {
    expect_sends(0, seed);
    expect_receives(0, 1000 + seed);
  }
  const std::byte on{1};
  EXPECT_EQ(
      client().control_queue().command(static_cast<std::uint8_t>(common::net::ControlClass::kRx),
                                       common::net::kRxPromisc, {&on, 1}),
      common::net::kControlOk);
}

TEST_P(PackedCards, GoOnWhereAWorkerDied) {
  start(packed(), {.options = {"--packed-rings=on"}});
  PacketFlow flow(client(), port(), {.may_lose = true});
  for (int death = 0; death < 3; ++death) {
    flow.expect_progress();
    for (const pid_t pid : host().workers()) {
      EXPECT_EQ(::kill(pid, SIGKILL), 0);
      EXPECT_TRUE(fakes::wait_gone(pid));
    }
  }
  flow.expect_progress();
  flow.stop();
}

}  // namespace
}  // namespace integration
