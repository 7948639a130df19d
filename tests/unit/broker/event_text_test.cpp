#include "broker/event_text.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <cerrno>
#include <limits>
#include <set>

namespace broker {
namespace {

using common::ipc::EventCode;
using common::ipc::WorkerFault;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr std::string_view kUnknown = "does not know";
constexpr std::uint64_t kHuge = std::numeric_limits<std::uint64_t>::max();

std::string event(EventCode code, std::uint64_t a = 0, std::uint64_t b = 0, std::uint64_t c = 0) {
  return describe_event(code, {a, b, c}).text;
}

std::string fault(WorkerFault code, std::uint64_t a = 0, std::uint64_t b = 0, int os_errno = 0) {
  return describe_fault(code, {a, b}, os_errno);
}

template <typename Code>
std::vector<Code> codes(Code first, Code last) {
  std::vector<Code> all;
  for (auto n = static_cast<std::uint32_t>(first); n <= static_cast<std::uint32_t>(last); ++n) {
    all.push_back(static_cast<Code>(n));
  }
  return all;
}

// --- every code has its own sentence ---

TEST(EventText, AnAttemptToWriteWhatMayNotBeWrittenIsNoError) {
  EXPECT_EQ(describe_event(EventCode::kConfigNotWritable, {25, 0, 8}).level, Level::kWarn);
}

TEST(EventText, EveryViolationHasItsOwnSentenceAndIsAnError) {
  std::set<std::string> texts;
  const auto all = codes(EventCode::kBadVersion, EventCode::kLogTooSmall);
  for (const EventCode code : all) {
    const EventText text = describe_event(code, {5, 1, 2});
    EXPECT_THAT(text.text, Not(HasSubstr(std::string(kUnknown))));
    EXPECT_EQ(text.level == Level::kError, code != EventCode::kConfigNotWritable) << text.text;
    EXPECT_THAT(text.text, Not(HasSubstr("{"))) << text.text;
    texts.insert(text.text);
  }
  EXPECT_EQ(texts.size(), all.size());
}

TEST(EventText, EveryOtherEventHasItsOwnSentence) {
  std::set<std::string> texts;
  const auto all = codes(EventCode::kConnected, EventCode::kEventsDropped);
  for (const EventCode code : all) {
    const EventText text = describe_event(code, {5, 1, 2});
    EXPECT_THAT(text.text, Not(HasSubstr(std::string(kUnknown))));
    EXPECT_NE(text.level, Level::kError) << text.text;
    texts.insert(text.text);
  }
  EXPECT_EQ(texts.size(), all.size());
}

TEST(EventText, EveryFaultHasItsOwnSentence) {
  std::set<std::string> texts;
  std::vector<WorkerFault> all = codes(WorkerFault::kNone, WorkerFault::kRequestTooShort);
  for (const WorkerFault more : codes(WorkerFault::kBadMessage, WorkerFault::kLogTooSmall)) {
    all.push_back(more);
  }
  for (const WorkerFault more : codes(WorkerFault::kEngine, WorkerFault::kCallUnwritable)) {
    all.push_back(more);
  }
  for (const WorkerFault code : all) {
    const std::string text = fault(code, 1, 2);
    EXPECT_THAT(text, Not(HasSubstr(std::string(kUnknown))));
    texts.insert(text);
  }
  EXPECT_EQ(texts.size(), all.size());
}

TEST(EventText, UnknownCodesArePrintedAsNumbers) {
  EXPECT_EQ(event(static_cast<EventCode>(4242), 1, 16, 3),
            "the session reported 4242 (0x1, 0x10, 0x3), which this broker does not know");
  EXPECT_THAT(event(EventCode::kNone), HasSubstr(std::string(kUnknown)));
  EXPECT_EQ(fault(static_cast<WorkerFault>(4242), 1, 2),
            "for a reason this broker does not know (4242) (0x1, 0x2)");
}

TEST(EventText, NoNumberOfAHostileProcessGoesUnanswered) {
  for (std::uint32_t code = 0; code < 300; ++code) {
    EXPECT_FALSE(event(static_cast<EventCode>(code), kHuge, kHuge, kHuge).empty());
    EXPECT_FALSE(fault(static_cast<WorkerFault>(code), kHuge, kHuge, -1).empty());
  }
}

// --- the sentences that users act on ---

TEST(EventText, SaysHowToShareMemory) {
  EXPECT_THAT(event(EventCode::kNoMemory, 2),
              AllOf(HasSubstr("queue 2"), HasSubstr("memory-backend-memfd"), HasSubstr("share=on"),
                    HasSubstr("shared=on"), HasSubstr("<access mode='shared'/>")));
  EXPECT_THAT(event(EventCode::kRingUnmapped, 0, 1, 0x1000),
              AllOf(HasSubstr("avail ring"), HasSubstr("0x1000"), HasSubstr("share=on")));
}

TEST(EventText, SaysHowManyQueuesThereAre) {
  EXPECT_EQ(
      event(EventCode::kBadQueueIndex, 8, 4, 4),
      "SET_VRING_NUM names queue 4, and the device has 4; raise --num-queues, or give the "
      "VMM's device fewer queues (QEMU: num-queues=4 of a disk, queues=PAIRS of a network card)");
}

TEST(EventText, SaysHowToSwitchFeaturesOff) {
  EXPECT_THAT(event(EventCode::kBadFeatures, 2, 1ULL << 34), HasSubstr("packed=off"));
  EXPECT_THAT(event(EventCode::kBadFeatures, 2, 1ULL << 33), HasSubstr("iommu_platform=off"));
}

TEST(EventText, NamesWhatCameInsteadOfTheRightDescriptor) {
  EXPECT_THAT(event(EventCode::kBadFdType, 12, 1, S_IFIFO | 0600), HasSubstr("a pipe"));
  EXPECT_THAT(event(EventCode::kBadFdType, 12, 1, 0600), HasSubstr("an anonymous descriptor"));
}

TEST(EventText, NamesErrors) {
  EXPECT_EQ(event(EventCode::kReplyFailed, 1, EPIPE),
            "GET_FEATURES could not be answered: Broken pipe");
  EXPECT_THAT(event(EventCode::kReplyFailed, 1, kHuge), HasSubstr("errno 1844674"));
}

TEST(EventText, NamesFaultsOfQueues) {
  EXPECT_EQ(event(EventCode::kQueueFault, 3, 1, 0),
            "queue 3 is stopped: the guest's ring is broken: its avail index jumped");
}

TEST(EventText, SaysHowFarAnIndexJumped) {
  EXPECT_EQ(fault(WorkerFault::kAvailJump, 40, 7),
            "the guest's ring is broken: its avail index jumped to 40, which is 33 ahead of ours "
            "(7) and more than the ring is long");
  EXPECT_THAT(fault(WorkerFault::kAvailJump, 2, 65535), HasSubstr("is 3 ahead"));
}

TEST(EventText, NamesTheLayerThatIsMissing) {
  EXPECT_THAT(fault(WorkerFault::kPosture, 12, 0, ENOSYS),
              AllOf(HasSubstr("(landlock)"), HasSubstr("Function not implemented")));
  EXPECT_THAT(fault(WorkerFault::kPosture, 99), HasSubstr("layer 99"));
}

// --- requests and deaths ---

TEST(EventText, NamesRequests) {
  EXPECT_EQ(request_name(1), "GET_FEATURES");
  EXPECT_EQ(request_name(5), "SET_MEM_TABLE");
  EXPECT_EQ(request_name(11), "GET_VRING_BASE");
  EXPECT_EQ(request_name(24), "GET_CONFIG");
  EXPECT_EQ(request_name(34), "RESET_DEVICE");
  EXPECT_EQ(request_name(37), "ADD_MEM_REG");
  EXPECT_EQ(request_name(40), "GET_STATUS");
  EXPECT_EQ(request_name(44), "GET_SHMEM_CONFIG");
  EXPECT_EQ(request_name(0), "request 0");
  EXPECT_EQ(request_name(99), "request 99");
  EXPECT_EQ(request_name(kHuge), "request 18446744073709551615");
}

TEST(EventText, DescribesDeaths) {
  EXPECT_EQ(describe_death(CLD_KILLED, SIGSYS),
            "killed by seccomp: a system call its list does not have");
  EXPECT_THAT(describe_death(CLD_DUMPED, SIGSYS), HasSubstr("killed by seccomp"));
  EXPECT_THAT(describe_death(CLD_KILLED, SIGBUS), HasSubstr("guest memory went away"));
  EXPECT_EQ(describe_death(CLD_KILLED, SIGUSR1), "killed by SIGUSR1");
  EXPECT_EQ(describe_death(CLD_KILLED, 200), "killed by signal 200");
  EXPECT_EQ(describe_death(CLD_EXITED, 0), "ended as asked");
  EXPECT_EQ(describe_death(CLD_EXITED, 10), "ended: the front-end broke the protocol");
  EXPECT_EQ(describe_death(CLD_EXITED, 20), "ended: the guest broke its ring");
  EXPECT_EQ(describe_death(CLD_EXITED, 3), "ended with exit code 3");
}

}  // namespace
}  // namespace broker
