// In-flight tracking between a front-end, a session and its workers: which file each of them gets,
// and when a worker is told to resume.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cstring>
#include <vector>

#include "tests/unit/session/harness.h"

namespace session_test {
namespace {

using fakes::VhostInflight;
using Log = std::vector<std::string>;

class Inflight : public SessionTest {
 protected:
  void start_with_region() {
    launch();
    negotiate();
    region_ = fe().get_inflight_fd(2, kRingSize);
    fe().set_inflight_fd(region_.description, region_.file.ref());
    fe().set_mem_table(memory_);
    run_ring();
    (void)broker().take_log();
  }
  // As the front-end sees it.
  [[nodiscard]] std::uint64_t bytes_of_file() const {
    struct stat status {};
    EXPECT_EQ(::fstat(region_.file.ref().number, &status), 0);
    return static_cast<std::uint64_t>(status.st_size);
  }
  [[nodiscard]] const Start& newest() { return broker().start_of(0); }

  fakes::VhostFrontend::InflightFile region_;
};

// --- GET_INFLIGHT_FD ----------------------------------------------------------------------------

TEST_F(Inflight, FileHasRoomForEveryQueueInPagesOfItsOwn) {
  start_with_region();
  EXPECT_EQ(region_.description.mmap_offset, 0U);
  EXPECT_EQ(region_.description.queues, 2U);
  EXPECT_EQ(region_.description.queue_size, kRingSize);
  EXPECT_EQ(region_.description.mmap_bytes, 2U * 4096);
  EXPECT_EQ(bytes_of_file(), 2U * 4096);
}

TEST_F(Inflight, EveryQuestionBringsAFreshFile) {
  launch();
  negotiate();
  const auto first = fe().get_inflight_fd(1, 64);
  const auto second = fe().get_inflight_fd(1, 64);
  EXPECT_FALSE(same_file(first.file.ref(), second.file.ref()));
}

TEST_F(Inflight, AskingForeverHoldsNoMoreThanOneFile) {
  launch();
  negotiate();
  (void)fe().get_inflight_fd(8, 1024);
  const std::size_t before = open_descriptors();
  for (int i = 0; i < 200; ++i) (void)fe().get_inflight_fd(8, 1024);
  EXPECT_LE(open_descriptors(), before + 1);
}

class ImpossibleInflight
    : public SessionTest,
      public ::testing::WithParamInterface<std::pair<std::uint16_t, std::uint16_t>> {};
TEST_P(ImpossibleInflight, IsAnsweredByASizeOfZero) {
  launch();
  negotiate();
  const auto got = fe().get_inflight_fd(GetParam().first, GetParam().second);
  EXPECT_EQ(got.description.mmap_bytes, 0U);
  EXPECT_EQ(broker().inflight_files(), std::vector<std::uint64_t>{});
  EXPECT_EQ(fe().get_features(), kOffered);
}
INSTANTIATE_TEST_SUITE_P(Descriptions, ImpossibleInflight,
                         ::testing::Values(std::pair{0, 128}, std::pair{9, 128}, std::pair{1, 0},
                                           std::pair{1, 1025}, std::pair{65535, 65535}));

TEST_F(Inflight, BrokerThatCannotMakeAFileMakesTheAnswerZero) {
  launch();
  negotiate();
  broker().refuse_inflight(true);
  EXPECT_EQ(fe().get_inflight_fd(1, 64).description.mmap_bytes, 0U);
}

TEST_F(Inflight, ShortDescriptionOfTheSpecificationIsAnsweredInKind) {
  launch();
  negotiate();
  const VhostInflight wanted{.queues = 1, .queue_size = 64};
  const fakes::VhostReply reply =
      fe().ask(VhostRequest::kGetInflightFd, fakes::bytes_of(wanted).first(20));
  EXPECT_EQ(reply.payload.size(), 20U);
  EXPECT_TRUE(reply.file.valid());
  fe().request(VhostRequest::kSetInflightFd, reply.payload, std::array{reply.file.ref()});
}

// --- which file a worker gets -------------------------------------------------------------------

TEST_F(Inflight, WorkersGetTheirPartOfTheFrontEndsFile) {
  start_with_region();
  run_ring(1);
  const Start& start = broker().start_of(1);
  ASSERT_TRUE(start.inflight.valid());
  EXPECT_TRUE(same_file(start.inflight.ref(), region_.file.ref()));
  EXPECT_EQ(start.ring.inflight_offset, 4096U);
  EXPECT_EQ(start.ring.inflight_entries, kRingSize);
}

TEST_F(Inflight, FrontEndWithoutTheFeatureGetsAFileOfOurOwnForItsWorkers) {
  launch();
  negotiate(kBlkFeatures | kBit30, kAllProtocol & ~fakes::kProtocolInflight);
  fe().set_mem_table(memory_);
  run_ring();
  ASSERT_TRUE(newest().inflight.valid());
  EXPECT_EQ(newest().ring.inflight_resume, 0U);
  EXPECT_EQ(newest().ring.inflight_entries, kRingSize);
  EXPECT_EQ(broker().inflight_files().size(), 1U);
  run_ring(1);
  EXPECT_EQ(broker().inflight_files().size(), 1U);
  EXPECT_NE(broker().start_of(1).ring.inflight_offset, newest().ring.inflight_offset);
}

TEST_F(Inflight, QueueBeyondTheFrontEndsFileUsesOurs) {
  start_with_region();
  run_ring(2);
  const Start& start = broker().start_of(2);
  ASSERT_TRUE(start.inflight.valid());
  EXPECT_FALSE(same_file(start.inflight.ref(), region_.file.ref()));
}

TEST_F(Inflight, RegionOfAnotherBackEndIsReadAsItWasLaidOut) {
  start_with_region();
  // 16 + 128 * 16 bytes, rounded up to 64: two of these are less than two pages.
  VhostInflight packed = region_.description;
  packed.mmap_bytes = 2 * 2112;
  packed.mmap_offset = 64;
  fe().set_inflight_fd(packed, region_.file.ref());
  run_ring(1);
  EXPECT_EQ(broker().start_of(1).ring.inflight_offset, 64U + 2112);
}

TEST_F(Inflight, OtherFileWhileARingRunsReplacesItsWorkerAndTheSameOneDoesNot) {
  start_with_region();
  fe().set_inflight_fd(region_.description, region_.file.ref());
  EXPECT_EQ(broker().take_log(), Log{});
  const auto other = fe().get_inflight_fd(2, kRingSize);
  fe().set_inflight_fd(other.description, other.file.ref());
  EXPECT_EQ(broker().take_log(), (Log{"close 0", "open 0", "start 0", "serving 0"}));
  EXPECT_TRUE(same_file(newest().inflight.ref(), other.file.ref()));
}

// --- resuming -----------------------------------------------------------------------------------

TEST_F(Inflight, FrontEndsFileMayKnowOfRequestsFromBeforeThisSession) {
  start_with_region();
  EXPECT_EQ(newest().ring.inflight_resume, 1U);
}

class Deaths : public Inflight, public ::testing::WithParamInterface<bool> {
 protected:
  void start() {
    if (GetParam()) return start_with_region();
    launch();
    negotiate();
    fe().set_mem_table(memory_);
    run_ring();
    (void)broker().take_log();
  }
};
INSTANTIATE_TEST_SUITE_P(Whose, Deaths, ::testing::Bool(),
                         [](const auto& each) { return each.param ? "FrontEnds" : "Ours"; });

TEST_P(Deaths, WorkerIsReplacedAndResumesAndNobodyIsTold) {
  start();
  const common::Fd broken = new_event();
  err(0, broken.ref());
  broker().end_queue(0, QueueOutcome::kDied);
  fe().barrier();
  EXPECT_EQ(broker().take_log(), (Log{"open 0", "start 0", "serving 0"}));
  EXPECT_EQ(newest().ring.inflight_resume, 1U);
  EXPECT_TRUE(same_file(newest().kick.ref(), kick_.ref()));
  EXPECT_TRUE(same_file(newest().call.ref(), call_.ref()));
  EXPECT_EQ(fe().get_u64(VhostRequest::kGetStatus) & 64, 0U);
  EXPECT_EQ(broker().events_of(EventCode::kQueueDied), 0U);
}

TEST_P(Deaths, DeathWhileARingIsDrainedIsFollowedByAWorkerThatDrains) {
  start();
  broker().end_on_close_with(QueueOutcome::kDied);
  broker().then_end_on_close_with(QueueOutcome::kStopped);
  broker().report_next_avail(0, 77);
  EXPECT_EQ(fe().get_vring_base(0), 77U);
  EXPECT_EQ(broker().take_log(), (Log{"close 0", "open 0", "start 0", "serving 0", "close 0"}));
  EXPECT_EQ(newest().ring.inflight_resume, 1U);
  EXPECT_TRUE(newest().call.valid());
}

TEST_P(Deaths, DeathWhileMemoryChangesIsResumedInTheNewMemory) {
  start();
  broker().end_on_close_with(QueueOutcome::kDied);
  fe().add_mem_reg({1ULL << 40, kRam, 1ULL << 50, 0}, memory_.file(0));
  EXPECT_EQ(newest().ring.inflight_resume, 1U);
  EXPECT_EQ(newest().regions.size(), 2U);
}

TEST_P(Deaths, ResumeWaitsForMemoryThatComesBack) {
  start();
  broker().end_on_close_with(QueueOutcome::kDied);
  const auto region = memory_.regions()[0];
  fe().rem_mem_reg(region);
  EXPECT_EQ(broker().running(), 0U);
  fe().add_mem_reg(region, memory_.file(0));
  EXPECT_EQ(broker().running(), 1U);
  EXPECT_EQ(newest().ring.inflight_resume, 1U);
}

TEST_P(Deaths, ResetForgetsWhatWasInFlight) {
  start();
  broker().end_on_close_with(QueueOutcome::kDied);
  fe().request(VhostRequest::kResetDevice);
  EXPECT_EQ(broker().running(), 0U);
  broker().end_on_close_with(QueueOutcome::kStopped);
  fe().set_features(kBlkFeatures | kBit30);
  run_ring();
  EXPECT_EQ(newest().ring.inflight_resume, 0U);
}

TEST_P(Deaths, BaseSetWhileRunningForgetsWhatWasInFlight) {
  start();
  broker().end_on_close_with(QueueOutcome::kDied);
  fe().set_vring_base(0, 3);
  EXPECT_EQ(newest().ring.inflight_resume, 0U);
  EXPECT_EQ(newest().ring.next_avail, 3U);
}

TEST_P(Deaths, QueueThatWasGivenUpStartsOverWhenTheFrontEndStartsItAnew) {
  start();
  broker().end_queue(0, QueueOutcome::kGaveUp);
  (void)broker().wait_event(EventCode::kQueueDied);
  (void)fe().get_vring_base(0);
  kick(0, kick_.ref());
  EXPECT_EQ(newest().ring.inflight_resume, 0U);
}

TEST_F(Inflight, RegionGivenAgainAfterAResetCountsAgain) {
  start_with_region();
  fe().request(VhostRequest::kResetDevice);
  fe().set_features(kBlkFeatures | kBit30);
  fe().set_inflight_fd(region_.description, region_.file.ref());
  run_ring();
  EXPECT_EQ(newest().ring.inflight_resume, 1U);
}

TEST_F(Inflight, WithoutAnyFileADeathIsTheEndOfTheQueue) {
  launch();
  negotiate();
  broker().refuse_inflight(true);
  fe().set_mem_table(memory_);
  run_ring();
  EXPECT_EQ(newest().ring.has_inflight, 0U);
  broker().end_queue(0, QueueOutcome::kDied);
  (void)broker().wait_event(EventCode::kQueueDied);
  EXPECT_EQ(broker().running(), 0U);
}

// --- hostile descriptions -----------------------------------------------------------------------

struct Wrong {
  const char* name;
  VhostInflight description;
  std::uint64_t field;
};
void PrintTo(const Wrong& wrong, std::ostream* out) { *out << wrong.name; }

class WrongInflight : public Inflight, public ::testing::WithParamInterface<Wrong> {};
TEST_P(WrongInflight, EndsTheSession) {
  launch();
  negotiate();
  const auto good = fe().get_inflight_fd(2, 128);
  fe().ask_for_acks(false);
  fe().set_inflight_fd(GetParam().description, good.file.ref());
  EXPECT_EQ(expect_violation(EventCode::kBadInflight).numbers[1], GetParam().field);
}
INSTANTIATE_TEST_SUITE_P(Descriptions, WrongInflight,
                         ::testing::Values(Wrong{"NoQueues", {8192, 0, 0, 128}, 0},
                                           Wrong{"MoreQueues", {1 << 20, 0, 9, 128}, 0},
                                           Wrong{"NoEntries", {8192, 0, 2, 0}, 1},
                                           Wrong{
                                               "MoreEntriesThanAnyRing", {1 << 24, 0, 2, 65535}, 1},
                                           Wrong{"TooSmallForItsEntries", {4096, 0, 2, 128}, 2},
                                           Wrong{"LargerThanTheFile", {8193, 0, 2, 128}, 2},
                                           Wrong{"BehindTheFile", {8192, 8192, 2, 128}, 2},
                                           Wrong{"Wrapping", {8192, ~0ULL - 4095, 2, 128}, 3},
                                           Wrong{"Misaligned", {4224, 4, 2, 128}, 3}),
                         [](const auto& each) { return each.param.name; });

TEST_F(Inflight, DescriptorThatIsNoFileEndsTheSession) {
  launch();
  negotiate();
  fe().ask_for_acks(false);
  fe().set_inflight_fd({.mmap_bytes = 8192, .queues = 2, .queue_size = 128}, kick_.ref());
  EXPECT_EQ(expect_violation(EventCode::kBadFdType).numbers[0], 32U);
}

TEST_F(Inflight, DescriptionWithoutAFileEndsTheSession) {
  launch();
  negotiate();
  fe().ask_for_acks(false);
  const VhostInflight description{.mmap_bytes = 8192, .queues = 2, .queue_size = 128};
  fe().request(VhostRequest::kSetInflightFd, fakes::bytes_of(description));
  EXPECT_EQ(expect_violation(EventCode::kTooFewFds).numbers[0], 32U);
}

TEST_F(Inflight, DescriptionOfAnotherLengthEndsTheSession) {
  launch();
  negotiate();
  fe().ask_for_acks(false);
  const VhostInflight description{};
  fe().request(VhostRequest::kGetInflightFd, fakes::bytes_of(description).first(19));
  EXPECT_EQ(expect_violation(EventCode::kPayloadSize).numbers[0], 31U);
}

}  // namespace
}  // namespace session_test
