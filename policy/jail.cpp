#include "policy/jail.h"

#include <grp.h>
#include <link.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cerrno>
#include <climits>
#include <csignal>
#include <string_view>

#include "common/ipc/channel.h"
#include "common/ipc/worker_messages.h"
#include "common/startup_pages.h"
#include "policy/capabilities.h"
#include "policy/core_scheduling.h"
#include "policy/empty_root.h"
#include "policy/landlock.h"
#include "policy/last_namespaces.h"
#include "policy/rlimits.h"
#include "policy/sanitizer.h"

namespace policy {
namespace {

using common::fail_errno;
using common::Layer;
using common::LayerResult;
using common::LayerResults;
using common::Result;
using common::StatusPage;
using common::ipc::JailOrder;
using State = common::LayerResult::State;

// Newer than the headers of some build hosts.
constexpr int kSetMdwe = 65;                  // PR_SET_MDWE, 6.3
constexpr unsigned long kRefuseExecGain = 1;  // PR_MDWE_REFUSE_EXEC_GAIN
constexpr long kMseal = 462;                  // 6.10

void record(StatusPage& page, Layer layer, LayerResult result) noexcept {
  page.layers[static_cast<std::size_t>(layer)].store(std::bit_cast<std::uint32_t>(result),
                                                     std::memory_order_relaxed);
}

LayerResult outcome(State state, int os_errno = 0) noexcept {
  return {state, 0, static_cast<std::uint16_t>(os_errno)};
}

LayerResult outcome(const Result<void>& result) noexcept {
  return result ? outcome(State::kEnforced) : outcome(State::kAbsent, result.error().os_errno);
}

LayerResults recorded(const StatusPage& page) noexcept {
  LayerResults results{};
  for (std::size_t i = 0; i < results.size(); ++i) {
    results[i] = std::bit_cast<LayerResult>(page.layers[i].load(std::memory_order_relaxed));
  }
  return results;
}

// Started by descriptor, a program would be called by that number in ps and in audit records. The
// title that the broker has chosen goes on with the device and the queue: "PROGRAM: vda/2".
void name_process() noexcept {
  constexpr std::size_t kBytes = 16;  // TASK_COMM_LEN
  std::array<char, kBytes> name{};
  const std::string_view title = program_invocation_name;
  title.substr(0, title.find(':')).copy(name.data(), kBytes - 1);
  (void)::prctl(PR_SET_NAME, name.data(), 0, 0, 0);
}

// The broker says what its clone() gave us: there is no /proc to ask once the root is empty.
void record_namespaces(const JailOrder& order, StatusPage& page) noexcept {
  constexpr std::pair<Layer, std::uint32_t> kNamespaces[] = {
      {Layer::kUserNamespace, CLONE_NEWUSER},     {Layer::kPidNamespace, CLONE_NEWPID},
      {Layer::kMountNamespace, CLONE_NEWNS},      {Layer::kNetNamespace, CLONE_NEWNET},
      {Layer::kIpcNamespace, CLONE_NEWIPC},       {Layer::kUtsNamespace, CLONE_NEWUTS},
      {Layer::kCgroupNamespace, CLONE_NEWCGROUP},
  };
  for (const auto& [layer, flag] : kNamespaces) {
    record(page, layer,
           outcome((order.namespaces & flag) != 0 ? State::kEnforced : State::kAbsent));
  }
}

// Degraded: those within ours could make more of them, were it not for seccomp.
void forbid_more_namespaces(const JailOrder& order, StatusPage& page) noexcept {
  if ((order.namespaces & CLONE_NEWUSER) == 0) return;
  const Result<void> forbidden = forbid_user_namespaces();
  if (forbidden) return;
  record(page, Layer::kUserNamespace, outcome(State::kDegraded, forbidden.error().os_errno));
}

LayerResult take_root(const JailOrder& order) noexcept {
  if ((order.namespaces & CLONE_NEWNS) == 0) return outcome(State::kAbsent);
  return outcome(enter_empty_root());
}

Result<void> change_ids(const JailOrder& order) noexcept {
  // The system calls themselves: the C library's functions would ask all threads of a process to
  // follow, and allocate. `keep capabilities` is not needed: securebits say NO_SETUID_FIXUP, or,
  // where those could not be locked, the capabilities that this step takes away would have gone
  // next.
  if (::syscall(SYS_setgroups, 0, nullptr) != 0) return fail_errno("drop groups", errno);
  if (::syscall(SYS_setresgid, order.gid, order.gid, order.gid) != 0) {
    return fail_errno("change gid", errno);
  }
  if (::syscall(SYS_setresuid, order.uid, order.uid, order.uid) != 0) {
    return fail_errno("change uid", errno);
  }
  return {};
}

Result<LayerResult> take_uid(const JailOrder& order) noexcept {
  if (order.change_ids != 0) TRY(change_ids(order));
  const bool moved = order.change_ids != 0 || (order.namespaces & CLONE_NEWUSER) != 0;
  if (!moved) return outcome(State::kAbsent);
  return outcome(order.same_uid != 0 ? State::kDegraded : State::kEnforced);
}

// What must not be missing ends the process; the broker reads on the page which layer it was.
auto without(StatusPage& page, Layer layer, const common::Error& error) noexcept {
  record(page, layer, outcome(State::kAbsent, error.os_errno));
  return common::fail(error);
}

Result<void> drop_capabilities(StatusPage& page) noexcept {
  if (const auto dropped = drop_all_capabilities(); !dropped) {
    return without(page, Layer::kNoCapabilities, dropped.error());
  }
  // Degraded: the bounding set is not empty, which without privileges cannot be changed.
  record(page, Layer::kNoCapabilities,
         outcome(all_capabilities_gone() ? State::kEnforced : State::kDegraded));

  if (::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) {
    return without(page, Layer::kNoNewPrivs, {"no_new_privs", errno});
  }
  record(page, Layer::kNoNewPrivs, outcome(State::kEnforced));
  return {};
}

LayerResult take_not_dumpable() noexcept {
  if (::prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) != 0) return outcome(State::kAbsent, errno);
  return outcome(::prctl(PR_GET_DUMPABLE, 0, 0, 0, 0) == 0 ? State::kEnforced : State::kAbsent);
}

// Whoever was promised a cookie and has another makes one, as do all that were promised none.
LayerResult take_core_cookie(const JailOrder& order) noexcept {
  if (order.core_scheduling == common::CoreScheduling::kOff) return outcome(State::kAbsent);
  if (order.core_cookie != 0) {
    const auto mine = core_cookie_of(0);
    if (mine && *mine == order.core_cookie) return outcome(State::kEnforced);
  }
  const Result<void> made = make_core_cookie();
  const bool promised = order.core_cookie != 0 || order.core_refusal != 0;
  return made && promised ? outcome(State::kDegraded, order.core_refusal) : outcome(made);
}

// spawn() has asked for this already; a change of uid made the kernel forget it. In a pid namespace
// the parent is 0 before and after, and a broker that died in between ends us by its closed
// sockets.
Result<void> die_with_broker(pid_t parent_before) noexcept {
  if (::prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) != 0) return fail_errno("PDEATHSIG", errno);
  if (::getppid() != parent_before) return fail_errno("the broker is gone", ESRCH);
  return {};
}

// What the broker was told to ask for. seccomp cannot be missing before seal().
Result<void> demand(const JailOrder& order, StatusPage& page) noexcept {
  if (order.probe != 0) return {};
  LayerResults results = recorded(page);
  results[static_cast<std::size_t>(Layer::kSeccomp)] = outcome(State::kEnforced);
  Layer missing{};
  if (!below_demand(order, results, missing)) return {};

  const LayerResult& result = results[static_cast<std::size_t>(missing)];
  page.fault_detail[0].store(static_cast<std::uint64_t>(missing), std::memory_order_relaxed);
  page.fault_os_errno.store(result.os_errno, std::memory_order_relaxed);
  page.fault.store(static_cast<std::uint32_t>(common::ipc::WorkerFault::kPosture),
                   std::memory_order_relaxed);
  return fail_errno(common::layer_name(missing).data(), result.os_errno);
}

// Everything but `keep` (ascending).
Result<void> close_all_but(std::span<const int> keep) noexcept {
  unsigned next = 0;
  for (const int number : keep) {
    const auto kept = static_cast<unsigned>(number);
    if (kept > next && ::syscall(SYS_close_range, next, kept - 1, 0U) != 0) {
      return fail_errno("close_range", errno);
    }
    next = kept + 1;
  }
  if (::syscall(SYS_close_range, next, UINT_MAX, 0U) != 0) return fail_errno("close_range", errno);
  return {};
}

Result<void> close_for_seal(std::span<const int> keep, bool forensic) noexcept {
  constexpr std::size_t kKeptMax = 64;
  std::array<int, kKeptMax> kept{};
  if (keep.size() + 2 > kKeptMax) return fail_errno("too many descriptors to keep", EINVAL);
  auto* end = kept.begin();
  if constexpr (kSanitizerBuild) *end++ = STDERR_FILENO;
  end = std::copy_if(keep.begin(), keep.end(), end,
                     [](int number) { return !kSanitizerBuild || number > STDERR_FILENO; });
  if (forensic) *end++ = common::ipc::kForensicFd;
  std::sort(kept.begin(), end);
  return close_all_but(std::span(kept.begin(), end));
}

// Returns what the kernel does: with a flag for it the listener.
Result<int> install_filter(std::span<const common::ipc::FilterInstruction> filter,
                           unsigned flags) noexcept {  // syscalls: seccomp
  static_assert(sizeof(common::ipc::FilterInstruction) == 8);
  // struct sock_fprog, whose pointer is not const although the kernel only reads.
  struct {
    unsigned short count;
    const common::ipc::FilterInstruction* instructions;
  } const program{static_cast<unsigned short>(filter.size()), filter.data()};
  const long result = ::syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &program);
  if (result < 0) return fail_errno("install the seccomp filter", errno);
  return static_cast<int>(result);
}

bool has_filters(const JailOrder& order) noexcept {
  const std::size_t room = order.filter.size();
  return order.filter_count != 0 && order.filter_count <= room &&
         order.closing_count <= room - order.filter_count;
}

// --forensic: from here on, what the profile does not list waits for the broker.
Result<void> hand_over_listener(const JailOrder& order) noexcept {
  const std::span waiting(order.filter.data(), order.filter_count);
  TRY_LET(const int listener, install_filter(waiting, SECCOMP_FILTER_FLAG_NEW_LISTENER));
  const common::Fd mine(listener);
  const common::Fd socket(common::ipc::kForensicFd);
  const common::FdRef fds[] = {mine.ref()};
  return common::ipc::send(socket.ref(), common::ipc::ForensicListener{}, fds);
}

Result<void> install_last_filter(const JailOrder& order) noexcept {
  const std::span all(order.filter.data(), order.filter_count + order.closing_count);
  const std::size_t before = order.closing_count != 0 ? order.filter_count : 0;
  TRY(install_filter(all.subspan(before), 0));
  return {};
}

// mseal() of every segment of one loaded object. Stops at the first refusal.
int seal_object(dl_phdr_info* object, std::size_t, void* os_errno) {
  const auto page = static_cast<std::uintptr_t>(::sysconf(_SC_PAGESIZE));
  for (std::size_t i = 0; i < object->dlpi_phnum; ++i) {
    const ElfW(Phdr)& segment = object->dlpi_phdr[i];
    if (segment.p_type != PT_LOAD) continue;
    const std::uintptr_t start = (object->dlpi_addr + segment.p_vaddr) & ~(page - 1);
    const std::uintptr_t end = object->dlpi_addr + segment.p_vaddr + segment.p_memsz;
    const std::size_t bytes = (end - start + page - 1) & ~(page - 1);
    if (::syscall(kMseal, start, bytes, 0UL) != 0) {
      *static_cast<int*>(os_errno) = errno;
      return 1;
    }
  }
  return 0;
}

}  // namespace

LayerResult take_mdwe() noexcept {
  if (::prctl(kSetMdwe, kRefuseExecGain, 0, 0, 0) == 0) return outcome(State::kEnforced);
  return outcome(State::kAbsent, errno);
}

bool below_strict(const LayerResults& results, Layer& which) noexcept {
  for (std::size_t i = 0; i < results.size(); ++i) {
    const auto layer = static_cast<Layer>(i);
    if (!common::strict_accepts(layer, results[i])) {
      which = layer;
      return true;
    }
  }
  return false;
}

bool below_demand(const JailOrder& order, const LayerResults& results, Layer& which) noexcept {
  if (order.strict != 0 && below_strict(results, which)) return true;
  which = Layer::kCoreScheduling;
  return order.core_scheduling == common::CoreScheduling::kRequired &&
         results[static_cast<std::size_t>(which)].state == State::kAbsent;
}

Result<void> enter_jail(const JailOrder& order, const JailLimits& /*limits*/,
                        StatusPage& page) noexcept {
  if (order.version != common::ipc::kIpcVersion) {
    return fail_errno("the broker is of another version", EPROTO);
  }
  const pid_t parent = ::getppid();
  name_process();
  (void)::umask(0777);

  record_namespaces(order, page);
  record(page, Layer::kCgroupLimits,
         outcome(order.in_cgroup != 0 ? State::kEnforced : State::kAbsent));
  record(page, Layer::kCoreScheduling, take_core_cookie(order));
  forbid_more_namespaces(order, page);
  record(page, Layer::kEmptyRoot, take_root(order));
  record(page, Layer::kSecurebits, outcome(lock_securebits()));
  const auto own_uid = take_uid(order);
  if (!own_uid) return without(page, Layer::kOwnUid, own_uid.error());
  record(page, Layer::kOwnUid, *own_uid);
  TRY(drop_capabilities(page));
  record(page, Layer::kLandlock, deny_all_by_landlock());
  record(page, Layer::kRlimits, outcome(set_early_rlimits()));
  record(page, Layer::kNotDumpable, take_not_dumpable());
  record(page, Layer::kMdwe, take_mdwe());
  if (order.outlives_broker != 1) TRY(die_with_broker(parent));

  TRY(demand(order, page));
  page.stage.store(common::Stage::kJailed, std::memory_order_relaxed);
  return {};
}

void seal_mappings(StatusPage& page, std::span<const std::span<std::byte>> also) noexcept {
  common::give_back_startup_pages();  // Later it could not: what is sealed cannot be given back.
  int os_errno = 0;
  ::dl_iterate_phdr(seal_object, &os_errno);
  for (const std::span<std::byte> mapping : also) {
    if (os_errno == 0 && ::syscall(kMseal, mapping.data(), mapping.size(), 0UL) != 0) {
      os_errno = errno;
    }
  }
  record(page, Layer::kMseal, outcome(os_errno == 0 ? State::kEnforced : State::kAbsent, os_errno));
}

Result<void> seal(const JailOrder& order, const JailLimits& limits, std::span<const int> keep,
                  StatusPage& page) noexcept {
  const bool forensic = order.closing_count != 0;
  if (!has_filters(order)) return fail_errno("the order has no filter", EINVAL);
  TRY(close_for_seal(keep, forensic));
  if (forensic) {
    if (const auto handed = hand_over_listener(order); !handed) {
      return without(page, Layer::kSeccomp, handed.error());
    }
  }
  const Result<void> limited = set_final_rlimits(limits, (order.namespaces & CLONE_NEWUSER) != 0);
  if (!limited) record(page, Layer::kRlimits, outcome(limited));
  TRY(demand(order, page));

  if (const auto installed = install_last_filter(order); !installed) {
    return without(page, Layer::kSeccomp, installed.error());
  }
  record(page, Layer::kSeccomp, outcome(State::kEnforced));
  page.stage.store(common::Stage::kSealed, std::memory_order_relaxed);
  return {};
}

}  // namespace policy
