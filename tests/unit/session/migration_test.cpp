// A front-end that migrates its guest: where the log is, who is started with it, and when.
#include <signal.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <string>
#include <vector>

#include "tests/fakes/dirty_log.h"
#include "tests/unit/session/harness.h"

namespace session_test {
namespace {

using Log = std::vector<std::string>;

constexpr std::uint64_t kFeatures = kBlkFeatures | kBit30;

class Migration : public SessionTest {
 protected:
  void set_log() { fe().set_log_base(log_.description(), log_.file()); }
  // SET_VRING_ADDR with VHOST_VRING_F_LOG.
  [[nodiscard]] fakes::VringAddr logged(std::uint32_t queue) const {
    fakes::VringAddr addr = addresses(queue);
    addr.flags = fakes::kVringFlagLog;
    addr.log = used_of(queue);
    return addr;
  }
  [[nodiscard]] const common::ipc::RingStart& ring(std::uint32_t queue = 0) {
    return broker().start_of(queue).ring;
  }
  void send_log(const fakes::VhostLog& description, common::FdRef file) {
    fe().ask_for_acks(false);
    const std::array<common::FdRef, 1> fds = {file};
    fe().request(VhostRequest::kSetLogBase, fakes::bytes_of(description), fds);
  }

  fakes::DirtyLog log_{memory_};
};

TEST_F(Migration, LogBaseIsAnsweredWithItsDescriptionAndOnlyOnce) {
  launch();
  negotiate();
  fe().need_reply_on_gets(true);
  const std::array<common::FdRef, 1> fds = {log_.file()};
  const auto reply = fe().ask(VhostRequest::kSetLogBase, fakes::bytes_of(log_.description()), fds);
  EXPECT_EQ(reply.payload.size(), 16U);
  EXPECT_EQ(fe().get_queue_num(), 8U);  // Whatever else had been said would come before this.
}

TEST_F(Migration, LogThatNobodyWantsYetChangesNothing) {
  start_device();
  set_log();
  fe().barrier();
  EXPECT_EQ(broker().take_log(), Log{});
  EXPECT_EQ(ring().has_log, 0U);
}

TEST_F(Migration, WorkersAreReplacedOnceWhenQemuStartsLogging) {
  start_device();
  set_log();
  fe().set_features(kFeatures | kLogAll);
  fe().set_vring_addr(logged(0));
  fe().barrier();
  EXPECT_EQ(broker().take_log(), (Log{"close 0", "open 0", "start 0", "serving 0"}));
  EXPECT_EQ(ring().has_log, 1U);
  EXPECT_EQ(ring().log_offset, log_.description().mmap_offset);
  EXPECT_EQ(ring().log_bytes, log_.description().mmap_bytes);
  EXPECT_EQ(ring().log_used_addr, used_of(0));
  EXPECT_EQ(ring().log_everything, 0U);
  EXPECT_TRUE(same_file(broker().start_of(0).log.ref(), log_.file()));
}

TEST_F(Migration, WorkersAreReplacedOnceWhenQemuStopsLogging) {
  start_device();
  set_log();
  fe().set_features(kFeatures | kLogAll);
  fe().set_vring_addr(logged(0));
  (void)broker().take_log();
  fe().set_features(kFeatures);
  fe().set_vring_addr(addresses(0));
  fe().barrier();
  EXPECT_EQ(broker().take_log(), (Log{"close 0", "open 0", "start 0", "serving 0"}));
  EXPECT_EQ(ring().has_log, 0U);
}

TEST_F(Migration, LogAllAloneLogsTheUsedRingWhereItLies) {
  start_device();
  set_log();
  fe().set_features(kFeatures | kLogAll);  // As rust-vmm's front-ends.
  fe().barrier();
  EXPECT_EQ(ring().has_log, 1U);
  EXPECT_EQ(ring().log_used_addr, used_of(0));
}

TEST_F(Migration, RingFlagAloneLogsToo) {
  start_device();
  set_log();
  fe().set_vring_addr(logged(0));
  fe().barrier();
  EXPECT_EQ(ring().has_log, 1U);
}

TEST_F(Migration, UsedRingIsLoggedWhereTheFrontEndSaysAlsoOutsideTheMemoryTable) {
  start_device();
  const fakes::DirtyLog larger(log_.description().mmap_bytes + 4096, 0);
  fe().set_log_base(larger.description(), larger.file());
  fakes::VringAddr addr = logged(0);
  addr.log = kRam + 0x5000;
  fe().set_features(kFeatures | kLogAll);
  fe().set_vring_addr(addr);
  fe().barrier();
  EXPECT_EQ(ring().log_used_addr, kRam + 0x5000);
}

TEST_F(Migration, WhatIsLoggedIsNoFeatureOfTheDrivers) {
  start_device();
  set_log();
  const std::uint64_t before = ring().features;
  fe().set_features(kFeatures | kLogAll);
  fe().barrier();
  EXPECT_EQ(ring().features, before);
}

TEST_F(Migration, AnotherLogReplacesTheWorkersAndTheSameOneDoesNot) {
  start_device();
  set_log();
  fe().set_features(kFeatures | kLogAll);
  (void)broker().take_log();
  set_log();
  fe().barrier();
  EXPECT_EQ(broker().take_log(), Log{});
  const fakes::DirtyLog other(memory_, 0);
  fe().set_log_base(other.description(), other.file());
  EXPECT_EQ(broker().take_log(), (Log{"close 0", "open 0", "start 0", "serving 0"}));
  EXPECT_TRUE(same_file(broker().start_of(0).log.ref(), other.file()));
}

TEST_F(Migration, AllRingsAreReplacedTogetherAndKeepTheirPlace) {
  start_device();
  run_ring(1);
  run_ring(2);
  set_log();
  broker().report_next_avail(1, 77);
  (void)broker().take_log();
  fe().set_features(kFeatures | kLogAll);
  const Log log = broker().take_log();
  ASSERT_EQ(log.size(), 12U);
  EXPECT_EQ((Log{log[0], log[1], log[2]}), (Log{"close 0", "close 1", "close 2"}));
  EXPECT_EQ(ring(1).next_avail, 77U);
}

// --- rings that ran before there was a log ------------------------------------------------------

// QEMU's order where a device starts in the middle of a migration: LOG_ALL, rings, SET_LOG_BASE.
TEST_F(Migration, RingThatRanWithoutItsLogMarksEverythingInTheFirst) {
  launch();
  negotiate(kFeatures | kLogAll);
  fe().set_mem_table(memory_);
  run_ring();
  EXPECT_EQ(ring().has_log, 0U);
  set_log();
  EXPECT_EQ(ring().has_log, 1U);
  EXPECT_EQ(ring().log_everything, 1U);
}

TEST_F(Migration, OnceEverythingIsMarkedItIsNotMarkedAgain) {
  launch();
  negotiate(kFeatures | kLogAll);
  fe().set_mem_table(memory_);
  run_ring();
  set_log();
  const fakes::DirtyLog other(memory_, 0);
  fe().set_log_base(other.description(), other.file());
  EXPECT_EQ(ring().log_everything, 0U);
}

TEST_F(Migration, EverythingIsMarkedAgainByTheSuccessorOfOneThatDied) {
  launch();
  negotiate(kFeatures | kLogAll);
  fe().set_mem_table(memory_);
  run_ring();
  set_log();
  broker().end_queue(0, QueueOutcome::kDied);
  fe().barrier();
  EXPECT_EQ(broker().starts_of(0), 3U);
  EXPECT_EQ(ring().log_everything, 1U);
}

TEST_F(Migration, LogFromBeforeAllRingsWereStoppedIsUsedButNotReliedOn) {
  start_device();
  set_log();
  fe().set_features(kFeatures | kLogAll);
  (void)fe().get_vring_base(0);
  run_ring();
  EXPECT_EQ(ring().has_log, 1U);
  set_log();
  EXPECT_EQ(ring().log_everything, 1U);
}

TEST_F(Migration, WorkerThatFinishesForADeadOneLogsToo) {
  start_device();
  set_log();
  fe().set_features(kFeatures | kLogAll);
  broker().end_on_close_with(QueueOutcome::kDied);
  broker().then_end_on_close_with(QueueOutcome::kStopped);
  (void)fe().get_vring_base(0);
  EXPECT_EQ(ring().inflight_resume, 1U);
  EXPECT_EQ(ring().has_log, 1U);
}

// --- where the destination goes on
// ----------------------------------------------------------------

// QEMU 7.2: SET_STATUS 0, and then GET_VRING_BASE.
TEST_F(Migration, RingSaysWhereItStoppedAlsoAfterTheDeviceWasReset) {
  start_device();
  broker().report_next_avail(0, 4711);
  fe().set_u64(VhostRequest::kSetStatus, 0);
  EXPECT_EQ(fe().get_vring_base(0), 4711U);
  EXPECT_EQ(fe().get_vring_base(0), 4711U);
}

TEST_F(Migration, RingThatStoppedBeforeTheResetSaysSoToo) {
  start_device();
  broker().report_next_avail(0, 4711);
  (void)fe().get_vring_base(0);
  fe().set_u64(VhostRequest::kSetStatus, 0);
  fe().set_u64(VhostRequest::kSetStatus, 0);
  EXPECT_EQ(fe().get_vring_base(0), 4711U);
}

TEST_F(Migration, RingThatIsStartedAfterAResetWithoutABaseBeginsAnew) {
  start_device();
  broker().report_next_avail(0, 4711);
  fe().set_u64(VhostRequest::kSetStatus, 0);
  fe().set_features(kFeatures);
  fe().set_vring_num(0, kRingSize);
  fe().set_vring_addr(addresses(0));
  kick(0, kick_.ref());
  fe().set_vring_enable(0, true);
  EXPECT_EQ(ring().next_avail, 0U);
}

// --- hostile ------------------------------------------------------------------------------------

TEST_F(Migration, LogWithoutADescriptorEndsTheSession) {
  start_device();
  fe().ask_for_acks(false);
  fe().request(VhostRequest::kSetLogBase, fakes::bytes_of(log_.description()));
  EXPECT_EQ(expect_violation(EventCode::kTooFewFds).numbers[0], 6U);
}

TEST_F(Migration, LogInTheOldFormEndsTheSession) {
  start_device();
  fe().ask_for_acks(false);
  const std::uint64_t address = 0x7f0000000000;
  const std::array<common::FdRef, 1> fds = {log_.file()};
  fe().request(VhostRequest::kSetLogBase, fakes::bytes_of(address), fds);
  EXPECT_EQ(expect_violation(EventCode::kPayloadSize).numbers[1], 8U);
}

TEST_F(Migration, LogThatIsNoFileEndsTheSession) {
  start_device();
  send_log(log_.description(), kick_.ref());
  EXPECT_EQ(expect_violation(EventCode::kBadFdType).numbers[0], 6U);
}

TEST_F(Migration, LogBeyondItsFileEndsTheSession) {
  start_device();
  send_log({1ULL << 40, 0}, log_.file());
  EXPECT_EQ(expect_violation(EventCode::kLogBeyondFile).numbers[1], 1ULL << 40);
}

TEST_F(Migration, LogWhoseEndWrapsEndsTheSession) {
  start_device();
  send_log({UINT64_MAX, 4096}, log_.file());
  EXPECT_EQ(expect_violation(EventCode::kLogBeyondFile).numbers[0], 4096U);
}

TEST_F(Migration, EmptyLogEndsTheSession) {
  start_device();
  send_log({0, 0}, log_.file());
  EXPECT_EQ(expect_violation(EventCode::kLogBeyondFile).numbers[1], 0U);
}

TEST_F(Migration, LogTooSmallForTheMemoryEndsTheSessionAsSoonAsItIsWanted) {
  start_device();
  const fakes::VhostLog small{log_.description().mmap_bytes - 1, 4096};
  fe().set_log_base(small, log_.file());
  fe().ask_for_acks(false);
  fe().set_features(kFeatures | kLogAll);
  const Event event = expect_violation(EventCode::kLogTooSmall);
  EXPECT_EQ(event.numbers[1], log_.description().mmap_bytes);
  EXPECT_EQ(event.numbers[2], small.mmap_bytes);
}

TEST_F(Migration, LogTooSmallWhileOneIsWantedEndsTheSession) {
  launch();
  negotiate(kFeatures | kLogAll);
  fe().set_mem_table(memory_);
  run_ring();
  send_log({1, 4096}, log_.file());
  (void)expect_violation(EventCode::kLogTooSmall);
}

TEST_F(Migration, UsedRingBehindTheLogsEndEndsTheSession) {
  start_device();
  set_log();
  fe().ask_for_acks(false);
  fakes::VringAddr addr = logged(0);
  addr.log = log_.description().mmap_bytes * 8 * 4096 - 64;
  fe().set_vring_addr(addr);
  (void)expect_violation(EventCode::kLogTooSmall);
}

TEST_F(Migration, UsedRingThatWrapsInTheLogEndsTheSession) {
  start_device();
  set_log();
  fe().ask_for_acks(false);
  fakes::VringAddr addr = logged(0);
  addr.log = UINT64_MAX - 4;
  fe().set_vring_addr(addr);
  (void)expect_violation(EventCode::kLogTooSmall);
}

TEST_F(Migration, MemoryThatGrowsBeyondTheLogEndsTheSession) {
  start_device();
  set_log();
  fe().set_features(kFeatures | kLogAll);
  fe().ask_for_acks(false);
  fe().add_mem_reg({1ULL << 40, 0x1000, 1ULL << 40, 0}, memory_.file(0));
  (void)expect_violation(EventCode::kLogTooSmall);
}

TEST_F(Migration, MemoryMayGrowBeyondALogThatNobodyWantsAnyMore) {
  start_device();
  set_log();
  fe().set_features(kFeatures | kLogAll);
  fe().set_features(kFeatures);
  fe().add_mem_reg({1ULL << 40, 0x1000, 1ULL << 40, 0}, memory_.file(0));
  EXPECT_EQ(fe().get_queue_num(), 8U);
}

TEST_F(Migration, LogAllWithoutALogIsServedWithoutOne) {
  launch();
  negotiate(kFeatures | kLogAll);
  fe().set_mem_table(memory_);
  run_ring();
  EXPECT_EQ(broker().running(), 1U);
}

TEST_F(Migration, LogFdIsTakenAndNotKept) {
  start_device();
  const std::array<common::FdRef, 1> fds = {kick_.ref()};
  const std::size_t before = open_descriptors();
  fe().request(VhostRequest::kSetLogFd, {}, fds);
  fe().request(VhostRequest::kSetLogFd);
  EXPECT_EQ(open_descriptors(), before);
}

TEST_F(Migration, LogFdThatIsNoEventfdEndsTheSession) {
  start_device();
  fe().ask_for_acks(false);
  const std::array<common::FdRef, 1> fds = {log_.file()};
  fe().request(VhostRequest::kSetLogFd, {}, fds);
  (void)expect_violation(EventCode::kBadFdType);
}

// --- the device's own state, of which there is none ---------------------------------------------

class DeviceState : public SessionTest {
 protected:
  // The reply's number; our end of the pipe is `ours_`.
  std::uint64_t transfer(std::uint32_t direction, std::uint32_t phase = 0) {
    std::array<int, 2> ends{};
    fakes::require_call(::pipe(ends.data()) == 0, "pipe");
    const bool save = direction == 0;
    ours_ = common::Fd(ends[save ? 0 : 1]);
    const common::Fd theirs(ends[save ? 1 : 0]);
    const std::array<std::uint32_t, 2> payload = {direction, phase};
    const std::array<common::FdRef, 1> fds = {theirs.ref()};
    return fe().ask(VhostRequest::kSetDeviceStateFd, fakes::bytes_of(payload), fds).u64();
  }
  common::Fd ours_;
};

TEST_F(DeviceState, SavesNothingAndSaysSo) {
  start_device();
  EXPECT_EQ(transfer(0), 0x100U);
  char byte = 0;
  EXPECT_EQ(::read(ours_.ref().number, &byte, 1), 0);
  EXPECT_EQ(fe().get_u64(VhostRequest::kCheckDeviceState), 0U);
}

TEST_F(DeviceState, LoadsNothing) {
  start_device();
  EXPECT_EQ(transfer(1), 0x100U);
  ours_.reset();
  EXPECT_EQ(fe().get_u64(VhostRequest::kCheckDeviceState), 0U);
}

TEST_F(DeviceState, WhatIsToBeLoadedCannotBeWrittenRatherThanBlockTheFrontEnd) {
  start_device();
  EXPECT_EQ(transfer(1), 0x100U);
  struct sigaction ignore {};
  struct sigaction before {};
  ignore.sa_handler = SIG_IGN;
  ASSERT_EQ(::sigaction(SIGPIPE, &ignore, &before), 0);
  const std::array<char, 16> state{};
  EXPECT_EQ(::write(ours_.ref().number, state.data(), state.size()), -1);
  EXPECT_EQ(errno, EPIPE);
  ASSERT_EQ(::sigaction(SIGPIPE, &before, nullptr), 0);
}

TEST_F(DeviceState, CheckWithoutATransferFails) {
  start_device();
  EXPECT_NE(fe().get_u64(VhostRequest::kCheckDeviceState), 0U);
  EXPECT_EQ(transfer(0), 0x100U);
  EXPECT_EQ(fe().get_u64(VhostRequest::kCheckDeviceState), 0U);
  EXPECT_NE(fe().get_u64(VhostRequest::kCheckDeviceState), 0U);
}

TEST_F(DeviceState, UnknownDirectionOrPhaseIsRefused) {
  start_device();
  EXPECT_EQ(transfer(2), 0x101U);
  EXPECT_EQ(transfer(0, 1), 0x101U);
  EXPECT_NE(fe().get_u64(VhostRequest::kCheckDeviceState), 0U);
}

TEST_F(DeviceState, TransferWithoutADescriptorEndsTheSession) {
  start_device();
  fe().ask_for_acks(false);
  const std::array<std::uint32_t, 2> payload = {0, 0};
  fe().request(VhostRequest::kSetDeviceStateFd, fakes::bytes_of(payload));
  EXPECT_EQ(expect_violation(EventCode::kTooFewFds).numbers[0], 42U);
}

}  // namespace
}  // namespace session_test
