#include "broker/jailer.h"

#include <poll.h>
#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstddef>
#include <optional>
#include <span>
#include <utility>

#include "broker/socket.h"
#include "common/ipc/channel.h"
#include "common/ipc/keeper_messages.h"
#include "common/ipc/worker_messages.h"
#include "common/stop_pipe.h"
#include "common/sys.h"
#include "policy/core_scheduling.h"
#include "policy/keeper.h"
#include "policy/restricted_ring.h"
#include "policy/seccomp.h"
#include "policy/session.h"

namespace broker {
namespace {

namespace ipc = common::ipc;
using common::Result;

policy::DescriptorAt at(common::FdRef from, ipc::SessionFd number) {
  return {from, static_cast<int>(number)};
}
policy::DescriptorAt at(common::FdRef from, ipc::WorkerFd number) {
  return {from, static_cast<int>(number)};
}

// policy/selinux/bulkhead.te
std::string_view worker_type(common::DeviceKind kind) {
  return kind == common::DeviceKind::kBlk ? "bulkhead_worker_blk_t" : "bulkhead_worker_net_t";
}

std::string worker_title(common::DeviceKind kind) {
  return kind == common::DeviceKind::kBlk ? "bulkhead-worker-blk: " : "bulkhead-worker-net: ";
}

// A keeper reads nothing hostile.
common::CoreScheduling optional(common::CoreScheduling asked) {
  return asked == common::CoreScheduling::kOff ? asked : common::CoreScheduling::kAuto;
}

// The worker compares what it has with what it was promised, and makes a cookie of its own where
// these differ (policy/core_scheduling.h).
void promise_cookie(const RunningProcess& session, ipc::JailOrder& order) {
  const bool wanted = order.core_scheduling != common::CoreScheduling::kOff && session.pid != 0;
  if (!wanted || !policy::core_cookie_of(0)) return;  // Not in this kernel.
  const auto cookie = policy::core_cookie_of(session.pid);
  pollfd ended{session.pidfd.number, POLLIN, 0};
  const bool same_process = ::poll(&ended, 1, 0) == 0;
  if (cookie && *cookie != 0 && same_process) {
    order.core_cookie = *cookie;
  } else {
    order.core_refusal = cookie ? ESRCH : cookie.error().os_errno;
  }
}

}  // namespace

Result<void> Jailed::map_page() {
  TRY_LET(memory, common::SharedRegion::map(page_file.ref(), 0, common::kStatusPageBytes,
                                            common::SharedRegion::Access::kReadOnly));
  return {};
}

common::LayerResults reported_layers(const common::StatusPage& page) noexcept {
  common::LayerResults results{};
  for (std::size_t i = 0; i < results.size(); ++i) {
    results[i] = std::bit_cast<common::LayerResult>(page.layers[i].load(std::memory_order_relaxed));
  }
  return results;
}

// One process to be started. Numbers of the control socket and the status page differ by program.
struct Jailer::Start {
  common::FdRef program;
  std::string title;
  const policy::Profile& profile;
  std::uint32_t uid;
  CgroupLeaf leaf;
  // Whose SELinux level it gets: a VMM's socket. None: what the policy says.
  common::FdRef vmm{};
  std::string_view type{};
  int socket_number;
  int page_number;
  bool probe = false;
  bool keeper = false;
  Outlives outlives = Outlives::kNobody;
  std::uint32_t rate_memories = 0;
  RunningProcess session = {};                       // A worker's.
  std::vector<policy::DescriptorAt> descriptors;     // Besides socket and page.
  std::vector<std::span<const std::byte>> messages;  // Besides JailOrder, in order.
};

Result<Jailed> Jailer::start_session(const std::string& device, std::uint32_t uid,
                                     common::FdRef vmm, const ipc::SessionStart& start_message,
                                     Outlives outlives) {
  return start({.program = programs_.session.ref(),
                .title = "bulkhead-session: " + device,
                .profile = policy::kSession,
                .uid = uid,
                .leaf = CgroupLeaf::kSession,
                .vmm = vmm,
                .type = "bulkhead_session_t",
                .socket_number = static_cast<int>(ipc::SessionFd::kBroker),
                .page_number = static_cast<int>(ipc::SessionFd::kStatusPage),
                .outlives = outlives,
                .descriptors = {at(vmm, ipc::SessionFd::kVmm)},
                .messages = {std::as_bytes(std::span(&start_message, 1))}});
}

Result<JailedWorker> Jailer::start_worker(const std::string& name, std::uint32_t uid,
                                          const WorkerOf& of, common::DeviceKind kind,
                                          common::EngineKind engine, const WorkerRecipe& recipe,
                                          Outlives outlives) {
  Start what{.program = worker_program(kind),
             .title = worker_title(kind) + name,
             .profile = *recipe.profile,
             .uid = uid,
             .leaf = CgroupLeaf::kWorkers,
             .vmm = of.vmm,
             .type = worker_type(kind),
             .socket_number = static_cast<int>(ipc::WorkerFd::kControl),
             .page_number = static_cast<int>(ipc::WorkerFd::kStatusPage),
             .outlives = outlives,
             .rate_memories = recipe.rate_memories,
             .session = of.session,
             .descriptors = recipe.descriptors,
             .messages = {recipe.start_message}};
  JailedWorker worker;
  std::optional<policy::RestrictedRing> ring;
  if (engine == common::EngineKind::kIoUring) {
    TRY_LET(ring, policy::make_restricted_ring({ipc::kRingEntries, recipe.ring_completions,
                                                ipc::kRingThreads, recipe.profile->uring_opcodes}));
    worker.engine = std::move(ring->fd);
    what.messages.push_back(std::as_bytes(std::span(&ring->layout, 1)));
  }
  TRY_LET(common::StopPipe stop, common::make_stop_pipe());
  worker.stop = std::move(stop.writing);
  if (worker.engine.valid()) {
    what.descriptors.push_back(at(worker.engine.ref(), ipc::WorkerFd::kEngine));
    what.descriptors.push_back(at(stop.reading.ref(), ipc::WorkerFd::kStop));
  } else {
    what.descriptors.push_back(at(stop.reading.ref(), ipc::WorkerFd::kEngine));
  }
  TRY_LET(worker.process, start(what));
  return worker;
}

Result<Jailed> Jailer::start_keeper(common::FdRef door) {
  // In a user namespace of its own the broker's uid is 0.
  const bool own_user_namespace = (host_.namespaces.flags & CLONE_NEWUSER) != 0;
  ipc::KeeperStart start_message{};
  start_message.kind = ipc::KeeperStart::kKind;
  start_message.uid = own_user_namespace ? 0 : ::geteuid();
  return start({.program = programs_.keeper.ref(),
                .title = "bulkhead-keeper",
                .profile = policy::kKeeper,
                .uid = ::geteuid(),
                .leaf = CgroupLeaf::kSession,
                .socket_number = static_cast<int>(ipc::KeeperFd::kBroker),
                .page_number = static_cast<int>(ipc::KeeperFd::kStatusPage),
                .keeper = true,
                .outlives = Outlives::kBroker,
                .descriptors = {{door, static_cast<int>(ipc::KeeperFd::kDoor)}},
                .messages = {std::as_bytes(std::span(&start_message, 1))}});
}

Result<Jailed> Jailer::probe_session(std::uint32_t uid) {
  return start({.program = programs_.session.ref(),
                .title = "bulkhead-session: probe",
                .profile = policy::kSession,
                .uid = uid,
                .leaf = CgroupLeaf::kSession,
                .socket_number = static_cast<int>(ipc::SessionFd::kBroker),
                .page_number = static_cast<int>(ipc::SessionFd::kStatusPage),
                .probe = true,
                .descriptors = {},
                .messages = {}});
}

Result<Jailed> Jailer::probe_worker(std::uint32_t uid, common::DeviceKind kind,
                                    const policy::Profile& profile) {
  return start({.program = worker_program(kind),
                .title = worker_title(kind) + "probe",
                .profile = profile,
                .uid = uid,
                .leaf = CgroupLeaf::kWorkers,
                .socket_number = static_cast<int>(ipc::WorkerFd::kControl),
                .page_number = static_cast<int>(ipc::WorkerFd::kStatusPage),
                .probe = true,
                .descriptors = {},
                .messages = {}});
}

// Everything the process will believe is in its socket before it runs, and before anybody else can
// hold the other end.
Result<Jailed> Jailer::start(const Start& what) {
  TRY_LET(common::Fd page, common::make_sealed_memfd("bulkhead-status", common::kStatusPageBytes));
  TRY_LET(auto ends, common::make_packet_pair());
  TRY_LET(const ipc::JailOrder order, make_order(what));
  TRY(ipc::send(ends.second.ref(), order, {}, false));
  for (const std::span<const std::byte> message : what.messages) {
    TRY(ipc::send_bytes(ends.second.ref(), message, {}, false));
  }

  std::vector<policy::DescriptorAt> descriptors = what.descriptors;
  descriptors.push_back({ends.first.ref(), what.socket_number});
  descriptors.push_back({page.ref(), what.page_number});
  std::pair<common::Fd, common::Fd> forensic;
  if (choices_.forensic) {
    TRY_LET(forensic, common::make_packet_pair());
    descriptors.push_back({forensic.first.ref(), ipc::kForensicFd});
  }
  policy::SpawnRequest request;
  request.program = what.program;
  request.title = what.title.c_str();
  request.descriptors = descriptors;
  request.namespaces = host_.namespaces.flags;
  const bool own_ids = what.keeper || !host_.may_change_ids;
  request.uid = own_ids ? ::getuid() : what.uid;
  request.gid = own_ids ? ::getgid() : what.uid;
  request.outlives_parent = order.outlives_broker == 1;
  if (order.core_cookie != 0) request.core_cookie_of = what.session.pid;
  // A probe comes before its device, and asks for what the device will have.
  if (cgroups_ != nullptr && !what.probe && !what.keeper)
    request.cgroup = cgroups_->leaf(what.uid, what.leaf);
  request.label = label_of(what);

  Jailed jailed;
  jailed.page_file = std::move(page);
  TRY(jailed.map_page());
  TRY_LET(jailed.child, policy::spawn(request));
  jailed.socket = std::move(ends.second);
  jailed.uid = request.uid;
  jailed.filter = filters_.at(&what.profile).digest;
  jailed.forensic = std::move(forensic.second);
  return jailed;
}

// Asked of the socket each time: an adopted connection knows no more of its VMM.
std::string Jailer::label_of(const Start& what) const {
  if (!what.vmm.valid() || own_label_.empty()) return {};
  const auto peer = peer_of(what.vmm);
  return peer ? policy::label_for(own_label_, what.type, peer->label) : std::string();
}

Result<ipc::JailOrder> Jailer::make_order(const Start& what) {
  TRY_LET(const Filter* filter, filter_of(what.profile));
  const bool own_user_namespace = (host_.namespaces.flags & CLONE_NEWUSER) != 0;
  ipc::JailOrder order{};
  order.kind = ipc::JailOrder::kKind;
  order.version = ipc::kIpcVersion;
  // A probe is to show all that is missing, not to stop at the first. A keeper has the broker's
  // uid, and reads nothing hostile.
  order.strict = choices_.strict && !what.probe && !what.keeper ? 1 : 0;
  order.namespaces = host_.namespaces.flags;
  order.uid = what.uid;
  order.gid = what.uid;
  order.change_ids = host_.may_change_ids && !own_user_namespace && !what.keeper ? 1 : 0;
  order.same_uid = host_.may_change_ids && !what.keeper ? 0 : 1;
  order.outlives_broker = what.outlives == Outlives::kBroker ? 1 : 0;
  order.probe = what.probe ? 1 : 0;
  order.rate_memories = what.rate_memories;
  order.core_scheduling =
      what.keeper ? optional(choices_.core_scheduling) : choices_.core_scheduling;
  promise_cookie(what.session, order);
  order.in_cgroup = cgroups_ != nullptr && !what.keeper &&
                            (what.probe || cgroups_->leaf(what.uid, what.leaf).valid())
                        ? 1
                        : 0;
  order.filter_count = static_cast<std::uint32_t>(filter->instructions.size()) - filter->closing;
  order.closing_count = filter->closing;
  std::copy(filter->instructions.begin(), filter->instructions.end(), order.filter.begin());
  return order;
}

Result<const Jailer::Filter*> Jailer::filter_of(const policy::Profile& profile) {
  auto found = filters_.find(&profile);
  if (found == filters_.end()) {
    TRY_LET(Filter filter, compile(profile));
    filter.digest = audit::sha256(std::as_bytes(std::span(filter.instructions)));
    found = filters_.emplace(&profile, std::move(filter)).first;
  }
  return &found->second;
}

Result<Jailer::Filter> Jailer::compile(const policy::Profile& profile) const {
  Filter filter;
  if (!choices_.forensic) {
    TRY_LET(filter.instructions, policy::compile_filter(profile));
    return filter;
  }
  TRY_LET(policy::ForensicFilters both, policy::compile_forensic(profile));
  filter.closing = static_cast<std::uint32_t>(both.closing.size());
  filter.instructions = std::move(both.waiting);
  filter.instructions.insert(filter.instructions.end(), both.closing.begin(), both.closing.end());
  return filter;
}

common::FdRef Jailer::worker_program(common::DeviceKind kind) const noexcept {
  switch (kind) {
    case common::DeviceKind::kBlk:
      return programs_.worker_blk.ref();
    case common::DeviceKind::kNet:
      return programs_.worker_net.ref();
  }
  return {};
}

}  // namespace broker
