// tests/escape/forbidden_test.cpp: inside each real profile, each forbidden act, and the exact
// death.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/falloc.h>
#include <linux/if_tun.h>
#include <linux/io_uring.h>
#include <linux/sockios.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <string>
#include <vector>

#include "policy/sanitizer.h"
#include "policy/seccomp.h"
#include "tests/escape/profiles.h"
#include "tests/escape/run_escapee.h"

namespace escape {
namespace {

using policy::kSession;
using policy::kWorkerBlkFallback;
using policy::kWorkerBlkFallbackDirect;
using policy::kWorkerBlkUring;

using policy::kWorkerNetControl;
using policy::kWorkerNetReceiveFallback;
using policy::kWorkerNetTransmitFallback;

std::string words_only(std::string_view text) {
  std::string name(text);
  std::replace_if(
      name.begin(), name.end(), [](unsigned char c) { return std::isalnum(c) == 0; }, '_');
  return name;
}

bool listed(std::span<const policy::SyscallRule> rules, int number) {
  return std::any_of(rules.begin(), rules.end(),
                     [number](const auto& rule) { return rule.number == number; });
}

// Sanitizer builds permit more; what they permit is left out there.
bool outside_the_lists(const policy::Profile& profile, int number) {
  return !listed(profile.syscalls, number) && !listed(profile.by_chance, number) &&
         !listed(policy::kSanitizerSyscalls, number);
}

// --- acts that no profile permits
// ------------------------------------------------------------------

constexpr std::uint64_t kCwd = static_cast<std::uint64_t>(AT_FDCWD);

struct Forbidden {
  int number;
  std::array<std::uint64_t, 6> arguments;
};

// With arguments that would do harm, or would at least not be refused before they are looked at.
constexpr Forbidden kForbidden[] = {
    {SYS_open, {kScratch, O_RDWR | O_CREAT, 0600}},
    {SYS_openat, {kCwd, kScratch, O_RDONLY}},
    {SYS_openat2, {kCwd, kScratch, kScratch, 24}},
    {SYS_creat, {kScratch, 0600}},
    {SYS_socket, {1, 1, 0}},
    {SYS_socketpair, {1, 1, 0, kScratch}},
    {SYS_connect, {3, kScratch, 16}},
    {SYS_bind, {3, kScratch, 16}},
    {SYS_accept4, {3, 0, 0, 0}},
    {SYS_execve, {kScratch, 0, 0}},
    {SYS_execveat, {5, kScratch, 0, 0, AT_EMPTY_PATH}},
    {SYS_fork, {}},
    {SYS_vfork, {}},
    {SYS_clone, {SIGCHLD}},
    {SYS_clone3, {kScratch, 88}},
    {SYS_ptrace, {16, 1}},
    {SYS_process_vm_readv, {1, kScratch, 1, kScratch, 1, 0}},
    {SYS_process_vm_writev, {1, kScratch, 1, kScratch, 1, 0}},
    {SYS_mmap, {0, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, ~0ULL, 0}},
    {SYS_mprotect, {kScratch, 4096, PROT_READ | PROT_EXEC}},
    {SYS_mremap, {kScratch, 4096, 8192, 1}},
    {SYS_brk, {0}},
    {SYS_io_uring_setup, {4, kScratch}},
    {SYS_io_uring_register, {0, 0, kScratch, 1}},
    {SYS_kill, {1, SIGKILL}},
    {SYS_tgkill, {1, 1, SIGKILL}},
    {SYS_pidfd_open, {1, 0}},
    {SYS_pidfd_getfd, {5, 0, 0}},
    {SYS_ioctl, {5, 0x1277}},            // BLKDISCARD
    {SYS_ioctl, {5, 0x125d, kScratch}},  // BLKROSET
    {SYS_ioctl, {0, 0x5412, kScratch}},  // TIOCSTI
    {SYS_rt_sigaction, {SIGSYS, kScratch, 0, 8}},
    {SYS_pidfd_send_signal, {5, SIGKILL, 0, 0}},
    {SYS_open_by_handle_at, {5, kScratch, O_RDWR}},
    {SYS_fsopen, {kScratch, 0}},
    {SYS_move_mount, {5, kScratch, kCwd, kScratch, 4}},
    {SYS_add_key, {kScratch, kScratch, kScratch, 8, ~0ULL}},
    {SYS_init_module, {kScratch, 4096, kScratch}},
    {SYS_memfd_create, {kScratch, 0}},
    {SYS_prctl, {4, 1}},
    {SYS_seccomp, {0, 0, 0}},
    {SYS_unshare, {0x10000000}},
    {SYS_setns, {5, 0}},
    {SYS_mount, {0, kScratch, 0, 0, 0}},
    {SYS_setuid, {0}},
    {SYS_setresuid, {0, 0, 0}},
    {SYS_capset, {kScratch, kScratch}},
    {SYS_bpf, {0, kScratch, 16}},
    {SYS_perf_event_open, {kScratch, 0, ~0ULL, ~0ULL, 0}},
    {SYS_userfaultfd, {1}},
    {SYS_keyctl, {0, 0}},
    {SYS_dup, {5}},
    {SYS_dup2, {5, 9}},
    {SYS_dup3, {5, 9, 0}},
    {SYS_fcntl, {5, F_DUPFD, 0}},
    {SYS_pipe2, {kScratch, 0}},
    {SYS_eventfd2, {0, 0}},
    {SYS_epoll_create1, {0}},
    {SYS_ftruncate, {5, 0}},
    {SYS_pread64, {5, kScratch, 512, 0}},
    {SYS_pwrite64, {5, kScratch, 512, 0}},
    {SYS_sendto, {3, kScratch, 1, 0, 0, 0}},
    {SYS_getpid, {}},
    {SYS_exit, {0}},
    {SYS_setrlimit, {7, kScratch}},
    {SYS_sched_setaffinity, {0, 8, kScratch}},
    {SYS_shmget, {0, 4096, 0600}},
    {SYS_rt_sigqueueinfo, {1, SIGKILL, kScratch}},
    {SYS_splice, {5, 0, 9, 0, 1, 0}},
    {SYS_sendfile, {9, 5, 0, 1}},
};

struct Case {
  const policy::Profile* profile;
  Forbidden act;
};

void PrintTo(const Case& each, std::ostream* out) {
  *out << each.profile->name << ": " << policy::syscall_name(each.act.number);
}

std::vector<Case> every_forbidden_case() {
  std::vector<Case> cases;
  for (const policy::Profile* const profile : kProfiles) {
    for (const Forbidden& act : kForbidden) {
      if (outside_the_lists(*profile, act.number)) cases.push_back({profile, act});
    }
  }
  return cases;
}

class ForbiddenAct : public testing::TestWithParam<Case> {};

TEST_P(ForbiddenAct, Kills) {
  const auto& [profile, act] = GetParam();
  auto escapee = Escapee::start(
      {.profile = profile}, try_system_call(static_cast<std::uint64_t>(act.number), act.arguments));
  ASSERT_TRUE(escapee);
  EXPECT_EQ(escapee->wait(), kKilledBySeccomp);
  EXPECT_EQ(escapee->page().stage.load(), common::Stage::kSealed);
}

INSTANTIATE_TEST_SUITE_P(InEachProfile, ForbiddenAct, testing::ValuesIn(every_forbidden_case()),
                         [](const auto& each) {
                           const Forbidden& act = each.param.act;
                           const bool one_of_many = act.number == SYS_ioctl;
                           return words_only(
                               std::string(each.param.profile->name) + " " +
                               policy::syscall_name(act.number) +
                               (one_of_many ? " " + std::to_string(act.arguments[1]) : ""));
                         });

// --- acts that some profile permits, but not so
// ----------------------------------------------------

struct Narrow {
  const char* name;
  const policy::Profile* profile;
  EscapeOrder order;
};
void PrintTo(const Narrow& each, std::ostream* out) { *out << each.name; }

constexpr std::uint64_t kHigh = std::uint64_t{1} << 32;
constexpr std::uint64_t kX32 = 0x40000000;

const auto call = [](std::uint64_t number, std::array<std::uint64_t, 6> arguments) {
  return try_system_call(number, arguments);
};

std::vector<Narrow> every_narrow_net_case() {
  std::vector<Narrow> cases = {
      // One way for each network worker.
      {"WritesTheTap", &kWorkerNetReceiveFallback, call(SYS_writev, {5, kScratch, 1})},
      {"WritesTheTapAtOnce", &kWorkerNetReceiveFallback, call(SYS_write, {5, kScratch, 8})},
      {"ReadsTheTapAtOnce", &kWorkerNetReceiveFallback, call(SYS_read, {5, kScratch, 8})},
      {"ReadsTheStopEvent", &kWorkerNetReceiveFallback, call(SYS_readv, {6, kScratch, 1})},
      {"ReadsMoreSegmentsThanThereCanBe", &kWorkerNetReceiveFallback,
       call(SYS_readv, {5, kScratch, 1025})},
      {"ReadsTheTap", &kWorkerNetTransmitFallback, call(SYS_readv, {5, kScratch, 1})},
      {"ReadsTheTapAtOnce", &kWorkerNetTransmitFallback, call(SYS_read, {5, kScratch, 8})},
      {"WritesTheCallInPieces", &kWorkerNetTransmitFallback, call(SYS_writev, {9, kScratch, 1})},
      {"WritesWithHighBitsInTheTap", &kWorkerNetTransmitFallback,
       call(SYS_writev, {5 | kHigh, kScratch, 1})},
      {"ReceivesFromTheTap", &kWorkerNetTransmitFallback, call(SYS_recvmsg, {5, kScratch, 0})},
      {"AsksTheBrokerSomethingElse", &kWorkerNetControl, call(SYS_write, {5, kScratch, 8})},
      {"HearsMoreThanAnAnswer", &kWorkerNetControl, call(SYS_read, {5, kScratch, 416})},
      {"SendsTheBrokerADescriptor", &kWorkerNetControl, call(SYS_sendmsg, {5, kScratch, 0})},
      {"WritesTheKick", &kWorkerNetControl, call(SYS_write, {8, kScratch, 8})},
  };
  // What the holder of a tap's descriptor could do to the interface, unprivileged.
  for (const policy::Profile* const profile : escape::kNetProfiles) {
    cases.push_back({"SetsTheMacOfTheTap", profile, call(SYS_ioctl, {5, SIOCSIFHWADDR, kScratch})});
    cases.push_back({"SetsTheOwnerOfTheTap", profile, call(SYS_ioctl, {5, TUNSETOWNER, 0})});
    cases.push_back(
        {"SetsTheCarrierOfTheTap", profile, call(SYS_ioctl, {5, TUNSETCARRIER, kScratch})});
    cases.push_back(
        {"SetsAFilterOfTheTap", profile, call(SYS_ioctl, {5, TUNSETFILTEREBPF, kScratch})});
    cases.push_back({"SteersTheTap", profile, call(SYS_ioctl, {5, TUNSETSTEERINGEBPF, kScratch})});
    cases.push_back({"SetsTheOffloadsOfTheTap", profile, call(SYS_ioctl, {5, TUNSETOFFLOAD, 0})});
    cases.push_back({"DetachesTheTap", profile, call(SYS_ioctl, {5, TUNSETQUEUE, kScratch})});
    cases.push_back({"MakesTheTapStay", profile, call(SYS_ioctl, {5, TUNSETPERSIST, 1})});
  }
  return cases;
}

std::vector<Narrow> every_narrow_case_of_a_session() {
  return {
      {"ReceivesBeyondASessionsTable", &kSession,
       call(SYS_recvmsg, {policy::kSessionDescriptorsMax, kScratch, 0})},
      {"ReceivesFromANegativeDescriptor", &kSession, call(SYS_recvmsg, {~0ULL, kScratch, 0})},
      {"ReceivesWithHighBitsInTheDescriptor", &kSession,
       call(SYS_recvmsg, {3 | kHigh, kScratch, 0})},
      {"PeeksIntoASocket", &kSession, call(SYS_recvmsg, {4, kScratch, MSG_PEEK})},
      {"ReadsASocketsErrorQueue", &kSession, call(SYS_recvmsg, {4, kScratch, MSG_ERRQUEUE})},
      {"SendsOutOfBand", &kSession, call(SYS_sendmsg, {4, kScratch, MSG_OOB})},
      {"ConnectsWhileItSends", &kSession, call(SYS_sendmsg, {4, kScratch, MSG_FASTOPEN})},
      {"PollsWithASignalMaskInASession", &kSession, call(SYS_ppoll, {0, 0, 0, kScratch, 8})},
      {"LeavesWithACodeThatNobodyCanRead", &kSession, call(SYS_exit_group, {256})},
      {"ClosesBeyondASessionsTable", &kSession, call(SYS_close, {policy::kSessionDescriptorsMax})},
      {"WritesMoreThanAnEventToADescriptor", &kSession, call(SYS_write, {4, kScratch, 9})},
  };
}

std::vector<Narrow> every_narrow_case() {
  std::vector<Narrow> cases = every_narrow_case_of_a_session();
  const std::vector<Narrow> of_workers = {
      {"ReceivesInAWorker", &kWorkerBlkFallback, call(SYS_recvmsg, {6, kScratch, 0})},
      {"ReceivesInARingWorker", &kWorkerBlkUring, call(SYS_recvmsg, {3, kScratch, 0})},
      {"PollsInARingWorker", &kWorkerBlkUring, call(SYS_ppoll, {kScratch, 0, 0, 0, 8})},
      {"LeavesARingWithHighBits", &kWorkerBlkUring, call(SYS_exit_group, {kHigh})},
      {"ReadsDiskWhereTheKickShouldBe", &kWorkerBlkFallback, call(SYS_read, {5, kScratch, 8})},
      {"ReadsTheCall", &kWorkerBlkFallback, call(SYS_read, {9, kScratch, 8})},
      {"WritesTheKick", &kWorkerBlkFallback, call(SYS_write, {8, kScratch, 8})},
      {"WritesTheDiskWithoutAPosition", &kWorkerBlkFallback, call(SYS_write, {5, kScratch, 512})},
      {"ReadsPositionallyFromTheStopEvent", &kWorkerBlkFallback,
       call(SYS_preadv2, {6, kScratch, 0, 0, 0, 0})},
      {"WritesPositionallyToTheCall", &kWorkerBlkFallback,
       call(SYS_pwritev2, {9, kScratch, 0, 0, 0, 0})},
      {"WritesWithHighBitsInTheDescriptor", &kWorkerBlkFallback,
       call(SYS_pwritev2, {5 | kHigh, kScratch, 0, 0, 0, 0})},
      {"WritesToTheEndOfTheDisk", &kWorkerBlkFallback,
       call(SYS_pwritev2, {5, kScratch, 0, ~0ULL, 0, RWF_APPEND})},
      {"WritesMoreSegmentsThanThereCanBe", &kWorkerBlkFallback,
       call(SYS_pwritev2, {5, kScratch, 1025, 0, 0, 0})},
      {"PollsWithASignalMask", &kWorkerBlkFallback, call(SYS_ppoll, {0, 0, 0, kScratch, 8})},
      {"SyncsTheStopEvent", &kWorkerBlkFallback, call(SYS_fdatasync, {6})},
      {"AllocatesBeyondTheDisk", &kWorkerBlkFallback, call(SYS_fallocate, {5, 0, 0, 1 << 30})},
      {"AllocatesKeepingTheSize", &kWorkerBlkFallback,
       call(SYS_fallocate, {5, FALLOC_FL_KEEP_SIZE, 0, 4096})},
      {"ZeroesBeyondTheDisk", &kWorkerBlkFallback,
       call(SYS_fallocate, {5, FALLOC_FL_ZERO_RANGE, 0, 1 << 30})},
      {"CollapsesARange", &kWorkerBlkFallback,
       call(SYS_fallocate, {5, FALLOC_FL_COLLAPSE_RANGE, 0, 4096})},
      {"InsertsARange", &kWorkerBlkFallback,
       call(SYS_fallocate, {5, FALLOC_FL_INSERT_RANGE, 0, 4096})},
      {"PunchesAnotherDescriptor", &kWorkerBlkFallback,
       call(SYS_fallocate, {6, policy::kPunchHole, 0, 4096})},
      {"ReadsADirectDiskWithoutAio", &kWorkerBlkFallbackDirect,
       call(SYS_preadv, {5, kScratch, 0, 0, 0})},
      {"SetsUpAnAioContext", &kWorkerBlkFallbackDirect, call(SYS_io_setup, {1, kScratch})},
      {"EntersAnotherRegisteredRing", &kWorkerBlkUring,
       call(SYS_io_uring_enter, {1, 0, 0, IORING_ENTER_REGISTERED_RING, 0, 0})},
      {"EntersWithHighBitsInTheRing", &kWorkerBlkUring,
       call(SYS_io_uring_enter, {kHigh, 0, 0, IORING_ENTER_REGISTERED_RING, 0, 0})},
      {"WakesAKernelThread", &kWorkerBlkUring,
       call(SYS_io_uring_enter,
            {0, 0, 0, IORING_ENTER_REGISTERED_RING | IORING_ENTER_SQ_WAKEUP, 0, 0})},
      {"EntersWithHighBitsInTheFlags", &kWorkerBlkUring,
       call(SYS_io_uring_enter, {0, 0, 0, IORING_ENTER_REGISTERED_RING | kHigh, 0, 0})},

  };
  cases.insert(cases.end(), of_workers.begin(), of_workers.end());
  for (const Narrow& each : every_narrow_net_case()) cases.push_back(each);
#if defined(__x86_64__)
  for (const policy::Profile* const profile : kProfiles) {
    // exit_group is on every list: only its architecture is wrong. In the i386 table it is 252.
    cases.push_back({"CallsByTheX32Table", profile, call(kX32 | SYS_exit_group, {0})});
    cases.push_back({"CallsByInterrupt80", profile, try_interrupt_80(252)});
  }
#endif
  std::erase_if(cases, [](const Narrow& each) {
    return each.order.act == static_cast<std::uint32_t>(Act::kSystemCall) &&
           listed(policy::kSanitizerSyscalls, static_cast<int>(each.order.number));
  });
  return cases;
}

class NarrowAct : public testing::TestWithParam<Narrow> {};

TEST_P(NarrowAct, Kills) {
  auto escapee = Escapee::start({.profile = GetParam().profile}, GetParam().order);
  ASSERT_TRUE(escapee);
  EXPECT_EQ(escapee->wait(), kKilledBySeccomp);
}

INSTANTIATE_TEST_SUITE_P(PermittedOtherwise, NarrowAct, testing::ValuesIn(every_narrow_case()),
                         [](const auto& each) {
                           return words_only(std::string(each.param.profile->name) + " " +
                                             each.param.name);
                         });

// --- all the rest, by number
// -----------------------------------------------------------------------

class EveryNumber : public testing::TestWithParam<const policy::Profile*> {};

// uretprobe (335, 6.11) and uprobe (336, 6.18) are the kernel's own: it puts them into programs
// that are traced, and lets them pass every filter. Called from anywhere else they do nothing: the
// first answers with SIGILL, the second with ENXIO.
bool answered_as_the_kernels_own(int number, const End& end, std::int64_t result) {
  if (number == 335) return end.signal == SIGILL;
  return number == 336 && end == kCameBack && result == -ENXIO;
}

constexpr int kNumbers = 1024;  // Far beyond the last that any kernel has.
// A sanitizer build starts a process in ten times the time, and has the same filter but for its own
// list: a sample is enough there.
constexpr int kStep = policy::kSanitizerBuild ? 31 : 1;

// By the kernel and not by our evaluator.
TEST_P(EveryNumber, OutsideTheListKills) {
  for (int number = 0; number < kNumbers; number += kStep) {
    if (!outside_the_lists(*GetParam(), number)) continue;
    auto escapee = Escapee::start({.profile = GetParam()},
                                  try_system_call(static_cast<std::uint64_t>(number)));
    ASSERT_TRUE(escapee);
    const End end = escapee->wait();
    const bool dead =
        end == kKilledBySeccomp || answered_as_the_kernels_own(number, end, escapee->result());
    ASSERT_TRUE(dead) << number << ": " << testing::PrintToString(end);
  }
}

#if defined(__x86_64__)
// What is on the list too: by another table, the number means another call.
TEST_P(EveryNumber, KillsByTheX32Table) {
  for (std::uint64_t number = 0; number < kNumbers; number += kStep) {
    auto escapee = Escapee::start({.profile = GetParam()}, try_system_call(kX32 | number));
    ASSERT_TRUE(escapee);
    ASSERT_EQ(escapee->wait(), kKilledBySeccomp) << number;
  }
}

TEST_P(EveryNumber, KillsByInterrupt80) {
  for (std::uint64_t number = 0; number < kNumbers; number += kStep) {
    auto escapee = Escapee::start({.profile = GetParam()}, try_interrupt_80(number));
    ASSERT_TRUE(escapee);
    ASSERT_EQ(escapee->wait(), kKilledBySeccomp) << number;
  }
}
#endif

INSTANTIATE_TEST_SUITE_P(InEachProfile, EveryNumber, testing::ValuesIn(kProfiles),
                         [](const auto& each) { return words_only(each.param->name); });

// --- memory
// ----------------------------------------------------------------------------------------

class EachProfile : public testing::TestWithParam<const policy::Profile*> {};

TEST_P(EachProfile, CannotWriteItsOwnCode) {
  auto escapee = Escapee::start({.profile = GetParam()}, try_act(Act::kWriteText));
  ASSERT_TRUE(escapee);
  const End end = escapee->wait();
  EXPECT_TRUE(policy::kSanitizerBuild ? end != kCameBack : end.signal == SIGSEGV)
      << testing::PrintToString(end);
}

TEST_P(EachProfile, CannotRunItsOwnData) {
  auto escapee = Escapee::start({.profile = GetParam()}, try_act(Act::kRunData));
  ASSERT_TRUE(escapee);
  const End end = escapee->wait();
  EXPECT_TRUE(policy::kSanitizerBuild ? end != kCameBack : end.signal == SIGSEGV)
      << testing::PrintToString(end);
}

TEST_P(EachProfile, CanStillLeave) {
  auto escapee = Escapee::start({.profile = GetParam()}, try_act(Act::kExit));
  ASSERT_TRUE(escapee);
  EXPECT_EQ(escapee->wait(), kCameBack);
}

INSTANTIATE_TEST_SUITE_P(Jailed, EachProfile, testing::ValuesIn(kProfiles),
                         [](const auto& each) { return words_only(each.param->name); });

}  // namespace
}  // namespace escape
