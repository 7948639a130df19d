#include "broker/control/desk.h"

#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <utility>
#include <vector>

#include "broker/control/add_device.h"
#include "broker/control/device_record.h"
#include "broker/control/rate_record.h"
#include "broker/control/wire.h"
#include "broker/settings.h"
#include "broker/text.h"
#include "common/sys.h"

namespace broker::control {
namespace {

using std::chrono::duration_cast;

std::string_view act_name(Act act) {
  switch (act) {
    case Act::kStop:
      return "stop";
    case Act::kDrain:
      return "drain";
    case Act::kStart:
      return "start";
    case Act::kRemove:
      return "remove";
    case Act::kResize:
      return "resize";
    case Act::kDropGroup:
      return "drop group";
  }
  return "do nothing to";
}

std::string backing_of(const DeviceConfig& config) {
  if (config.kind == common::DeviceKind::kBlk) return config.blk_file;
  return config.tap_name + config.macvtap;
}

// The end of a path says more than its beginning.
template <std::size_t N>
void put_end(Text<N>& room, const std::string& text) {
  put_text(room, std::string_view(text).substr(text.size() - std::min(text.size(), N)));
}

DeviceReply reply_of(const Fleet::Served& served) {
  const DeviceConfig& config = *served.config;
  DeviceReply reply;
  put_text(reply.name, config.name);
  reply.type = static_cast<std::uint32_t>(config.kind);
  reply.state = static_cast<std::uint32_t>(served.state);
  reply.origin = static_cast<std::uint32_t>(served.origin);
  reply.engine = static_cast<std::uint32_t>(served.engine);
  reply.uid = served.uid;
  reply.read_only = config.read_only ? 1 : 0;
  put_text(reply.tenant, config.tenant);
  put_text(reply.limit_group, config.limit_group);
  reply.limits = rates_of(served.limits());
  put_text(reply.vm_name, config.vm_name);
  put_text(reply.vm_uuid, config.vm_uuid);
  put_text(reply.socket_path, config.socket_path);
  put_end(reply.backing, backing_of(config));
  reply.layers = layer_bits(served.posture);
  reply.counters = served.counters();
  if (!served.device) return reply;
  reply.queues_max = served.device->queues_max();
  reply.workers = static_cast<std::uint32_t>(served.device->worker_count());
  reply.capacity_bytes = served.device->capacity_bytes();
  reply.in_flight = served.device->in_flight();
  if (const Peer* peer = served.device->peer()) {
    reply.connected = 1;
    reply.peer_pid = static_cast<std::uint32_t>(peer->pid);
    reply.peer_uid = peer->uid;
  }
  return reply;
}

QueueReply reply_of(const Fleet::Served& served, const QueueBook::Found& found) {
  QueueReply reply;
  put_text(reply.device, served.config->name);
  reply.type = static_cast<std::uint32_t>(served.config->kind);
  reply.queue = found.queue;
  reply.role = static_cast<std::uint32_t>(found.entry->role);
  reply.measured = found.entry->measured ? 1 : 0;
  QueueTotals totals = found.entry->past;
  if (const Worker* worker = served.device ? served.device->worker(found.queue) : nullptr) {
    add_totals(totals, worker->totals());
    reply.pid = static_cast<std::uint32_t>(worker->pid());
    reply.engine = static_cast<std::uint32_t>(worker->engine());
    reply.in_flight = worker->in_flight();
    reply.oldest_us = worker->oldest_us();
  }
  reply.restarts = totals.restarts;
  reply.ring_faults = totals.ring_faults;
  reply.counters = totals.counters;
  reply.latency = totals.latency;
  return reply;
}

// Whether `left` is still open and what `right` is.
bool same_file(common::FdRef left, common::FdRef right) {
  struct stat one {};
  struct stat other {};
  return ::fstat(left.number, &one) == 0 && ::fstat(right.number, &other) == 0 &&
         one.st_dev == other.st_dev && one.st_ino == other.st_ino;
}

}  // namespace

void Desk::status(const Caller& caller) {
  StatusReply reply;
  reply.pid = static_cast<std::uint32_t>(::getpid());
  reply.uid = ::geteuid();
  reply.may_change = caller.access == Access::kChange ? 1 : 0;
  reply.strict = facts_.strict ? 1 : 0;
  reply.devices = static_cast<std::uint32_t>(fleet_.all().size());
  for (const auto& [name, served] : fleet_.all()) {
    if (!served.device) continue;
    if (served.connected()) ++reply.connected;
    reply.workers += static_cast<std::uint32_t>(served.device->worker_count());
    std::vector<Connection::Process> processes;
    served.device->list_processes(processes);
    reply.adopted += static_cast<std::uint32_t>(
        std::count_if(processes.begin(), processes.end(),
                      [](const Connection::Process& process) { return process.adopted; }));
  }
  if (const Jailed* keeper = keep_ == nullptr ? nullptr : keep_->keeper(); keeper != nullptr) {
    reply.keeper = static_cast<std::uint32_t>(keeper->child.pid);
  }
  reply.clients = static_cast<std::uint32_t>(server_.client_count());
  const auto since = started_at_.time_since_epoch();
  reply.started_unix_s =
      static_cast<std::uint64_t>(duration_cast<std::chrono::seconds>(since).count());
  const auto up = std::chrono::steady_clock::now() - started_;
  reply.uptime_ms =
      static_cast<std::uint64_t>(duration_cast<std::chrono::milliseconds>(up).count());
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) == 0) reply.descriptors_max = limit.rlim_cur;
  put_text(reply.program_version, BULKHEAD_VERSION);
  put_text(reply.state_dir, facts_.state->path());
  server_.answer(caller.id, reply);
}

void Desk::device(const Caller& caller, const std::string& name, bool next) {
  const Fleet::Served* served = next ? fleet_.after(name) : fleet_.find(name);
  if (served == nullptr) {
    return server_.answer(
        caller.id, told(Outcome::kNotFound,
                        "there is no device " + in_quotes(name) + " ('bulkhead list' shows all)"));
  }
  server_.answer(caller.id, reply_of(*served));
}

void Desk::process(const Caller& caller, const std::string& device, std::uint32_t index) {
  std::vector<Connection::Process> processes;
  if (const Fleet::Served* served = fleet_.find(device); served != nullptr && served->device) {
    served->device->list_processes(processes);
  }
  // Of no device: the broker, and the keeper.
  const Jailed* keeper = device.empty() && keep_ != nullptr ? keep_->keeper() : nullptr;
  if (keeper != nullptr) {
    processes.push_back({::getpid(), {}});
    processes.push_back({keeper->child.pid, reported_layers(keeper->page())});
  }
  ProcessReply reply;
  if (device.empty() && index == 0) {
    reply.pid = static_cast<std::uint32_t>(::getpid());
  } else if (index < processes.size()) {
    reply.pid = static_cast<std::uint32_t>(processes[index].pid);
    reply.has_layers = 1;
    reply.adopted = processes[index].adopted ? 1 : 0;
    reply.layers = layer_bits(processes[index].layers);
  } else {
    return server_.answer(caller.id, told(Outcome::kNotFound, "there is no such process"));
  }
  server_.answer(caller.id, reply);
}

void Desk::queue(const Caller& caller, const std::string& device, std::uint32_t first) {
  const Fleet::Served* served = fleet_.find(device);
  const auto found =
      served != nullptr && served->queues ? served->queues->find_from(first) : std::nullopt;
  if (!found) return server_.answer(caller.id, told(Outcome::kNotFound));
  server_.answer(caller.id, reply_of(*served, *found));
}

void Desk::event(const Caller& caller, std::uint64_t after, bool wait) {
  if (const EventReply* event = events_.after(after)) return server_.answer(caller.id, *event);
  if (!wait) return server_.answer(caller.id, told(Outcome::kNotFound));
  // Those who have gone meanwhile must not add up.
  std::erase_if(waiting_, [this](const Waiting& one) { return !server_.has(one.caller.id); });
  waiting_.push_back({caller, after});
}

void Desk::event_came() {
  if (waiting_.empty() || std::exchange(answers_are_due_, true)) return;
  loop_.post([this] { answer_waiting(); });
}

void Desk::answer_waiting() {
  answers_are_due_ = false;
  for (const Waiting& one : std::exchange(waiting_, {})) event(one.caller, one.after, true);
}

void Desk::settings(const Caller& caller, const std::string& device) {
  const Fleet::Served* served = fleet_.find(device);
  if (served == nullptr) return server_.answer(caller.id, told(Outcome::kNotFound));
  SettingsReply reply;
  reply.device = record_of(with_absolute_paths(*served->config));
  server_.answer(caller.id, reply);
}

void Desk::add(const Caller& caller, const AddRequest& request, common::ipc::FdList& fds) {
  DeviceConfig config = request.device;
  log_.info("", "operator " + server_.name_of(caller.id) + ": " +
                    (request.replace ? "replace " : "add ") + in_quotes(config.name) +
                    (request.force ? " by force" : ""));
  server_.record_request(caller.id, request.replace ? "replace" : "add", config.name);
  if (request.replace && fds.size() != 0) {
    return answer(caller, common::fail(std::string("a device that comes with descriptors cannot "
                                                   "replace another; remove that first")));
  }
  const std::size_t first_tap = request.has_socket ? 1 : 0;
  for (std::size_t i = first_tap; i < fds.size(); ++i) config.tap_fds.push_back(fds.at(i).number);
  // The doorway takes it over, if it comes so far.
  common::Fd socket;
  if (request.has_socket) {
    auto duplicate = common::duplicate(fds.at(0));
    if (!duplicate) return answer(caller, common::fail(std::string("no descriptor is left")));
    config.fd = duplicate->ref().number;
    socket = *std::move(duplicate);
  }
  if (auto errors = complete_device(config, Spelling::kFile); !errors.empty()) {
    return answer(caller, common::fail(std::move(errors.front())));
  }
  const Origin origin = request.from_file ? Origin::kFile : Origin::kOperator;
  if (request.replace) {
    return fleet_.replace(config, origin, request.force, keeping(caller, config.name));
  }
  const Answer<void> added = fleet_.add(config, origin);
  const common::FdRef taken{socket.release()};
  if (!added && taken.valid() && same_file(taken, fds.at(0))) common::Fd(taken.number).reset();
  if (!added) return answer(caller, added);
  keeping(caller, config.name)(added);
}

void Desk::order(const Caller& caller, const std::string& device, Act act, bool force) {
  log_.info("", "operator " + server_.name_of(caller.id) + ": " + std::string(act_name(act)) + " " +
                    in_quotes(device) + (force ? " by force" : ""));
  server_.record_request(caller.id, act_name(act), device);
  switch (act) {
    case Act::kStop:
      return fleet_.stop(device, force, answering(caller));
    case Act::kDrain:
      return answer(caller, fleet_.drain(device));
    case Act::kStart:
      return answer(caller, fleet_.start(device));
    case Act::kRemove:
      return fleet_.remove(device, force, keeping(caller, device));
    case Act::kResize:
      return resize(caller, device);
    case Act::kDropGroup:
      return answer(caller, fleet_.groups().drop(device));
  }
}

void Desk::resize(const Caller& caller, const std::string& device) {
  const auto sizes = fleet_.resize(device);
  if (!sizes) return answer(caller, common::fail(sizes.error()));
  Told done = told(Outcome::kDone);
  done.numbers = {sizes->before_bytes, sizes->now_bytes};
  server_.answer(caller.id, done);
}

void Desk::group(const Caller& caller, const std::string& name, bool next) {
  const GroupRates* group = next ? fleet_.groups().after(name) : fleet_.groups().find(name);
  if (group == nullptr) {
    return server_.answer(caller.id,
                          told(Outcome::kNotFound, "there is no group " + in_quotes(name)));
  }
  GroupReply reply;
  reply.type = static_cast<std::uint32_t>(group->config().kind);
  reply.devices = static_cast<std::uint32_t>(group->members());
  put_text(reply.name, group->config().name);
  put_text(reply.tenant, group->config().tenant);
  reply.limits = rates_of(group->limits());
  reply.configured = rates_of(group->config().limits);
  server_.answer(caller.id, reply);
}

void Desk::limit(const Caller& caller, const LimitRequest& request) {
  log_.info("", "operator " + server_.name_of(caller.id) + ": limit " +
                    (request.group ? "group " : "") + in_quotes(request.name));
  server_.record_request(caller.id, "limit", request.group ? std::string() : request.name);
  if (const auto changed = change_limits(request); !changed) return answer(caller, changed);
  const Answer<void> kept = keep_limits(request);
  if (kept) return answer(caller, kept);
  log_.error(request.name, "its limits will not last: " + kept.error());
  answer(caller, common::fail(will_not_last(kept.error())));
}

Answer<void> Desk::change_limits(const LimitRequest& request) {
  const auto wrong_type = [&request](common::DeviceKind kind) {
    return common::fail(in_quotes(request.name) + " is of type " + std::string(kind_name(kind)) +
                        ", whose limits are " + rate_names(kind));
  };
  if (request.group) {
    const GroupRates* const group = fleet_.groups().find(request.name);
    if (group != nullptr && group->config().kind != request.type) {
      return wrong_type(group->config().kind);
    }
    return fleet_.limit_group(request.name, request.change);
  }
  const Fleet::Served* const served = fleet_.find(request.name);
  if (served != nullptr && served->config->kind != request.type) {
    return wrong_type(served->config->kind);
  }
  return fleet_.limit(request.name, request.change);
}

Answer<void> Desk::keep_limits(const LimitRequest& request) {
  const Fleet::Served* const served = request.group ? nullptr : fleet_.find(request.name);
  if (served != nullptr && served->origin == Origin::kOperator) {
    const StateDir& state = *facts_.state;
    return state.keeps(*served->config) ? state.keep(*served->config) : Answer<void>{};
  }
  std::vector<LimitEntry> entries;
  for (const auto& [name, one] : fleet_.all()) {
    if (!one.operator_limits) continue;
    entries.push_back({false, name, one.config->kind, one.config->limits, *one.operator_limits});
  }
  for (const GroupRates* group = fleet_.groups().after(""); group != nullptr;
       group = fleet_.groups().after(group->config().name)) {
    if (!group->by_operator()) continue;
    const GroupConfig& config = group->config();
    entries.push_back({true, config.name, config.kind, config.limits, group->limits()});
  }
  return LimitFile(facts_.state->path()).keep(entries);
}

void Desk::put_group(const Caller& caller, const GroupConfig& group) {
  log_.info("", "operator " + server_.name_of(caller.id) + ": group " + in_quotes(group.name));
  server_.record_request(caller.id, "group", {});
  answer(caller, fleet_.put_group(group));
}

void Desk::end_broker(const Caller& caller) {
  log_.info("", "operator " + server_.name_of(caller.id) + ": stop the broker");
  server_.record_request(caller.id, "stop the broker", {});
  server_.answer(caller.id, told(Outcome::kDone));
  facts_.end_broker();
}

Fleet::Done Desk::answering(const Caller& caller) {
  return [this, caller](const Answer<void>& result) { answer(caller, result); };
}

// A device that the configuration lists, or that is gone, need not be kept.
Fleet::Done Desk::keeping(const Caller& caller, const std::string& device) {
  return [this, caller, device](const Answer<void>& result) {
    const Fleet::Served* served = fleet_.find(device);
    const StateDir& state = *facts_.state;
    const bool lasting = served != nullptr && served->origin == Origin::kOperator;
    Answer<void> kept = lasting && state.keeps(*served->config) ? state.keep(*served->config)
                                                                : state.forget(device);
    if (!result || kept) return answer(caller, result);
    log_.error(device, "what has been done will not last: " + kept.error());
    answer(caller, common::fail(will_not_last(kept.error())));
  };
}

void Desk::answer(const Caller& caller, const Answer<void>& result) {
  server_.answer(caller.id, result ? told(Outcome::kDone) : told(Outcome::kFailed, result.error()));
}

}  // namespace broker::control
