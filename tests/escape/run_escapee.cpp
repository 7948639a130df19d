#include "tests/escape/run_escapee.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <map>
#include <utility>
#include <vector>

#include "common/ipc/channel.h"
#include "common/ipc/worker_messages.h"
#include "common/sys.h"
#include "policy/exporter.h"
#include "policy/keeper.h"
#include "policy/landlock.h"
#include "policy/restricted_ring.h"
#include "policy/seccomp.h"
#include "policy/session.h"
#include "tests/escape/mutation.h"

namespace escape {
namespace {

using common::Fd;
using common::Result;

constexpr std::uint32_t kRingThreads = 2;
constexpr int kPatienceMs = 20'000;

// What the profile's process would hold: by number, as policy/worker_blk.h and session.h say.
struct Belongings {
  std::vector<Fd> owned;
  std::vector<policy::DescriptorAt> placed;
  common::ipc::UringLayout layout{};
  Fd tap_peer;  // Stays with us: a tap is not hung up.

  void place(Fd fd, int number) {
    placed.push_back({fd.ref(), number});
    owned.push_back(std::move(fd));
  }
};

// Able to grow: only the jail stops it.
Result<Fd> make_disk() {
  Fd disk(::memfd_create("disk", MFD_CLOEXEC));
  if (!disk.valid() || ::ftruncate(disk.ref().number, kDiskBytes) != 0) {
    return common::fail_errno("make a disk", errno);
  }
  return disk;
}

bool is_exporter(const policy::Profile& profile) { return profile.name == "exporter"; }

// A socket for every number of a session or keeper; disk, engine and eventfds for a worker.
Result<Fd> make_descriptor(bool worker, int number) {
  if (!worker) {
    TRY_LET(auto pair, common::make_packet_pair());
    return std::move(pair.first);
  }
  if (number == 5 || number == 7) return make_disk();
  return common::make_eventfd();
}

bool is_net(const policy::Profile& profile) { return profile.name.starts_with("worker-net"); }

// A descriptor at its number; a network worker's device is a socket that answers at once.
Result<void> add(Belongings& all, const policy::Profile& profile, int number) {
  if (is_exporter(profile) && number == static_cast<int>(policy::ExporterFd::kEvents)) {
    Fd events(::epoll_create1(EPOLL_CLOEXEC));
    if (!events.valid()) return common::fail_errno("make an epoll", errno);
    all.place(std::move(events), number);
    return {};
  }
  if (is_net(profile) && number == 5) {
    TRY_LET(auto pair, common::make_packet_pair());
    TRY(common::set_nonblocking(pair.first.ref(), true));
    all.place(std::move(pair.first), number);
    all.tap_peer = std::move(pair.second);
    return {};
  }
  TRY_LET(Fd fd, make_descriptor(profile.name.starts_with("worker"), number));
  all.place(std::move(fd), number);
  return {};
}

Result<Belongings> gather(const policy::Profile& profile) {
  Belongings all;
  if (profile.uring_opcodes.empty()) {
    for (const int number : profile.descriptors) {
      if (number > STDERR_FILENO) TRY(add(all, profile, number));  // Those are the escapee's.
    }
    return all;
  }
  TRY_LET(auto ring, policy::make_restricted_ring({.entries = 8,
                                                   .completion_entries = 32,
                                                   .bounded_workers = kRingThreads,
                                                   .opcodes = mutated(profile).uring_opcodes}));
  all.layout = ring.layout;
  all.place(std::move(ring.fd), 6);
  for (const int number : {5, 8, 9}) TRY(add(all, profile, number));
  return all;
}

std::uint64_t descriptors_limit_of(const policy::Profile& profile) {
  if (profile.name == "session") return policy::kSessionDescriptorsMax;
  if (profile.name == "keeper") return policy::kKeeperDescriptorsMax;
  if (is_exporter(profile)) return policy::kExporterDescriptorsMax;
  if (!profile.uring_opcodes.empty()) return 0;
  return is_net(profile) ? 10 : 11;
}

void complete(EscapeOrder& order, const policy::Profile& profile, const Belongings& belongings) {
  order.has_ring = profile.uring_opcodes.empty() ? 0 : 1;
  order.layout = belongings.layout;
  order.keep_count = static_cast<std::uint32_t>(profile.descriptors.size());
  std::copy(profile.descriptors.begin(), profile.descriptors.end(), order.keep.begin());
  order.sleeps_in_epoll = is_exporter(profile) ? 1 : 0;
  order.descriptors_limit = descriptors_limit_of(profile);
  order.file_size_limit = profile.name.starts_with("worker-blk") ? kDiskBytes : 0;
  order.processes_limit = order.has_ring != 0 ? 1 + kRingThreads + 1 : 1;
}

Result<common::ipc::JailOrder> make_jail_order(const Setting& setting, std::uint32_t namespaces) {
  static std::map<const policy::Profile*, std::vector<common::ipc::FilterInstruction>> filters;
  auto& filter = filters[setting.profile];
  if (filter.empty()) {
    TRY_LET(filter, policy::compile_filter(mutated(*setting.profile)));
  }
  common::ipc::JailOrder order{};
  order.kind = common::ipc::JailOrder::kKind;
  order.version = common::ipc::kIpcVersion;
  order.strict = setting.strict ? 1 : 0;
  order.namespaces = namespaces;
  order.uid = order.gid = setting.uid;
  order.same_uid = setting.uid == ::geteuid() ? 1 : 0;
  order.change_ids = (namespaces & CLONE_NEWUSER) == 0 && order.same_uid == 0 ? 1 : 0;
  order.filter_count = static_cast<std::uint32_t>(filter.size());
  std::copy(filter.begin(), filter.end(), order.filter.begin());
  if (setting.allow_every_call) {
    order.filter_count = 1;
    order.filter[0] = {BPF_RET | BPF_K, 0, 0, SECCOMP_RET_ALLOW};
  }
  return order;
}

// Opened once: an unprivileged test may not reach it by name any more.
common::FdRef program() {
  static const Fd file(::open(BULKHEAD_ESCAPEE, O_PATH | O_CLOEXEC));
  return file.ref();
}

std::uint32_t namespaces_of(const Setting& setting) {
  static const std::uint32_t all = policy::probe_namespaces().flags;
  if (setting.no_namespaces) return 0;
  return setting.namespaces != 0 ? setting.namespaces : all;
}

struct Launched {
  policy::Child child;
  common::SharedRegion memory;
  Fd tap_peer;
};

Result<Launched> launch(const Setting& setting, EscapeOrder order) {
  const std::uint32_t namespaces = namespaces_of(setting);
  TRY_LET(Belongings belongings, gather(*setting.profile));
  complete(order, *setting.profile, belongings);
  TRY_LET(const auto jail, make_jail_order(setting, namespaces));

  TRY_LET(Fd page, common::make_sealed_memfd("status", common::kStatusPageBytes));
  TRY_LET(auto memory, common::SharedRegion::map(page.ref(), 0, common::kStatusPageBytes,
                                                 common::SharedRegion::Access::kReadOnly));
  TRY_LET(auto pair, common::make_packet_pair());
  TRY(common::ipc::send(pair.first.ref(), jail));
  TRY(common::ipc::send(pair.first.ref(), order));
  belongings.place(std::move(pair.second), kControlFd);
  belongings.place(std::move(page), kStatusFd);

  policy::SpawnRequest request;
  request.program = program();
  request.title = "bulkhead-escapee";
  request.descriptors = belongings.placed;
  request.namespaces = namespaces;
  request.uid = request.gid = setting.uid;
  TRY_LET(policy::Child child, policy::spawn(request));
  return Launched{std::move(child), std::move(memory), std::move(belongings.tap_peer)};
}

}  // namespace

void PrintTo(const End& end, std::ostream* out) {
  if (end.signal != 0) {
    *out << "killed by signal " << end.signal << " (" << ::strsignal(end.signal) << ")";
  } else {
    *out << "left with exit code " << end.exit_code;
  }
}

std::optional<Escapee> Escapee::start(const Setting& setting, EscapeOrder order) {
  auto launched = launch(setting, order);
  if (!launched) {
    ADD_FAILURE() << launched.error().what << ": " << ::strerror(launched.error().os_errno);
    return std::nullopt;
  }
  Escapee escapee;
  escapee.child_ = std::move(launched->child);
  escapee.memory_ = std::move(launched->memory);
  escapee.tap_peer_ = std::move(launched->tap_peer);
  return escapee;
}

Escapee::~Escapee() {
  if (child_.pidfd.valid() && !reaped_) {
    ::kill(child_.pid, SIGKILL);
    (void)wait();
  }
}

End Escapee::wait() {
  // One that waits for ever, for want of the permission to do anything else, has failed its test.
  pollfd ended{child_.pidfd.ref().number, POLLIN, 0};
  if (::poll(&ended, 1, kPatienceMs) == 0) {
    ADD_FAILURE() << "the escapee neither came back nor died";
    ::kill(child_.pid, SIGKILL);
  }
  int status = 0;
  while (::waitpid(child_.pid, &status, 0) < 0 && errno == EINTR) {
  }
  reaped_ = true;
  if (WIFSIGNALED(status)) return {.signal = WTERMSIG(status), .exit_code = -1};
  return {.signal = 0, .exit_code = WEXITSTATUS(status)};
}

bool Escapee::wait_until_sealed() const {
  // It has nothing left to tell us with but memory, so we look, between waits for its death.
  pollfd ended{child_.pidfd.ref().number, POLLIN, 0};
  while (page().stage.load() != common::Stage::kSealed) {
    if (::poll(&ended, 1, 1) > 0) return false;
  }
  return true;
}

const common::StatusPage& Escapee::page() const {
  return *reinterpret_cast<const common::StatusPage*>(memory_.bytes().data());
}

std::int64_t Escapee::result() const {
  return static_cast<std::int64_t>(page().fault_detail[0].load());
}

common::LayerResults Escapee::layers() const {
  common::LayerResults results{};
  for (std::size_t i = 0; i < results.size(); ++i) {
    results[i] = std::bit_cast<common::LayerResult>(page().layers[i].load());
  }
  return results;
}

common::LayerResult Escapee::layer(common::Layer which) const {
  return layers()[static_cast<std::size_t>(which)];
}

bool landlock_is_complete() {
  constexpr long kCreateRuleset = 444;
  return ::syscall(kCreateRuleset, nullptr, std::size_t{0}, 1U) >= policy::kLandlockAbiComplete;
}

EscapeOrder try_act(Act act) {
  EscapeOrder order{};
  order.kind = EscapeOrder::kKind;
  order.act = static_cast<std::uint32_t>(act);
  return order;
}

EscapeOrder try_system_call(std::uint64_t number, std::array<std::uint64_t, 6> arguments,
                            std::string_view text) {
  EscapeOrder order = try_act(Act::kSystemCall);
  order.number = number;
  order.arguments = arguments;
  text.copy(order.text.data(), order.text.size() - 1);
  return order;
}

EscapeOrder try_interrupt_80(std::uint64_t number) {
  EscapeOrder order = try_act(Act::kInterrupt80);
  order.number = number;
  return order;
}

EscapeOrder try_ring(std::uint8_t opcode, std::uint8_t flags, int slot, std::uint32_t length,
                     std::uint64_t offset) {
  EscapeOrder order = try_act(Act::kRingRequest);
  order.opcode = opcode;
  order.flags = flags;
  order.fd = slot;
  order.length = length;
  order.offset = offset;
  order.address = length == 0 ? 0 : kScratch;
  return order;
}

}  // namespace escape
