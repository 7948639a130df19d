// Starting, pausing, stopping and losing queues, memory and processes while a guest works.
// Long because each of these is short, and they are read side by side.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <array>
#include <memory>

#include "tests/fakes/process.h"
#include "tests/integration/host.h"
#include "tests/integration/loop_device.h"
#include "tests/integration/verified_load.h"

namespace integration {
namespace {

using common::blk::RequestType;
using fakes::BlkClient;
using fakes::BlkSegment;
using fakes::VhostRequest;
using testing::IsEmpty;
using testing::Not;

constexpr int kPatienceMs = 10000;

class Running : public EngineTest {
 protected:
  void start(const BlkClient::Options& options = {}, const Disk& disk = {}) {
    host_.serve(disk);
    client_ = host_.connect(options);
  }
  fakes::VhostFrontend& vhost() { return client_->vhost(); }
  fakes::BlkQueueDriver& queue(std::uint32_t index = 0) { return client_->queue(index); }
  // A read of `sector` into slot 0 that nobody has been told about.
  void offer_read(fakes::BlkQueueDriver& queue, std::uint64_t sector) {
    const std::uint16_t slot = *queue.free_slot();
    const BlkSegment segment{queue.data_addr(slot), 4096};
    queue.prepare(slot, RequestType::kIn, sector, {&segment, 1}, true);
    (void)queue.driver().publish();
  }
  void expect_read_answered(fakes::BlkQueueDriver& queue, std::uint64_t sector) {
    const auto done = queue.wait(kPatienceMs);
    ASSERT_TRUE(done.has_value());
    EXPECT_EQ(done->status, kOk);
    EXPECT_TRUE(is_pattern(queue.data(done->slot).first(4096), sector));
  }
  std::unique_ptr<BlkClient> client_;
};
BULKHEAD_FOR_BOTH_ENGINES(Running);
class RunningOnDisk : public Running {};
BULKHEAD_FOR_ALL_SETTINGS(RunningOnDisk);

// --- starting ------------------------------------------------------------------------------------

TEST_P(Running, RingFilledBeforeItStartsIsServedWithoutAKick) {
  BlkClient::Options options;
  options.handshake = false;
  start(options);
  client_->negotiate_protocol();
  vhost().set_features(client_->offered());
  vhost().set_mem_table(client_->memory());
  offer_read(queue(), 40);
  client_->describe_ring(0, 0);
  client_->give_call(0);
  client_->give_kick(0);
  client_->enable(0, true);
  expect_read_answered(queue(), 40);
}

TEST_P(Running, KickBeforeEnableIsNotLost) {
  BlkClient::Options options;
  options.handshake = false;
  start(options);
  client_->negotiate_protocol();
  vhost().set_features(client_->offered());
  vhost().set_mem_table(client_->memory());
  client_->describe_ring(0, 0);
  client_->give_call(0);
  client_->give_kick(0);
  offer_read(queue(), 48);
  queue().kick();
  vhost().barrier();
  EXPECT_FALSE(queue().driver().has_used());
  client_->enable(0, true);
  expect_read_answered(queue(), 48);
}

TEST_P(Running, DisabledRingIsNotServed) {
  start();
  client_->enable(0, false);
  offer_read(queue(), 40);
  queue().kick();
  vhost().barrier();
  EXPECT_FALSE(queue().driver().has_used());
  client_->enable(0, true);
  expect_read_answered(queue(), 40);
}

TEST_P(Running, RingWithoutAKickDescriptorIsPolled) {
  start();
  EXPECT_EQ(client_->stop_ring(0), 0U);
  client_->describe_ring(0, 0);
  vhost().set_vring_fd(VhostRequest::kSetVringKick, 0, common::FdRef{});
  client_->give_call(0);
  client_->enable(0, true);
  for (std::uint64_t sector = 0; sector < 80; sector += 8) {
    offer_read(queue(), sector);
    expect_read_answered(queue(), sector);
  }
}

TEST_P(Running, RingWithoutACallDescriptorIsServedSilently) {
  start();
  vhost().set_vring_fd(VhostRequest::kSetVringCall, 0, common::FdRef{});
  offer_read(queue(), 16);
  queue().kick();
  const auto done = queue().poll(kPatienceMs);
  ASSERT_TRUE(done.has_value());
  EXPECT_EQ(done->status, kOk);
  client_->give_call(0);
  expect_serves(queue());
}

TEST_P(Running, KicksWithNothingBehindThemHarmNothing) {
  start();
  for (int i = 0; i < 100; ++i) queue().kick();
  expect_serves(queue());
}

TEST_P(Running, KickCounterThatIsFullHarmsNothing) {
  start();
  const std::uint64_t most = 0xfffffffffffffffe;
  ASSERT_EQ(::write(queue().kick_fd().number, &most, sizeof(most)),
            static_cast<ssize_t>(sizeof(most)));
  expect_serves(queue());
}

TEST_P(Running, CallCounterThatIsFullStopsNothing) {
  start();
  const std::uint64_t most = 0xfffffffffffffffe;
  ASSERT_EQ(::write(queue().doorbell().current().number, &most, sizeof(most)),
            static_cast<ssize_t>(sizeof(most)));
  for (int i = 0; i < 50; ++i) {
    offer_read(queue(), 8);
    // As a guest that wants an interrupt for it and does not come to look at its bell.
    (void)queue().driver().enable_interrupts();
    queue().kick();
    ASSERT_TRUE(queue().poll(kPatienceMs).has_value());
  }
  expect_serves(queue());
}

// A VMM whose call eventfd blocks when it is full: the bell cannot be rung, and nobody else waits.
TEST_P(Running, BlockingCallThatIsFullHoldsUpNobodyElse) {
  start({.queues = 2, .acks = false});
  const common::Fd full(::eventfd(0, EFD_CLOEXEC));
  const std::uint64_t most = 0xfffffffffffffffe;
  ASSERT_EQ(::write(full.ref().number, &most, sizeof(most)), static_cast<ssize_t>(sizeof(most)));
  vhost().set_vring_fd(VhostRequest::kSetVringCall, 0, full.ref());
  for (int i = 0; i < 4; ++i) {
    offer_read(queue(0), 8);
    (void)queue(0).driver().enable_interrupts();
    queue(0).kick();
  }
  VerifiedLoad other(queue(1), {.first_sector = 4096});
  other.expect_progress();
  other.stop();
  client_.reset();
  expect_serves(host_.connect()->queue());
}

TEST_P(Running, PolledRingStopsWhenItIsAskedTo) {
  start();
  EXPECT_EQ(client_->stop_ring(0), 0U);
  client_->describe_ring(0, 0);
  vhost().set_vring_fd(VhostRequest::kSetVringKick, 0, common::FdRef{});
  client_->give_call(0);
  client_->enable(0, true);
  offer_read(queue(), 8);
  expect_read_answered(queue(), 8);
  EXPECT_EQ(client_->stop_ring(0), 1U);
  EXPECT_TRUE(host_.workers().empty());
}

// --- pausing and stopping ------------------------------------------------------------------------

TEST_P(RunningOnDisk, PauseAndResumeByEnableUnderLoadLosesNothing) {
  start({.queues = 2});
  VerifiedLoad first(queue(0), {.first_sector = 0});
  VerifiedLoad second(queue(1), {.first_sector = 4096});
  for (int round = 0; round < 20; ++round) {
    for (std::uint32_t i = 0; i < 2; ++i) client_->enable(i, false);
    for (std::uint32_t i = 0; i < 2; ++i) client_->enable(i, true);
    first.expect_progress(20);
    second.expect_progress(20);
  }
  first.stop();
  second.stop();
}

TEST_P(RunningOnDisk, StopUnderLoadDrainsAndTheBaseIsWhereItGoesOn) {
  start();
  VerifiedLoad load(queue(), {.depth = 8});
  for (int round = 0; round < 15; ++round) {
    load.expect_progress(20);
    const std::uint32_t base = client_->stop_ring(0);
    // Drained: everything that was taken has been answered.
    EXPECT_EQ(base, queue().driver().used_idx());
    client_->restart_ring(0, static_cast<std::uint16_t>(base));
  }
  load.expect_progress(20);
  load.stop();
}

TEST_P(Running, BaseOfAnIdleRingIsTheNumberOfRequestsSoFar) {
  start();
  for (int i = 0; i < 5; ++i) ASSERT_EQ(queue().flush(), kOk);
  EXPECT_EQ(client_->stop_ring(0), 5U);
}

TEST_P(Running, BaseOfARingThatNeverRanIsWhatWasSet) {
  start({.queues = 2});
  (void)client_->stop_ring(1);
  vhost().set_vring_base(1, 77);
  EXPECT_EQ(vhost().get_vring_base(1), 77U);
}

TEST_P(Running, StoppedRingTouchesNeitherMemoryNorBell) {
  start();
  const std::uint32_t base = client_->stop_ring(0);
  offer_read(queue(), 8);
  queue().kick();
  vhost().barrier();
  EXPECT_EQ(queue().driver().used_idx(), base);
  EXPECT_FALSE(queue().doorbell().wait(0));
}

TEST_P(Running, DeviceResetStopsTheRingsAndKeepsTheMemory) {
  start();
  expect_serves(queue());
  vhost().request(VhostRequest::kResetDevice);
  EXPECT_TRUE(host_.workers().empty());
  queue().driver() = fakes::SplitDriver(queue().place(), client_->memory(), true);
  client_->choose_features();
  client_->restart_ring(0, 0);
  expect_serves(queue(), 128);
}

// --- interrupts ----------------------------------------------------------------------------------

TEST_P(RunningOnDisk, CallSwappedHundredsOfTimesUnderLoadLosesNoInterrupt) {
  start();
  VerifiedLoad load(queue(), {.depth = 2});
  load.expect_progress(20);
  for (int swap = 0; swap < 300; ++swap) {
    const common::FdRef fresh = queue().doorbell().replace();
    vhost().set_vring_fd(VhostRequest::kSetVringCall, 0, fresh);
    queue().doorbell().drop_old();
    if (swap % 25 == 0) load.expect_progress(5);
  }
  load.expect_progress(20);
  load.stop();
}

TEST_P(Running, CallSwappedWhileARequestIsDoneIsRung) {
  start();
  for (int i = 0; i < 50; ++i) {
    offer_read(queue(), 8);
    (void)queue().driver().enable_interrupts();
    queue().kick();
    const common::FdRef fresh = queue().doorbell().replace();
    vhost().set_vring_fd(VhostRequest::kSetVringCall, 0, fresh);
    queue().doorbell().drop_old();
    ASSERT_TRUE(queue().wait(kPatienceMs).has_value()) << "after swap " << i;
  }
}

// A sealed io_uring worker is given the new eventfd by the broker; the fallback is replaced.
TEST_P(Running, SwapOfTheCallKeepsTheWorkerWhereItsRingTakesTheNewOne) {
  start();
  expect_serves(queue());
  const std::vector<pid_t> before = host_.workers();
  for (int i = 0; i < 20; ++i) {
    vhost().set_vring_fd(VhostRequest::kSetVringCall, 0, queue().doorbell().replace());
    queue().doorbell().drop_old();
  }
  expect_serves(queue());
  EXPECT_EQ(host_.workers() == before, std::string(GetParam().engine) == "io_uring");
}

TEST_P(Running, KickReplacedWhileRunningIsHeard) {
  start();
  expect_serves(queue());
  const common::Fd fresh(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  vhost().set_vring_fd(VhostRequest::kSetVringKick, 0, fresh.ref());
  offer_read(queue(), 24);
  const std::uint64_t one = 1;
  ASSERT_EQ(::write(fresh.ref().number, &one, sizeof(one)), static_cast<ssize_t>(sizeof(one)));
  expect_read_answered(queue(), 24);
}

// --- memory --------------------------------------------------------------------------------------

TEST_P(RunningOnDisk, SameMemTableSentAgainUnderLoadLosesNothing) {
  start();
  VerifiedLoad load(queue(), {});
  for (int i = 0; i < 30; ++i) {
    vhost().set_mem_table(client_->memory());
    if (i % 5 == 0) load.expect_progress(10);
  }
  load.expect_progress();
  load.stop();
}

TEST_P(RunningOnDisk, MemTableThatGrowsAndShrinksUnderLoadLosesNothing) {
  start();
  VerifiedLoad load(queue(), {});
  fakes::VmMemory more;
  more.add({.guest_addr = 0x300000000, .bytes = 1 << 20});
  std::vector<fakes::VmRegion> regions = client_->memory().regions();
  std::vector<common::FdRef> files = client_->memory().files();
  regions.push_back(more.regions()[0]);
  files.push_back(more.file(0));
  for (int i = 0; i < 10; ++i) {
    vhost().set_mem_table(regions, files);
    load.expect_progress(10);
    vhost().set_mem_table(client_->memory());
    load.expect_progress(10);
  }
  load.stop();
}

TEST_P(Running, MemoryAddedWhileRunningIsUsable) {
  start();
  expect_serves(queue());
  fakes::VmMemory more;
  more.add({.guest_addr = 0x300000000, .bytes = 1 << 20});
  vhost().add_mem_reg(more.regions()[0], more.file(0));
  const BlkSegment segment{0x300000000, 4096};
  EXPECT_EQ(queue().perform(RequestType::kIn, 8, {&segment, 1}, true).status, kOk);
  EXPECT_TRUE(is_pattern(more.span(0x300000000, 4096), 8));
}

TEST_P(RunningOnDisk, RegionsAddedAndRemovedUnderLoadLoseNothing) {
  start();
  VerifiedLoad load(queue(), {});
  fakes::VmMemory more;
  more.add({.guest_addr = 0x300000000, .bytes = 1 << 20});
  for (int i = 0; i < 15; ++i) {
    vhost().add_mem_reg(more.regions()[0], more.file(0));
    load.expect_progress(5);
    vhost().rem_mem_reg(more.regions()[0]);
    load.expect_progress(5);
  }
  load.stop();
}

TEST_P(Running, RingWhoseMemoryGoesAndComesBackServesAgain) {
  start();
  expect_serves(queue());
  const fakes::VmRegion region = client_->memory().regions()[0];
  vhost().rem_mem_reg(region);
  offer_read(queue(), 8);
  queue().kick();
  vhost().barrier();
  EXPECT_FALSE(queue().driver().has_used());
  vhost().add_mem_reg(region, client_->memory().file(0));
  expect_read_answered(queue(), 8);
}

TEST_P(Running, RemovedMemoryIsNotTouchedAnyMore) {
  start();
  const fakes::VmRegion spare = client_->memory().regions()[2];
  ASSERT_EQ(spare.guest_addr, BlkClient::kSpareAddr);
  vhost().rem_mem_reg(spare);
  queue().driver().set_desc(0, queue().scratch(), 16, common::kDescNext, 1);
  queue().driver().set_desc(1, spare.guest_addr, 512, common::kDescWrite, 0);
  queue().driver().offer(0);
  (void)queue().driver().publish();
  queue().kick();
  EXPECT_TRUE(queue().error_signalled());
  EXPECT_NE(host_.broker().wait_for_line({"outside its memory"}), "");
  EXPECT_TRUE(is_zero(client_->memory().span(spare.guest_addr, 512)));
}

// --- processes -----------------------------------------------------------------------------------

TEST_P(Running, KilledSessionEndsItsWorkersAndTheDeviceWaitsForTheNext) {
  start({.queues = 2});
  expect_serves(queue());
  const std::vector<pid_t> workers = host_.workers();
  ASSERT_EQ(::kill(host_.sessions().at(0), SIGKILL), 0);
  EXPECT_TRUE(vhost().hung_up());
  EXPECT_THAT(host_.broker().wait_for_line({"session", "SIGKILL"}), Not(IsEmpty()));
  for (const pid_t worker : workers) EXPECT_TRUE(fakes::wait_gone(worker));
  client_.reset();
  expect_serves(host_.connect()->queue());
}

TEST_P(Running, VmmThatGoesAwayTakesItsProcessesAlong) {
  start({.queues = 3});
  std::vector<pid_t> jailed = host_.workers();
  const std::vector<pid_t> sessions = host_.sessions();
  jailed.insert(jailed.end(), sessions.begin(), sessions.end());
  ASSERT_EQ(jailed.size(), 4U);
  client_.reset();
  for (const pid_t pid : jailed) EXPECT_TRUE(fakes::wait_gone(pid));
}

TEST_P(Running, NextVmmIsServedRightAfterOneThatVanishedUnderLoad) {
  host_.serve();
  for (int round = 0; round < 5; ++round) {
    client_ = host_.connect();
    // A part of the disk that only this round writes.
    VerifiedLoad load(queue(), {.first_sector = 1024ULL * static_cast<unsigned>(round)});
    load.expect_progress(10);
    vhost().disconnect();
    load.abandon();
  }
}

TEST_P(RunningOnDisk, SigtermDrainsAndEndsEverything) {
  start({.queues = 2});
  VerifiedLoad load(queue(1), {});
  load.expect_progress();
  const std::vector<pid_t> tree = fakes::tree_of(host_.broker().pid());
  host_.broker().signal(SIGTERM);
  EXPECT_EQ(host_.broker().wait_exit(), 0);
  for (const pid_t pid : tree) EXPECT_TRUE(fakes::wait_gone(pid));
  EXPECT_NE(::access(host_.socket().c_str(), F_OK), 0);
  load.abandon();
}

TEST_P(Running, BrokerThatIsStartedAgainAtOnceServesTheSameDisk) {
  for (int round = 0; round < 3; ++round) {
    start();
    VerifiedLoad load(queue(), {});
    load.expect_progress(20);
    host_.broker().signal(SIGTERM);
    EXPECT_EQ(host_.broker().wait_exit(), 0);
    load.abandon();
  }
}

TEST_P(Running, BrokerThatIsStartedAgainAfterItWasKilledServesTheSameDisk) {
  start({}, {.options = {"--orphans=end"}});
  VerifiedLoad load(queue(), {});
  load.expect_progress(20);
  host_.broker().signal(SIGKILL);
  (void)host_.broker().wait_exit();
  load.abandon();
  start({}, {.options = {"--orphans=end"}});
  expect_serves(queue(), 4096);
}

// A block device is claimed as well as locked, and a ring lets go of both some time after its end.
TEST_P(Running, BrokerThatIsStartedAgainAfterItWasKilledServesTheSameBlockDevice) {
  const std::string image = host_.file("loop.img");
  make_image(image, 8 << 20);
  const LoopDevice loop(image);
  if (!loop.valid()) GTEST_SKIP() << "no loop device can be made here";
  for (int round = 0; round < 10; ++round) {
    start({}, {.options = {"--direct=on", "--orphans=end"}, .file = loop.path()});
    expect_serves(queue());
    host_.broker().signal(SIGKILL);
    (void)host_.broker().wait_exit();
  }
}

TEST_P(Running, SigintEndsItToo) {
  start();
  host_.broker().signal(SIGINT);
  EXPECT_EQ(host_.broker().wait_exit(), 0);
}

TEST_P(Running, KilledBrokerLeavesNothingBehindWhereOrphansAreToEnd) {
  start({.queues = 2}, {.options = {"--orphans=end"}});
  expect_serves(queue());
  const std::vector<pid_t> tree = fakes::tree_of(host_.broker().pid());
  ASSERT_GE(tree.size(), 4U);
  host_.broker().signal(SIGKILL);
  EXPECT_EQ(host_.broker().wait_exit(), 128 + SIGKILL);
  for (const pid_t pid : tree) EXPECT_TRUE(fakes::wait_gone(pid));
}

}  // namespace
}  // namespace integration
