#include "policy/spawn.h"

#include <fcntl.h>
#include <linux/capability.h>
#include <linux/sched.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <string_view>
#include <utility>

#include "common/sys.h"
#include "policy/capabilities.h"
#include "policy/capability_aside.h"
#include "policy/core_scheduling.h"
#include "policy/exec_label.h"
#include "policy/sanitizer.h"
#include "policy/spawn_child.h"

namespace policy {
namespace {

using common::fail_errno;
using common::Fd;
using common::FdRef;
using common::Result;

constexpr std::uint32_t kAllNamespaces = CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWNET |
                                         CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWCGROUP;

// The child's stack; a fault below it hits the guard and not our memory.
class ChildStack {
 public:
  ChildStack() noexcept
      : start_(::mmap(nullptr, kBytes, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0)) {
    if (valid()) guarded_ = ::mprotect(start_, kGuardBytes, PROT_NONE) == 0;
  }
  ChildStack(const ChildStack&) = delete;
  ChildStack& operator=(const ChildStack&) = delete;
  ~ChildStack() {
    if (valid()) ::munmap(start_, kBytes);
  }
  [[nodiscard]] bool usable() const noexcept { return valid() && guarded_; }
  [[nodiscard]] void* top() const noexcept { return static_cast<std::byte*>(start_) + kBytes; }
  [[nodiscard]] void* bottom() const noexcept { return start_; }
  [[nodiscard]] static constexpr std::size_t bytes() noexcept { return kBytes; }

 private:
  static constexpr std::size_t kGuardBytes = 4096;
  static constexpr std::size_t kBytes = std::size_t{64} * 1024;
  [[nodiscard]] bool valid() const noexcept { return start_ != MAP_FAILED; }
  void* start_;
  bool guarded_ = false;
};

// No handler of ours may run in the child: it would run on our memory.
class SignalsBlocked {
 public:
  SignalsBlocked() noexcept {
    sigset_t all;
    ::sigfillset(&all);
    ::pthread_sigmask(SIG_BLOCK, &all, &before_);
  }
  SignalsBlocked(const SignalsBlocked&) = delete;
  SignalsBlocked& operator=(const SignalsBlocked&) = delete;
  ~SignalsBlocked() { ::pthread_sigmask(SIG_SETMASK, &before_, nullptr); }

 private:
  sigset_t before_;
};

Result<Fd> open_file(const char* path, int flags, const char* what) {
  Fd file(::open(path, flags | O_CLOEXEC));
  if (!file.valid()) return fail_errno(what, errno);
  return file;
}

Result<Fd> own_network() {
  return open_file("/proc/thread-self/ns/net", O_RDONLY, "open own network namespace");
}

// In another network namespace until leave() or the end of the scope. Only this thread is.
class NetworkVisit {
 public:
  [[nodiscard]] static Result<NetworkVisit> enter(FdRef network) {
    NetworkVisit visit;
    if (!network.valid()) return visit;
    TRY_LET(visit.home_, own_network());
    if (::setns(network.number, CLONE_NEWNET) != 0) {
      visit.home_.reset();
      return fail_errno("spawn: enter the empty network namespace", errno);
    }
    return visit;
  }
  NetworkVisit(NetworkVisit&&) = default;
  NetworkVisit& operator=(NetworkVisit&&) = delete;
  ~NetworkVisit() {
    // A broker that stayed there would open its next tap in the wrong place.
    if (home_.valid() && ::setns(home_.ref().number, CLONE_NEWNET) != 0) __builtin_trap();
  }

 private:
  NetworkVisit() = default;
  Fd home_;
};

Result<void> write_proc(pid_t pid, const char* name, std::string_view text, const char* what) {
  char path[64];
  std::snprintf(path, sizeof(path), "/proc/%d/%s", pid, name);
  TRY_LET(const Fd file, open_file(path, O_WRONLY, what));
  const ssize_t wrote = ::write(file.ref().number, text.data(), text.size());
  if (wrote != static_cast<ssize_t>(text.size())) return fail_errno(what, wrote < 0 ? errno : EIO);
  return {};
}

Result<void> write_maps(pid_t pid, std::uint32_t uid, std::uint32_t gid, bool deny_setgroups) {
  // Without CAP_SETGID the kernel maps our gid only where groups can never change again.
  if (deny_setgroups) TRY(write_proc(pid, "setgroups", "deny", "spawn: deny setgroups"));
  char line[32];
  int bytes = std::snprintf(line, sizeof(line), "0 %u 1\n", uid);
  TRY(write_proc(pid, "uid_map", {line, static_cast<std::size_t>(bytes)}, "spawn: map the uid"));
  bytes = std::snprintf(line, sizeof(line), "0 %u 1\n", gid);
  return write_proc(pid, "gid_map", {line, static_cast<std::size_t>(bytes)}, "spawn: map the gid");
}

// The files of a process whose memory is not dumpable belong to root, and until exec the child's
// memory is ours; where /proc is mounted with hidepid (systemd's ProtectProc=) they are not even
// there. A broker that is not dumpable and not root becomes so for these three writes.
Result<void> write_maps_dumpable(pid_t pid, std::uint32_t uid, std::uint32_t gid, bool deny) {
  const auto first = write_maps(pid, uid, gid, deny);
  if (first || ::prctl(PR_GET_DUMPABLE) == 1) return first;
  if (first.error().os_errno != EACCES && first.error().os_errno != ENOENT) return first;
  if (::prctl(PR_SET_DUMPABLE, 1) != 0) return first;
  const auto second = write_maps(pid, uid, gid, deny);
  (void)::prctl(PR_SET_DUMPABLE, 0);
  return second;
}

// A child's change of uid makes the memory it shares with us not dumpable, and only we can undo it:
// once it has memory of its own. A sanitizer build's child has a copy of it from the start, whose
// files in /proc we can write only if it was dumpable when it was copied.
class DumpableKept {
 public:
  DumpableKept() noexcept : before_(::prctl(PR_GET_DUMPABLE)) {
    if (kSanitizerBuild) (void)::prctl(PR_SET_DUMPABLE, 1);
  }
  DumpableKept(const DumpableKept&) = delete;
  DumpableKept& operator=(const DumpableKept&) = delete;
  ~DumpableKept() {
    if (::prctl(PR_GET_DUMPABLE) != before_) (void)::prctl(PR_SET_DUMPABLE, before_ == 1 ? 1 : 0);
  }

 private:
  int before_;
};

struct Started {
  Child child;
  Fd pair;  // Our end.
};

// clone3(), which the C library has no function for: `run(argument)` on the new stack, and never
// back. The new cgroup is what clone() cannot name.
static_assert(sizeof(clone_args) == 88);  // policy/broker.h
long clone_into(const clone_args& arguments, int (*run)(void*), void* argument) {
  long result = SYS_clone3;
  asm volatile(
      "syscall\n\t"
      "testq %%rax, %%rax\n\t"
      "jnz 1f\n\t"
      "xorl %%ebp, %%ebp\n\t"
      "movq %[argument], %%rdi\n\t"
      "callq *%[run]\n\t"
      "ud2\n"
      "1:"
      : "+a"(result)
      : "D"(&arguments), "S"(sizeof(arguments)), [run] "r"(run), [argument] "r"(argument)
      : "rcx", "r11", "memory", "cc");
  return result;
}

pid_t clone_child(SpawnPlan& plan, const ChildStack& stack, __u64 flags, FdRef cgroup, int& pidfd) {
  if (!cgroup.valid()) {
    return ::clone(child_main, stack.top(), static_cast<int>(flags | SIGCHLD), &plan, &pidfd,
                   nullptr, nullptr);
  }
  clone_args arguments{};
  arguments.flags = flags | CLONE_INTO_CGROUP;
  arguments.pidfd = reinterpret_cast<std::uint64_t>(&pidfd);
  arguments.exit_signal = SIGCHLD;
  arguments.stack = reinterpret_cast<std::uint64_t>(stack.bottom());
  arguments.stack_size = stack.bytes();
  arguments.cgroup = static_cast<unsigned>(cgroup.number);
  const long result = clone_into(arguments, child_main, &plan);
  if (result < 0) errno = static_cast<int>(-result);
  return static_cast<pid_t>(std::max(result, -1L));
}

Result<Started> start_child(SpawnPlan& plan, const ChildStack& stack, std::uint32_t namespaces,
                            FdRef network, FdRef cgroup) {
  TRY_LET(auto pair, common::make_packet_pair());
  plan.parent_end = pair.first.ref().number;
  plan.our_end = pair.second.ref().number;

  // Sanitizers keep a picture of memory that a second process on it would spoil: a copy, then.
  constexpr unsigned kShare = kSanitizerBuild ? 0U : unsigned{CLONE_VM};
  const __u64 flags = namespaces | kShare | unsigned{CLONE_PIDFD};
  int pidfd = -1;
  TRY_LET(const NetworkVisit visit, NetworkVisit::enter(network));
  const SignalsBlocked blocked;
  const pid_t pid = clone_child(plan, stack, flags, cgroup, pidfd);
  if (pid < 0) return fail_errno("spawn: clone", errno);
  return Started{{pid, Fd(pidfd)}, std::move(pair.first)};
}

void kill_and_reap(const Child& child) {
  (void)::kill(child.pid, SIGKILL);
  while (::waitpid(child.pid, nullptr, 0) < 0 && errno == EINTR) {
  }
}

// Lets the child run, and waits until it has become the program: the pair's other end is closed by
// exec, or says what failed.
Result<void> release(const Started& started) {
  const int pair = started.pair.ref().number;
  const char go = 1;
  if (::send(pair, &go, 1, MSG_NOSIGNAL) != 1) return fail_errno("spawn: the child is gone", errno);
  SpawnFailure failure{};
  ssize_t got = 0;
  do {
    got = ::recv(pair, &failure, sizeof(failure), 0);
  } while (got < 0 && errno == EINTR);
  if (got < 0) return fail_errno("spawn: wait for exec", errno);
  if (got == sizeof(failure)) return fail_errno(step_text(failure.step), failure.os_errno);
  return {};
}

// A privileged broker maps any uid, and its child leaves the broker's groups behind. Another can
// map its own only.
bool may_map_any_id() noexcept { return has_capability(CAP_SETUID) && has_capability(CAP_SETGID); }

Result<Child> run_plan(SpawnPlan& plan, std::uint32_t namespaces, std::uint32_t uid,
                       std::uint32_t gid, const SpawnRequest& request) {
  const bool user = (namespaces & CLONE_NEWUSER) != 0;
  const bool any_id = may_map_any_id();
  plan.take_ids = user;
  plan.drop_groups = user && any_id;

  const ChildStack stack;
  if (!stack.usable()) return fail_errno("spawn: map a stack", ENOMEM);
  const DumpableKept dumpable;
  TRY_LET(Started started,
          start_child(plan, stack, namespaces, request.net_namespace, request.cgroup));
  Result<void> running{};
  if (user) running = write_maps_dumpable(started.child.pid, uid, gid, !any_id);
  if (running && request.core_cookie_of != 0) {
    carry_core_cookie(request.core_cookie_of, started.child.pid);
  }
  if (running) running = release(started);
  if (!running) {
    kill_and_reap(started.child);  // Before its stack goes away.
    return common::fail(running.error());
  }
  return std::move(started.child);
}

Result<void> plan_descriptors(const SpawnRequest& request, SpawnPlan& plan) {
  if (request.descriptors.size() > plan.descriptors.size()) {
    return fail_errno("spawn: too many descriptors", EINVAL);
  }
  plan.descriptor_count = request.descriptors.size();
  std::copy(request.descriptors.begin(), request.descriptors.end(), plan.descriptors.begin());
  const std::span used(plan.descriptors.data(), plan.descriptor_count);
  std::sort(used.begin(), used.end(),
            [](const DescriptorAt& a, const DescriptorAt& b) { return a.number < b.number; });
  int last = STDERR_FILENO;
  for (const DescriptorAt& each : used) {
    if (!each.from.valid() || each.number <= last) {
      return fail_errno("spawn: descriptor numbers", EINVAL);
    }
    last = each.number;
  }
  plan.above_targets = last + 1;
  return {};
}

}  // namespace

Result<Child> spawn(const SpawnRequest& request) {
  if (!request.program.valid()) return fail_errno("spawn: no program", EBADF);
  SpawnPlan plan;
  TRY(plan_descriptors(request, plan));
  TRY_LET(const Fd null, open_file("/dev/null", O_RDWR, "spawn: open /dev/null"));
  char* const none[] = {nullptr};
  plan.null = null.ref().number;
  plan.program = request.program.number;
  plan.title = request.title;
  plan.outlives_parent = request.outlives_parent;
  plan.environment = kSanitizerBuild ? environ : none;
  TRY_LET(const ExecLabel label, ExecLabel::set(request.label));
  const std::uint32_t inherited = request.net_namespace.valid() ? unsigned{CLONE_NEWNET} : 0U;
  return run_plan(plan, request.namespaces & ~inherited, request.uid, request.gid, request);
}

Result<Fd> make_empty_network() {
  TRY_LET(Fd home, own_network());
  if (::unshare(CLONE_NEWNET) != 0) return fail_errno("make a network namespace", errno);
  Result<Fd> made = own_network();
  if (::setns(home.ref().number, CLONE_NEWNET) != 0) __builtin_trap();
  return made;
}

namespace {

Result<void> try_namespaces(std::uint32_t flags) {
  SpawnPlan plan;
  TRY_LET(const Child child, run_plan(plan, flags, ::geteuid(), ::getegid(), {}));
  while (::waitpid(child.pid, nullptr, 0) < 0 && errno == EINTR) {
  }
  return {};
}

Result<void> try_without_admin(std::uint32_t flags) {
  const CapabilityAside aside(CAP_SYS_ADMIN);
  return try_namespaces(flags);
}

}  // namespace

NamespaceSupport probe_namespaces() {
  const auto first = try_without_admin(kAllNamespaces);
  if (first) return {kAllNamespaces, 0, false};
  const int os_errno = first.error().os_errno;
  if (has_capability(CAP_SYS_ADMIN) && try_namespaces(kAllNamespaces)) {
    return {kAllNamespaces, 0, true};
  }
  constexpr std::uint32_t kNotUser = kAllNamespaces & ~unsigned{CLONE_NEWUSER};
  if (try_namespaces(kNotUser)) return {kNotUser, os_errno, true};
  return {0, os_errno, false};
}

}  // namespace policy
