#include "broker/audit/device_events.h"

#include <string>
#include <utility>

namespace broker::audit {
namespace {

using State = common::LayerResult::State;

std::string_view role_name(Role role) { return role == Role::kSession ? "session" : "worker"; }

std::uint64_t number(pid_t pid) { return pid > 0 ? static_cast<std::uint64_t>(pid) : 0; }

Event of_process(Kind kind, const Process& process) {
  Event event(kind);
  event.add(Key::kRole, role_name(process.role));
  if (process.queue) event.add(Key::kQueue, std::uint64_t{*process.queue});
  event.add(Key::kPid, number(process.pid));
  return event;
}

void add_start(Event& event, const Jailed& process) {
  event.add(Key::kPid, number(process.child.pid));
  event.add(Key::kUid, std::uint64_t{process.uid});
}

std::string layers_in(const common::LayerResults& layers, State state) {
  std::string list;
  for (std::size_t i = 0; i < layers.size(); ++i) {
    if (layers[i].state != state) continue;
    list += list.empty() ? "" : ", ";
    list += common::layer_name(static_cast<common::Layer>(i));
  }
  return list;
}

}  // namespace

Event device_added(std::string_view doorway) {
  return Event(Kind::kDeviceAdded).with(Key::kSocket, doorway);
}

Event backing_opened(const DeviceModel& model) {
  Event event(Kind::kBackingOpened);
  event.add(Key::kPath, model.backing.path);
  event.add(Key::kInterface, model.backing.interface);
  event.add(Key::kMac, model.backing.mac);
  event.add(Key::kAccess, model.backing.read_only ? "read-only" : "read-write");
  event.add(Key::kInode, std::uint64_t{model.backing_inode});
  event.add(Key::kDev, device_number_text(model.backing_device));
  if (model.backing.rdev != 0) event.add(Key::kRdev, device_number_text(model.backing.rdev));
  return event;
}

Event vmm_came(Kind kind, const Peer& peer, std::string_view command, std::string_view cause) {
  return Event(kind)
      .with(Key::kPid, number(peer.pid))
      .with(Key::kUid, std::uint64_t{peer.uid})
      .with(Key::kGid, std::uint64_t{peer.gid})
      .with(Key::kComm, command)
      .with(Key::kLabel, peer.label)
      .with(Key::kCause, cause);
}

Event session_started(const Jailed& session) {
  Event event(Kind::kSessionStarted);
  add_start(event, session);
  return std::move(event).with(Key::kFilter, session.filter);
}

Event worker_started(std::uint32_t queue, const Jailed& worker, std::string_view engine) {
  Event event(Kind::kWorkerStarted);
  event.add(Key::kQueue, std::uint64_t{queue});
  add_start(event, worker);
  return std::move(event).with(Key::kEngine, engine).with(Key::kFilter, worker.filter);
}

Event process_adopted(const Process& process) { return of_process(Kind::kProcessAdopted, process); }

Event process_jailed(const Process& process, const common::LayerResults& layers) {
  std::uint64_t enforced = 0;
  for (const common::LayerResult& layer : layers) enforced += layer.state == State::kEnforced;
  std::string absent = layers_in(layers, State::kAbsent);
  if (const std::string untried = layers_in(layers, State::kNotTried); !untried.empty()) {
    absent += (absent.empty() ? "" : ", ") + untried;
  }
  return of_process(Kind::kProcessJailed, process)
      .with(Key::kEnforced, enforced)
      .with(Key::kDegraded, layers_in(layers, State::kDegraded))
      .with(Key::kAbsent, absent);
}

Event process_ended(const Process& process, std::string_view outcome, std::string_view cause) {
  const bool session = process.role == Role::kSession;
  return of_process(session ? Kind::kSessionEnded : Kind::kWorkerEnded, process)
      .with(Key::kOutcome, outcome)
      .with(Key::kCause, cause);
}

Event process_refused(Kind kind, const Process& process, std::string_view cause) {
  return of_process(kind, process).with(Key::kCause, cause);
}

Event operator_asked(const Peer& peer, std::string_view command, std::string_view device) {
  auto event = vmm_came(Kind::kOperatorRequest, peer, {});
  event.add(Key::kCommand, command);
  event.add(Key::kDevice, device);
  return event;
}

Event operator_refused(const Peer& peer, std::string_view command, std::string_view device,
                       std::string_view cause) {
  auto event = vmm_came(Kind::kOperatorRefused, peer, {});
  event.add(Key::kCommand, command);
  event.add(Key::kDevice, device);
  event.add(Key::kCause, cause);
  return event;
}

Event limit_changed(std::string_view limit, std::string_view before, std::string_view now) {
  return Event(Kind::kLimitChanged)
      .with(Key::kLimit, limit)
      .with(Key::kOld, before)
      .with(Key::kNew, now);
}

Event queue_event(Kind kind, std::uint32_t queue, std::string_view cause) {
  return Event(kind).with(Key::kQueue, std::uint64_t{queue}).with(Key::kCause, cause);
}

}  // namespace broker::audit
