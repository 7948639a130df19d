// tests/escape/beneath_test.cpp: the layers beneath seccomp. The filter here permits every call, so
// that what stops each act is another layer: a jail that stands on seccomp alone would let them
// through. In the process of each profile, but for what only some can be stopped from.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#include <cerrno>
#include <csignal>
#include <string>
#include <vector>

#include "policy/sanitizer.h"
#include "policy/session.h"
#include "policy/worker_blk.h"
#include "tests/escape/profiles.h"
#include "tests/escape/run_escapee.h"

namespace escape {
namespace {

using policy::kSession;
using policy::kWorkerBlkUring;

struct Case {
  const char* name;
  const policy::Profile* profile;
  EscapeOrder order;
  int os_errno;
};
void PrintTo(const Case& each, std::ostream* out) { *out << each.name; }

constexpr std::uint64_t kCwd = static_cast<std::uint64_t>(AT_FDCWD);

constexpr const policy::Profile* kEach = nullptr;

std::vector<Case> every_case() {
  const auto call = [](std::uint64_t number, std::array<std::uint64_t, 6> arguments,
                       std::string_view text = {}) {
    return try_system_call(number, arguments, text);
  };
  return {
      // The root has nothing in it and takes nothing.
      {"TheHostsFilesAreNotThere", kEach, call(SYS_openat, {kCwd, kText, 0}, "/etc/passwd"),
       ENOENT},
      {"TheWayUpLeadsNowhere", kEach, call(SYS_openat, {kCwd, kText, 0}, "../../../etc"), ENOENT},
      {"ThereIsNoProc", kEach, call(SYS_openat, {kCwd, kText, 0}, "/proc/self/mem"), ENOENT},
      {"ThereIsNoProgram", kEach, call(SYS_execve, {kText, 0, 0}, "/bin/sh"), ENOENT},
      {"NothingCanBeMade", kEach, call(SYS_mkdir, {kText, 0700}, "/new"), EROFS},
      {"NoFileCanBeMade", kEach, call(SYS_openat, {kCwd, kText, O_CREAT | O_WRONLY, 0600}, "/new"),
       EROFS},

      // Landlock: not even what is there.
      {"TheRootCannotBeRead", kEach, call(SYS_openat, {kCwd, kText, O_RDONLY | O_DIRECTORY}, "/"),
       EACCES},

      // No capabilities, in the namespace of its own either.
      {"NothingCanBeMounted", kEach, call(SYS_mount, {kText, kText, kText, MS_BIND, 0}, "/"),
       EPERM},
      {"NothingCanBeUnmounted", kEach, call(SYS_umount2, {kText, 0}, "/"), EPERM},
      {"TheRootCannotBeChanged", kEach, call(SYS_chroot, {kText}, "/"), EPERM},
      {"TheHostNameCannotBeChanged", kEach, call(SYS_sethostname, {kText, 1}, "x"), EPERM},
      {"NoOtherUidCanBeTaken", kEach, call(SYS_setresuid, {1, 1, 1}), EINVAL},
      {"GroupsCannotBeSet", kEach, call(SYS_setgroups, {1, kScratch}), EPERM},
      {"SecurebitsStayLocked", kEach, call(SYS_prctl, {28, 0}), EPERM},
      {"NoNewPrivsStays", kEach, call(SYS_prctl, {38, 0, 0, 0, 0}), EINVAL},
      {"LimitsCannotBeRaised", kEach, call(SYS_prlimit64, {0, 7, kText, 0}, "AAAAAAAAAAAAAAAA"),
       EPERM},

      // Nobody else is there: not in its pid namespace, not in its network.
      {"ThereIsNobodyToSignal", kEach, call(SYS_kill, {2, SIGKILL}), ESRCH},
      {"ThereIsNobodyToTrace", kEach, call(SYS_ptrace, {16, 2, 0, 0}), ESRCH},
      {"NoRawSocketCanBeMade", kEach, call(SYS_socket, {AF_INET, SOCK_RAW, 1}), EPERM},
      {"NoNamespaceCanBeMade", kEach, call(SYS_unshare, {CLONE_NEWUSER}), ENOSPC},
      {"NoNamespaceCanBeMadeWithoutARootOfItsOwn", kEach, call(SYS_unshare, {CLONE_NEWNET}), EPERM},
      {"NoPageFaultCanBeStopped", kEach, call(SYS_userfaultfd, {0}), EPERM},
      {"NoProgramCanBeLoadedIntoTheKernel", kEach, call(SYS_bpf, {5, kText, 48}), EPERM},
      // Where it needs none: io_uring has threads of its own, which count.
      {"NoProcessCanBeMade", &kSession, call(SYS_fork, {}), EAGAIN},

      // A worker with a ring: no descriptor can be made, and no memory locked for a second ring.
      {"NoDescriptorCanBeMade", &kWorkerBlkUring, call(SYS_eventfd2, {0, 0}), EMFILE},
      {"NoSocketCanBeMade", &kWorkerBlkUring, call(SYS_socket, {AF_UNIX, SOCK_STREAM, 0}), EMFILE},
      {"NoMemfdCanBeMade", &kWorkerBlkUring, call(SYS_memfd_create, {kText, 0}, "x"), EMFILE},
      {"NoOtherRingCanBeMade", &kWorkerBlkUring, call(SYS_io_uring_setup, {4, kScratch}), ENOMEM},
      {"ItsOwnRingCannotBeChanged", &kWorkerBlkUring,
       call(SYS_io_uring_register, {0, 3U | (1U << 31), 0, 0}), EACCES},
  };
}

// W^X, whoever asks; kernels before 6.3 have no such layer.
std::vector<Case> every_memory_case() {
  constexpr std::uint64_t kWriteAndRun = PROT_READ | PROT_WRITE | PROT_EXEC;
  constexpr std::uint64_t kAnonymous = MAP_PRIVATE | MAP_ANONYMOUS;
  constexpr int kGetMdwe = 66;
  if (::prctl(kGetMdwe, 0, 0, 0, 0) < 0) return {};
  return {
      {"NoMemoryIsWritableAndExecutable", kEach,
       try_system_call(SYS_mmap, {0, 4096, kWriteAndRun, kAnonymous, ~0ULL, 0}), EACCES},
      {"DataCannotBecomeCode", kEach,
       try_system_call(SYS_mprotect, {kScratch, 4096, PROT_READ | PROT_EXEC}), EACCES},
  };
}

class Beneath : public testing::TestWithParam<Case> {};

std::vector<const policy::Profile*> profiles_of(const Case& each) {
  if (each.profile != kEach) return {each.profile};
  // Where a process takes ten times the time to start, one is enough: the filter is off anyway.
  if (policy::kSanitizerBuild) return {&kSession};
  return {std::begin(kProfiles), std::end(kProfiles)};
}

TEST_P(Beneath, Refuses) {
  const Case& each = GetParam();
  for (const policy::Profile* const profile : profiles_of(each)) {
    auto escapee = Escapee::start({.profile = profile, .allow_every_call = true}, each.order);
    ASSERT_TRUE(escapee);
    ASSERT_EQ(escapee->wait(), kCameBack) << profile->name;
    // With a table of descriptors that takes none, no file gets as far as to be looked for.
    const bool no_room = each.order.number == SYS_openat && profile->descriptors.empty();
    EXPECT_EQ(escapee->result(), -(no_room ? EMFILE : each.os_errno)) << profile->name;
  }
}

GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(Beneath);
INSTANTIATE_TEST_SUITE_P(SeccompInMemory, Beneath, testing::ValuesIn(every_memory_case()),
                         [](const auto& each) { return each.param.name; });
INSTANTIATE_TEST_SUITE_P(Seccomp, Beneath, testing::ValuesIn(every_case()),
                         [](const auto& each) { return each.param.name; });

}  // namespace
}  // namespace escape
