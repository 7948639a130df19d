// tests/escape/beneath_test.cpp: the layers beneath seccomp. The filter here permits every call, so
// that what stops each act is another layer: a jail that stands on seccomp alone would let them
// through.
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

#include "policy/session.h"
#include "policy/worker_blk.h"
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

std::vector<Case> every_case() {
  const auto call = [](std::uint64_t number, std::array<std::uint64_t, 6> arguments,
                       std::string_view text = {}) {
    return try_system_call(number, arguments, text);
  };
  return {
      // The root has nothing in it and takes nothing.
      {"TheHostsFilesAreNotThere", &kSession, call(SYS_openat, {kCwd, kText, 0}, "/etc/passwd"),
       ENOENT},
      {"TheWayUpLeadsNowhere", &kSession, call(SYS_openat, {kCwd, kText, 0}, "../../../etc"),
       ENOENT},
      {"ThereIsNoProc", &kSession, call(SYS_openat, {kCwd, kText, 0}, "/proc/self/mem"), ENOENT},
      {"ThereIsNoProgram", &kSession, call(SYS_execve, {kText, 0, 0}, "/bin/sh"), ENOENT},
      {"NothingCanBeMade", &kSession, call(SYS_mkdir, {kText, 0700}, "/new"), EROFS},
      {"NoFileCanBeMade", &kSession,
       call(SYS_openat, {kCwd, kText, O_CREAT | O_WRONLY, 0600}, "/new"), EROFS},

      // Landlock: not even what is there.
      {"TheRootCannotBeRead", &kSession,
       call(SYS_openat, {kCwd, kText, O_RDONLY | O_DIRECTORY}, "/"), EACCES},

      // No capabilities, in the namespace of its own either.
      {"NothingCanBeMounted", &kSession, call(SYS_mount, {kText, kText, kText, MS_BIND, 0}, "/"),
       EPERM},
      {"NothingCanBeUnmounted", &kSession, call(SYS_umount2, {kText, 0}, "/"), EPERM},
      {"TheRootCannotBeChanged", &kSession, call(SYS_chroot, {kText}, "/"), EPERM},
      {"TheHostNameCannotBeChanged", &kSession, call(SYS_sethostname, {kText, 1}, "x"), EPERM},
      {"NoOtherUidCanBeTaken", &kSession, call(SYS_setresuid, {1, 1, 1}), EINVAL},
      {"GroupsCannotBeSet", &kSession, call(SYS_setgroups, {1, kScratch}), EPERM},
      {"SecurebitsStayLocked", &kSession, call(SYS_prctl, {28, 0}), EPERM},
      {"NoNewPrivsStays", &kSession, call(SYS_prctl, {38, 0, 0, 0, 0}), EINVAL},
      {"LimitsCannotBeRaised", &kSession, call(SYS_prlimit64, {0, 7, kText, 0}, "AAAAAAAAAAAAAAAA"),
       EPERM},

      // Nobody else is there: not in its pid namespace, not in its network.
      {"ThereIsNobodyToSignal", &kSession, call(SYS_kill, {2, SIGKILL}), ESRCH},
      {"ThereIsNobodyToTrace", &kSession, call(SYS_ptrace, {16, 2, 0, 0}), ESRCH},
      {"NoRawSocketCanBeMade", &kSession, call(SYS_socket, {AF_INET, SOCK_RAW, 1}), EPERM},
      {"NoNamespaceCanBeMade", &kSession, call(SYS_unshare, {CLONE_NEWUSER}), ENOSPC},
      {"NoNamespaceCanBeMadeWithoutARootOfItsOwn", &kSession, call(SYS_unshare, {CLONE_NEWNET}),
       EPERM},
      {"NoPageFaultCanBeStopped", &kSession, call(SYS_userfaultfd, {0}), EPERM},
      {"NoProgramCanBeLoadedIntoTheKernel", &kSession, call(SYS_bpf, {5, kText, 48}), EPERM},
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
      {"NoMemoryIsWritableAndExecutable", &kSession,
       try_system_call(SYS_mmap, {0, 4096, kWriteAndRun, kAnonymous, ~0ULL, 0}), EACCES},
      {"DataCannotBecomeCode", &kSession,
       try_system_call(SYS_mprotect, {kScratch, 4096, PROT_READ | PROT_EXEC}), EACCES},
  };
}

class Beneath : public testing::TestWithParam<Case> {};

TEST_P(Beneath, Refuses) {
  auto escapee =
      Escapee::start({.profile = GetParam().profile, .allow_every_call = true}, GetParam().order);
  ASSERT_TRUE(escapee);
  ASSERT_EQ(escapee->wait(), kCameBack);
  EXPECT_EQ(escapee->result(), -GetParam().os_errno);
}

GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(Beneath);
INSTANTIATE_TEST_SUITE_P(SeccompInMemory, Beneath, testing::ValuesIn(every_memory_case()),
                         [](const auto& each) { return each.param.name; });
INSTANTIATE_TEST_SUITE_P(Seccomp, Beneath, testing::ValuesIn(every_case()),
                         [](const auto& each) { return each.param.name; });

}  // namespace
}  // namespace escape
