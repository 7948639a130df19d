// tests/escape/layers_test.cpp: one layer is switched off, besides seccomp, and what it claims to
// stop another one stops as well: in the process of each profile.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <string>
#include <vector>

#include "policy/sanitizer.h"
#include "tests/escape/profiles.h"
#include "tests/escape/run_escapee.h"
#include "tests/fakes/refused_calls.h"

namespace escape {
namespace {

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

Ended try_without(const Case& each, const policy::Profile& profile) {
  if (!each.refused.empty() && !fakes::install_filter(fakes::filter_that_refuses(each.refused))) {
    return Ended::kNotStarted;
  }
  auto escapee = Escapee::start(
      {.profile = &profile, .namespaces = each.namespaces, .allow_every_call = true}, each.order);
  if (!escapee || escapee->wait() != kCameBack) return Ended::kNotStarted;
  if (escapee->layer(each.absent).state != common::LayerResult::State::kAbsent) {
    return Ended::kNotAbsent;
  }
  // With a table of descriptors that takes none, no file gets as far as to be looked for.
  const bool no_room = each.order.number == SYS_openat && profile.descriptors.empty();
  return escapee->result() == -(no_room ? EMFILE : each.os_errno) ? Ended::kRefused
                                                                  : Ended::kOtherwise;
}

void expect_made_up_for(const Case& each, const policy::Profile& profile) {
  const pid_t pid = ::fork();
  if (pid == 0) ::_exit(static_cast<int>(try_without(each, profile)));
  int status = -1;
  ASSERT_EQ(::waitpid(pid, &status, 0), pid);
  ASSERT_TRUE(WIFEXITED(status));
  EXPECT_EQ(static_cast<Ended>(WEXITSTATUS(status)), Ended::kRefused) << profile.name;
}

TEST_P(LayerOff, IsMadeUpForByAnother) {
  for (const policy::Profile* const profile : kProfiles) {
    expect_made_up_for(GetParam(), *profile);
    // Where a process takes ten times the time to start, one of them is enough: the filter is off.
    if (policy::kSanitizerBuild) break;
  }
}

}  // namespace
}  // namespace escape
