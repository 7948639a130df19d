#include "policy/spawn_child.h"

#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <climits>
#include <csignal>
#include <cstdint>

#include "policy/sanitizer.h"

// No instrumented code, which keeps state of its own in the memory we share.
#define BULKHEAD_CHILD_CODE __attribute__((no_sanitize("address", "thread", "undefined")))

namespace policy {
namespace {

// The errno that these system calls set is the parent's, who waits and does not look.

[[noreturn]] BULKHEAD_CHILD_CODE void leave_child(const SpawnPlan& plan, SpawnStep step,
                                                  int os_errno) {
  const SpawnFailure failure{step, os_errno};
  (void)::syscall(SYS_sendto, plan.our_end, &failure, sizeof(failure), MSG_NOSIGNAL, nullptr, 0);
  while (true) ::syscall(SYS_exit_group, 127);
}

BULKHEAD_CHILD_CODE void must(const SpawnPlan& plan, SpawnStep step, long result) {
  if (result < 0) leave_child(plan, step, errno);
}

// End of file means that the parent has given up, or died.
BULKHEAD_CHILD_CODE void wait_for_maps(const SpawnPlan& plan) {
  ::syscall(SYS_close, plan.parent_end);
  char go = 0;
  if (::syscall(SYS_recvfrom, plan.our_end, &go, 1, 0, nullptr, nullptr) != 1) {
    while (true) ::syscall(SYS_exit_group, 127);
  }
}

BULKHEAD_CHILD_CODE void take_ids(const SpawnPlan& plan) {
  if (plan.drop_groups) must(plan, SpawnStep::kGroups, ::syscall(SYS_setgroups, 0, nullptr));
  if (!plan.take_ids) return;
  must(plan, SpawnStep::kGid, ::syscall(SYS_setresgid, 0, 0, 0));
  must(plan, SpawnStep::kUid, ::syscall(SYS_setresuid, 0, 0, 0));
}

// Survives exec, but not a change of ids, so it comes after it. A parent that died before is
// noticed by the closed pair.
BULKHEAD_CHILD_CODE void leave_session(const SpawnPlan& plan) {
  must(plan, SpawnStep::kSession, ::syscall(SYS_setsid));
  if (plan.outlives_parent) return;
  must(plan, SpawnStep::kDeathSignal, ::syscall(SYS_prctl, PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0));
  char none = 0;
  const long alive =
      ::syscall(SYS_recvfrom, plan.our_end, &none, 1, MSG_DONTWAIT, nullptr, nullptr);
  if (alive == 0) leave_child(plan, SpawnStep::kDeathSignal, ESRCH);
}

BULKHEAD_CHILD_CODE int moved_up(const SpawnPlan& plan, int number) {
  const long moved = ::syscall(SYS_fcntl, number, F_DUPFD_CLOEXEC, plan.above_targets + 2);
  must(plan, SpawnStep::kMove, moved);
  return static_cast<int>(moved);
}

BULKHEAD_CHILD_CODE void place(const SpawnPlan& plan, int from, int number, int flags) {
  must(plan, SpawnStep::kMove, ::syscall(SYS_dup3, from, number, flags));
}

BULKHEAD_CHILD_CODE void close_between(const SpawnPlan& plan, unsigned first, unsigned last) {
  if (first <= last) must(plan, SpawnStep::kClose, ::syscall(SYS_close_range, first, last, 0U));
}

// A target may be the number of another's source: so all sources go above all targets first, then
// each to its place, the program and our end of the pair right above, and what is left is closed.
BULKHEAD_CHILD_CODE void arrange_descriptors(SpawnPlan& plan) {
  for (std::size_t i = 0; i < plan.descriptor_count; ++i) {
    plan.descriptors[i].from.number = moved_up(plan, plan.descriptors[i].from.number);
  }
  const int null = moved_up(plan, plan.null);
  const int program = moved_up(plan, plan.program);
  plan.our_end = moved_up(plan, plan.our_end);

  const int last_standard = kSanitizerBuild ? STDOUT_FILENO : STDERR_FILENO;
  for (int number = 0; number <= last_standard; ++number) place(plan, null, number, 0);
  unsigned next = STDERR_FILENO + 1;
  for (std::size_t i = 0; i < plan.descriptor_count; ++i) {  // Ascending numbers.
    const DescriptorAt& each = plan.descriptors[i];
    const auto number = static_cast<unsigned>(each.number);
    close_between(plan, next, number - 1);
    place(plan, each.from.number, each.number, 0);
    next = number + 1;
  }
  place(plan, program, plan.above_targets, O_CLOEXEC);
  place(plan, plan.our_end, plan.above_targets + 1, O_CLOEXEC);
  plan.program = plan.above_targets;
  plan.our_end = plan.above_targets + 1;
  close_between(plan, static_cast<unsigned>(plan.above_targets) + 2, UINT_MAX);
}

// exec() keeps ignored signals ignored and blocked ones blocked. Handlers first: until exec they
// are the broker's, on the broker's memory.
BULKHEAD_CHILD_CODE void reset_signals(const SpawnPlan& plan) {
  struct {
    void* handler;
    unsigned long flags;
    void* restorer;
    std::uint64_t mask;
  } const standard{};
  for (int signal = 1; signal < _NSIG; ++signal) {
    if (signal == SIGKILL || signal == SIGSTOP) continue;
    must(plan, SpawnStep::kSignals,
         ::syscall(SYS_rt_sigaction, signal, &standard, nullptr, sizeof(std::uint64_t)));
  }
  const std::uint64_t none = 0;
  must(plan, SpawnStep::kSignals,
       ::syscall(SYS_rt_sigprocmask, SIG_SETMASK, &none, nullptr, sizeof(none)));
}

}  // namespace

const char* step_text(SpawnStep step) noexcept {
  switch (step) {
    case SpawnStep::kGroups:
      return "spawn: drop groups";
    case SpawnStep::kGid:
      return "spawn: take gid";
    case SpawnStep::kUid:
      return "spawn: take uid";
    case SpawnStep::kSession:
      return "spawn: setsid";
    case SpawnStep::kDeathSignal:
      return "spawn: PDEATHSIG";
    case SpawnStep::kMove:
      return "spawn: move descriptors";
    case SpawnStep::kClose:
      return "spawn: close descriptors";
    case SpawnStep::kSignals:
      return "spawn: reset signals";
    case SpawnStep::kExec:
      return "spawn: exec";
  }
  return "spawn: unknown step";
}

BULKHEAD_CHILD_CODE int child_main(void* argument) {
  SpawnPlan& plan = *static_cast<SpawnPlan*>(argument);
  wait_for_maps(plan);
  take_ids(plan);
  if (plan.program < 0) {
    while (true) ::syscall(SYS_exit_group, 0);
  }
  leave_session(plan);
  arrange_descriptors(plan);
  reset_signals(plan);
  const char* const arguments[] = {plan.title, nullptr};
  ::syscall(SYS_execveat, plan.program, "", arguments, plan.environment, AT_EMPTY_PATH);
  leave_child(plan, SpawnStep::kExec, errno);
}

}  // namespace policy
