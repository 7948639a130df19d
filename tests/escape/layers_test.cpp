// tests/escape/layers_test.cpp: one layer is switched off, besides seccomp, and what it claims to
// stop another one stops as well. And what a worker of one tenant can do about a worker of another,
// whom it can name only by a number: nothing, with the layers that hide him and without them.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <string>
#include <vector>

#include "policy/sanitizer.h"
#include "policy/session.h"
#include "policy/worker_blk.h"
#include "tests/escape/run_escapee.h"
#include "tests/fakes/refused_calls.h"

namespace escape {
namespace {

using policy::kSession;
using policy::kWorkerBlkFallback;

constexpr std::uint32_t kAll = CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWNET |
                               CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWCGROUP;
constexpr std::uint32_t without(unsigned namespaces) { return kAll & ~namespaces; }
constexpr std::uint64_t kCwd = static_cast<std::uint64_t>(AT_FDCWD);

// --- layer by layer ------------------------------------------------------------------------------

struct Case {
  const char* name;
  std::uint32_t namespaces;
  std::vector<fakes::RefusedCall> refused;  // By the host, so that the layer is absent.
  common::Layer absent;
  EscapeOrder order;
  int os_errno;
};
void PrintTo(const Case& each, std::ostream* out) { *out << each.name; }

EscapeOrder call(std::uint64_t number, std::array<std::uint64_t, 6> arguments,
                 std::string_view text = {}) {
  return try_system_call(number, arguments, text);
}

std::vector<Case> cases_of_files() {
  using common::Layer;
  const fakes::RefusedCall no_landlock{.number = SYS_landlock_create_ruleset, .os_errno = ENOSYS};
  return {
      // The host's files are in sight: Landlock opens none, runs none.
      {"WithoutARootNoFileCanBeRead",
       without(CLONE_NEWNS),
       {},
       Layer::kEmptyRoot,
       call(SYS_openat, {kCwd, kText, O_RDONLY}, "/etc/passwd"),
       EACCES},
      {"WithoutARootNoFileCanBeMade",
       without(CLONE_NEWNS),
       {},
       Layer::kEmptyRoot,
       call(SYS_openat, {kCwd, kText, O_CREAT | O_WRONLY, 0600}, "/tmp/bulkhead-escaped"),
       EACCES},
      {"WithoutARootNoProgramCanBeRun",
       without(CLONE_NEWNS),
       {},
       Layer::kEmptyRoot,
       call(SYS_execve, {kText, 0, 0}, "/bin/sh"),
       EACCES},
      {"WithoutARootNoDirectoryCanBeMade",
       without(CLONE_NEWNS),
       {},
       Layer::kEmptyRoot,
       call(SYS_mkdir, {kText, 0700}, "/tmp/bulkhead-escaped"),
       EACCES},
      // Landlock is not there: the root is empty.
      {"WithoutLandlockNoFileIsThere",
       kAll,
       {no_landlock},
       Layer::kLandlock,
       call(SYS_openat, {kCwd, kText, O_RDONLY}, "/etc/passwd"),
       ENOENT},
      {"WithoutLandlockNoFileCanBeMade",
       kAll,
       {no_landlock},
       Layer::kLandlock,
       call(SYS_openat, {kCwd, kText, O_CREAT | O_WRONLY, 0600}, "/new"),
       EROFS},
      {"WithoutLandlockNoProgramIsThere",
       kAll,
       {no_landlock},
       Layer::kLandlock,
       call(SYS_execve, {kText, 0, 0}, "/bin/sh"),
       ENOENT},
  };
}

std::vector<Case> cases_of_capabilities() {
  using common::Layer;
  const fakes::RefusedCall no_securebits{
      .number = SYS_prctl, .os_errno = EPERM, .argument = 0, .value = PR_SET_SECUREBITS};
  return {
      // In the host's namespaces: no capability for any of them.
      {"WithoutAUserNamespaceNothingCanBeMounted",
       without(CLONE_NEWUSER),
       {},
       Layer::kUserNamespace,
       call(SYS_mount, {kText, kText, kText, MS_BIND, 0}, "/"),
       EPERM},
      {"WithoutAUserNamespaceNoNamespaceCanBeMade",
       without(CLONE_NEWUSER),
       {},
       Layer::kUserNamespace,
       call(SYS_unshare, {CLONE_NEWNET}),
       EPERM},
      {"WithoutAUserNamespaceNoUidCanBeTaken",
       without(CLONE_NEWUSER),
       {},
       Layer::kUserNamespace,
       call(SYS_setresuid, {0, 0, 0}),
       EPERM},
      {"WithoutANetNamespaceNoRawSocketCanBeMade",
       without(CLONE_NEWNET),
       {},
       Layer::kNetNamespace,
       call(SYS_socket, {AF_INET, SOCK_RAW, 1}),
       EPERM},
      {"WithoutANetNamespaceNoPacketSocketCanBeMade",
       without(CLONE_NEWNET),
       {},
       Layer::kNetNamespace,
       call(SYS_socket, {AF_PACKET, SOCK_RAW, 0}),
       EPERM},
      {"WithoutAUtsNamespaceTheHostKeepsItsName",
       without(CLONE_NEWUTS),
       {},
       Layer::kUtsNamespace,
       call(SYS_sethostname, {kText, 1}, "x"),
       EPERM},
      {"WithoutSecurebitsUidZeroStillMountsNothing",
       kAll,
       {no_securebits},
       Layer::kSecurebits,
       call(SYS_mount, {kText, kText, kText, MS_BIND, 0}, "/"),
       EPERM},
      {"WithoutSecurebitsNoCapabilityComesBack",
       kAll,
       {no_securebits},
       Layer::kSecurebits,
       call(SYS_prctl, {PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, 21, 0, 0}),
       EPERM},
  };
}

std::vector<Case> every_case() {
  std::vector<Case> cases = cases_of_files();
  for (Case& each : cases_of_capabilities()) cases.push_back(std::move(each));
  return cases;
}

class LayerOff : public testing::TestWithParam<Case> {};
INSTANTIATE_TEST_SUITE_P(Seccomp, LayerOff, testing::ValuesIn(every_case()),
                         [](const auto& each) { return each.param.name; });

// What is refused is refused to all that comes from a process, so to one that ends with the test.
enum class Ended : int { kRefused = 0, kNotStarted, kNotAbsent, kOtherwise };

Ended try_without(const Case& each) {
  if (!each.refused.empty() && !fakes::install_filter(fakes::filter_that_refuses(each.refused))) {
    return Ended::kNotStarted;
  }
  auto escapee = Escapee::start(
      {.profile = &kSession, .namespaces = each.namespaces, .allow_every_call = true}, each.order);
  if (!escapee || escapee->wait() != kCameBack) return Ended::kNotStarted;
  if (escapee->layer(each.absent).state != common::LayerResult::State::kAbsent) {
    return Ended::kNotAbsent;
  }
  return escapee->result() == -each.os_errno ? Ended::kRefused : Ended::kOtherwise;
}

TEST_P(LayerOff, IsMadeUpForByAnother) {
  const pid_t pid = ::fork();
  if (pid == 0) ::_exit(static_cast<int>(try_without(GetParam())));
  int status = -1;
  ASSERT_EQ(::waitpid(pid, &status, 0), pid);
  ASSERT_TRUE(WIFEXITED(status));
  EXPECT_EQ(static_cast<Ended>(WEXITSTATUS(status)), Ended::kRefused);
}

// --- another tenant ------------------------------------------------------------------------------

// Something that a worker might do about the process with this number.
struct Attempt {
  const char* name;
  EscapeOrder (*order)(std::uint64_t pid);
};
void PrintTo(const Attempt& each, std::ostream* out) { *out << each.name; }

constexpr Attempt kAttempts[] = {
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
    {"FindsItsLocks",
     [](std::uint64_t pid) {
       return try_system_call(SYS_get_robust_list, {pid, kScratch, kScratch});
     }},
    {"ComparesItsDescriptors",
     [](std::uint64_t pid) {
       return try_system_call(SYS_kcmp, {pid, pid, 2, 0, 0});
     }},
};

bool sanitizers_permit(std::uint64_t number) {
  return std::any_of(
      policy::kSanitizerSyscalls.begin(), policy::kSanitizerSyscalls.end(),
      [&](const auto& rule) { return static_cast<std::uint64_t>(rule.number) == number; });
}

class AnotherTenant : public testing::TestWithParam<Attempt> {
 protected:
  // The one that is attacked, with the uid of a device of its own, and how it is afterwards.
  void SetUp() override {
    auto started =
        Escapee::start({.profile = &kWorkerBlkFallback, .uid = kUid + 1}, try_act(Act::kSleep));
    ASSERT_TRUE(started);
    other_.emplace(*std::move(started));
    ASSERT_TRUE(other_->wait_until_sealed());
  }
  void TearDown() override {
    pollfd ended{other_->pidfd().number, POLLIN, 0};
    EXPECT_EQ(::poll(&ended, 1, 0), 0) << "the other tenant's worker is dead";
  }
  // The errno, without seccomp and in these namespaces only.
  [[nodiscard]] int attack(std::uint32_t namespaces) const {
    auto escapee = Escapee::start(
        {.profile = &kWorkerBlkFallback, .namespaces = namespaces, .allow_every_call = true},
        GetParam().order(static_cast<std::uint64_t>(other_->pid())));
    EXPECT_TRUE(escapee);
    if (!escapee) return 0;
    EXPECT_EQ(escapee->wait(), kCameBack);
    return static_cast<int>(-escapee->result());
  }
  std::optional<Escapee> other_;
};
INSTANTIATE_TEST_SUITE_P(Each, AnotherTenant, testing::ValuesIn(kAttempts),
                         [](const auto& each) { return each.param.name; });

TEST_P(AnotherTenant, IsKilledForTheCallAlone) {
  const EscapeOrder order = GetParam().order(static_cast<std::uint64_t>(other_->pid()));
  if (sanitizers_permit(order.number)) return;
  auto escapee = Escapee::start({.profile = &kWorkerBlkFallback}, order);
  ASSERT_TRUE(escapee);
  EXPECT_EQ(escapee->wait(), kKilledBySeccomp);
}

TEST_P(AnotherTenant, FindsNobodyOfThatNumber) { EXPECT_EQ(attack(kAll), ESRCH); }

TEST_P(AnotherTenant, IsAnothersWhereNumbersAreShared) {
  EXPECT_EQ(attack(without(CLONE_NEWPID)), EPERM);
}

TEST_P(AnotherTenant, IsAnothersInTheHostsUserNamespaceToo) {
  EXPECT_EQ(attack(without(CLONE_NEWPID | CLONE_NEWUSER)), EPERM);
}

}  // namespace
}  // namespace escape
