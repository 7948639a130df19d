// tests/escape/tenant_test.cpp: what a process of one tenant can do about a worker of another, whom
// it can name only by a number: nothing, with the layers that hide him and without them. Each kind
// of process tries: session, keeper, exporter, the workers of both engines.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/io_uring.h>
#include <poll.h>
#include <sched.h>
#include <sys/resource.h>
#include <sys/syscall.h>

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <csignal>
#include <optional>
#include <string>
#include <string_view>

#include "policy/sanitizer.h"
#include "policy/worker_blk.h"
#include "tests/escape/profiles.h"
#include "tests/escape/run_escapee.h"

namespace escape {
namespace {

constexpr std::uint32_t kAll = CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWNET |
                               CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWCGROUP;
constexpr std::uint32_t without(unsigned namespaces) { return kAll & ~namespaces; }

// An iovec of eight bytes at an address that a process can have.
constexpr std::string_view kEightBytes{"\0\0\1\0\0\0\0\0\10", 9};

// Something that a process might do about the one with this number.
struct Attempt {
  const char* name;
  EscapeOrder (*order)(std::uint64_t pid);
};

constexpr Attempt kAttempts[] = {
    // Signal, and trace.
    {"Kills",
     [](std::uint64_t pid) {
       return try_system_call(SYS_kill, {pid, SIGKILL});
     }},
    {"Stops",
     [](std::uint64_t pid) {
       return try_system_call(SYS_tgkill, {pid, pid, SIGSTOP});
     }},
    {"QueuesASignal",
     [](std::uint64_t pid) {  // With a code (bytes 8 to 11) that a process may give.
       return try_system_call(SYS_rt_sigqueueinfo, {pid, SIGTERM, kText},
                              "AAAAAAAA\xff\xff\xff\xff");
     }},
    {"Traces",
     [](std::uint64_t pid) {
       return try_system_call(SYS_ptrace, {0x4206, pid, 0, 0});
     }},
    // Look into its memory, and move it.
    {"ReadsItsMemory",
     [](std::uint64_t pid) {
       return try_system_call(SYS_process_vm_readv, {pid, kText, 1, kText, 1, 0}, kEightBytes);
     }},
    {"WritesItsMemory",
     [](std::uint64_t pid) {
       return try_system_call(SYS_process_vm_writev, {pid, kText, 1, kText, 1, 0}, kEightBytes);
     }},
    {"MovesItsMemory",
     [](std::uint64_t pid) {
       return try_system_call(SYS_migrate_pages, {pid, 8, kText, kText}, "\x01");
     }},
    {"FindsItsLocks",
     [](std::uint64_t pid) {
       return try_system_call(SYS_get_robust_list, {pid, kScratch, kScratch});
     }},
    {"ComparesItsDescriptors",
     [](std::uint64_t pid) {
       return try_system_call(SYS_kcmp, {pid, pid, 2, 0, 0});
     }},
    // Starve it.
    {"SetsALimit",
     [](std::uint64_t pid) {
       return try_system_call(SYS_prlimit64, {pid, RLIMIT_CPU, kText, 0}, "AAAAAAAAAAAAAAAA");
     }},
    {"ReadsALimit",
     [](std::uint64_t pid) {
       return try_system_call(SYS_prlimit64, {pid, RLIMIT_NOFILE, 0, kScratch});
     }},
    {"TakesItsProcessorAway",
     [](std::uint64_t pid) {
       return try_system_call(SYS_sched_setaffinity, {pid, 8, kText}, "\x01");
     }},
    {"MakesItSlow",
     [](std::uint64_t pid) {
       return try_system_call(SYS_setpriority, {PRIO_PROCESS, pid, 19});
     }},
    {"MakesItIdle",
     [](std::uint64_t pid) {
       return try_system_call(SYS_sched_setscheduler, {pid, SCHED_IDLE, kText});
     }},
    {"MakesItsDiskSlow",
     [](std::uint64_t pid) {  // Of one process, the idle class.
       return try_system_call(SYS_ioprio_set, {1, pid, 3 << 13});
     }},
};

// Sanitizer builds start a process in ten times the time: a sample is enough there.
constexpr std::size_t kStep = policy::kSanitizerBuild ? 7 : 1;

bool sanitizers_permit(std::uint64_t number) {
  return std::any_of(
      policy::kSanitizerSyscalls.begin(), policy::kSanitizerSyscalls.end(),
      [&](const auto& rule) { return static_cast<std::uint64_t>(rule.number) == number; });
}

class AnotherTenant : public testing::TestWithParam<const policy::Profile*> {
 protected:
  // The one that is attacked, with the uid of a device of its own, and how it is afterwards.
  void SetUp() override {
    auto started = Escapee::start({.profile = &policy::kWorkerBlkFallback, .uid = kUid + 1},
                                  try_act(Act::kSleep));
    ASSERT_TRUE(started);
    other_.emplace(*std::move(started));
    ASSERT_TRUE(other_->wait_until_sealed());
  }
  void TearDown() override {
    pollfd ended{other_->pidfd().number, POLLIN, 0};
    EXPECT_EQ(::poll(&ended, 1, 0), 0) << "the other tenant's worker is dead";
  }
  [[nodiscard]] std::uint64_t other() const { return static_cast<std::uint64_t>(other_->pid()); }

  // Without seccomp, and in these namespaces only.
  void expect_refused(std::uint32_t namespaces, int os_errno) const {
    for (std::size_t i = 0; i < std::size(kAttempts); i += kStep) {
      auto escapee = Escapee::start(
          {.profile = GetParam(), .namespaces = namespaces, .allow_every_call = true},
          kAttempts[i].order(other()));
      ASSERT_TRUE(escapee);
      EXPECT_EQ(escapee->wait(), kCameBack) << kAttempts[i].name;
      EXPECT_EQ(escapee->result(), -os_errno) << kAttempts[i].name;
    }
  }
  std::optional<Escapee> other_;
};

std::string name_of(const testing::TestParamInfo<const policy::Profile*>& info) {
  std::string name(info.param->name);
  std::replace_if(
      name.begin(), name.end(), [](unsigned char c) { return std::isalnum(c) == 0; }, '_');
  return name;
}
INSTANTIATE_TEST_SUITE_P(Each, AnotherTenant, testing::ValuesIn(kProfiles), name_of);

TEST_P(AnotherTenant, IsDeathToTryAnythingWith) {
  for (std::size_t i = 0; i < std::size(kAttempts); i += kStep) {
    const EscapeOrder order = kAttempts[i].order(other());
    if (sanitizers_permit(order.number)) continue;
    auto escapee = Escapee::start({.profile = GetParam()}, order);
    ASSERT_TRUE(escapee);
    EXPECT_EQ(escapee->wait(), kKilledBySeccomp) << kAttempts[i].name;
  }
}

TEST_P(AnotherTenant, IsNobodyOfThatNumber) { expect_refused(kAll, ESRCH); }

TEST_P(AnotherTenant, IsAnothersWhereNumbersAreShared) {
  expect_refused(without(CLONE_NEWPID), EPERM);
}

TEST_P(AnotherTenant, IsAnothersInTheHostsUserNamespaceToo) {
  expect_refused(without(CLONE_NEWPID | CLONE_NEWUSER), EPERM);
}

// What seccomp cannot see: a ring names files by its own slots, of which three are filled. Another
// tenant's disk, ring or tap has none; and nothing can be put into one, or sent to another ring.
TEST_P(AnotherTenant, CannotBeNamedByARing) {
  constexpr std::uint8_t kMessage = IORING_OP_MSG_RING;
  for (const std::uint8_t opcode : GetParam()->uring_opcodes) {
    for (const int slot : {-1, 3, 4, 5, 6, 1000}) {
      auto escapee =
          Escapee::start({.profile = GetParam()}, try_ring(opcode, IOSQE_FIXED_FILE, slot, 0));
      ASSERT_TRUE(escapee);
      EXPECT_EQ(escapee->wait(), kCameBack);
      EXPECT_LT(escapee->result(), 0) << int{opcode} << " on slot " << slot;
    }
    auto escapee = Escapee::start({.profile = GetParam()}, try_ring(opcode, 0, 6, 0));
    ASSERT_TRUE(escapee);
    EXPECT_EQ(escapee->wait(), kCameBack);
    EXPECT_EQ(escapee->result(), -EACCES) << int{opcode} << " on a plain descriptor";
  }
  if (GetParam()->uring_opcodes.empty()) return;
  auto escapee = Escapee::start({.profile = GetParam()}, try_ring(kMessage, IOSQE_FIXED_FILE, 2));
  ASSERT_TRUE(escapee);
  EXPECT_EQ(escapee->wait(), kCameBack);
  EXPECT_EQ(escapee->result(), -EACCES);
}

}  // namespace
}  // namespace escape
