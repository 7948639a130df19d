// What an earlier broker has left of a connection, and how it goes on under this one (keep.h).
#include <poll.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <set>
#include <utility>

#include "broker/connection.h"
#include "broker/death_log.h"
#include "broker/text.h"
#include "common/ipc/channel.h"

namespace broker {

namespace ipc = common::ipc;
using std::chrono::milliseconds;

namespace {

// A pidfd is readable from then on.
bool has_ended(common::FdRef pidfd) {
  pollfd ended{pidfd.number, POLLIN, 0};
  return ::poll(&ended, 1, 0) == 1;
}

constexpr int kForbidTries = 20;
constexpr milliseconds kForbidRetry{50};

}  // namespace

common::Result<std::unique_ptr<Connection>> Connection::adopt(Services& services,
                                                              const DeviceFacts& facts,
                                                              DeviceLog& log, KeptThing session,
                                                              std::vector<KeptThing> workers,
                                                              Ended ended) {
  Jailed jailed;
  jailed.child.pid = static_cast<pid_t>(session.record.numbers[0]);
  jailed.child.pidfd = std::move(session.fds[0]);
  jailed.socket = std::move(session.fds[1]);
  jailed.page_file = std::move(session.fds[2]);
  TRY(jailed.map_page());
  Visitor visitor{std::move(session.fds[3]), {}, clean_text(session.record.text.data()), {}};
  std::unique_ptr<Connection> connection(new Connection(services, facts, log, std::move(visitor),
                                                        std::move(jailed), session.record.start,
                                                        std::move(ended)));
  services.keep->adopt_thing(session, connection->kept_fds());
  connection->kept_ = Kept(services.keep, session.id);
  connection->speaks_ = {session.record.ipc_version, session.record.ipc_oldest};
  connection->adopted_ = connection->jail_recorded_ = true;  // By whoever started it.
  log.record(audit::process_adopted(connection->session_process()));
  if (const auto resumed = connection->resume(std::move(workers)); !resumed) {
    // Nobody would notice their end: they must not live.
    kill_child(connection->session_.child.pidfd.ref());
    for (const auto& [queue, worker] : connection->workers_) worker->kill("it cannot be adopted");
    return common::fail(resumed.error());
  }
  return connection;
}

// Brokers before this one kept a worker, now and then, before they forgot the one that had died.
void Connection::forget_predecessors(std::vector<KeptThing>& workers) {
  std::set<Keep::Id> forgotten;
  for (const KeptThing& each : workers) {
    const bool succeeded = std::ranges::any_of(workers, [&each](const KeptThing& other) {
      return other.id > each.id && other.record.numbers[1] == each.record.numbers[1];
    });
    if (succeeded && has_ended(each.fds[0].ref())) forgotten.insert(each.id);
  }
  std::erase_if(workers, [&](const KeptThing& each) { return forgotten.contains(each.id); });
  for (const Keep::Id id : forgotten) (void)Kept(services_.keep, id);
}

common::Result<void> Connection::resume(std::vector<KeptThing> workers) {
  forget_predecessors(workers);
  for (KeptThing& each : workers) {
    const auto queue = static_cast<std::uint32_t>(each.record.numbers[1]);
    if (queue >= start_.queues_max || workers_.contains(queue)) {
      return common::fail_errno("two workers of one queue", EPROTO);
    }
    const auto role = static_cast<QueueRole>(each.record.numbers[5]);
    TRY_LET(workers_[queue],
            Worker::adopt(services_, log_, std::move(each),
                          [this, queue](const WorkerEnd& end) { on_worker_ended(queue, end); }));
    facts_.queues->worker_started(queue, role, workers_[queue]->measures());
  }
  TRY(watch(true));
  resuming_ = true;
  ipc::Resume message{};
  message.kind = ipc::Resume::kKind;
  message.version = ipc::kIpcVersion;
  resume_turn_ =
      static_cast<std::uint64_t>(std::chrono::steady_clock::now().time_since_epoch().count());
  message.turn = resume_turn_;
  answer(message);
  return {};
}

// Asked of the broker before us, who may have done it or not: it is asked again, if need be. So may
// that broker have asked where the session is, and have died before it read the answer.
void Connection::on_packet_before_resumed(ipc::Packet& packet) {
  if (const auto resumed = packet.as<ipc::Resumed>(); resumed && resumed->turn == resume_turn_) {
    return begin_again(*resumed);
  }
  if (const auto event = packet.as<ipc::SessionEvent>()) session_event(*event);
  // What holds, and needs no answer; of the first two the last one counts.
  const bool holds = packet.kind() == ipc::DriverFeatures::kKind ||
                     packet.kind() == ipc::HostMtu::kKind || packet.kind() == ipc::SendRarp::kKind;
  const bool sound = !holds || peer_.on_packet(packet) != Verdict::kHangUp;
  services_.closer.close(packet.fds);
  if (!sound) hang_up(peer_.complaint());
}

void Connection::begin_again(const ipc::Resumed& resumed) {
  resuming_ = false;
  constexpr auto kLast = static_cast<std::uint8_t>(ipc::QueuePhase::kClosing);
  for (std::size_t queue = 0; queue < resumed.phases.size(); ++queue) {
    const std::uint8_t phase = resumed.phases[queue];
    if (phase > kLast || (phase != 0 && queue >= start_.queues_max)) {
      return hang_up("queue " + std::to_string(queue) + " in phase " + std::to_string(phase));
    }
  }
  if (resumed.version < ipc::kIpcOldest || resumed.version > ipc::kIpcVersion) {
    return hang_up("version " + std::to_string(resumed.version));
  }
  resumed_ = resumed;
  // Started, and the session was not told any more: a second one must not serve beside it.
  for (const auto& [queue, worker] : workers_) {
    const auto phase = static_cast<ipc::QueuePhase>(resumed.phases[queue]);
    if (phase != ipc::QueuePhase::kNone && phase != ipc::QueuePhase::kOpening) continue;
    strangers_.insert(queue);
    worker->kill("its session does not know of it");
  }
  watch_adopted_workers();
  packet_watch_.reset();
  if (strangers_.empty()) go_on();
}

void Connection::go_on() {
  facts_.model.hooks->vmm_goes_on();
  for (std::uint32_t queue = 0; queue < start_.queues_max && !ending_; ++queue) {
    go_on_with(queue, static_cast<ipc::QueuePhase>(resumed_.phases[queue]));
  }
  if (ending_) return;
  log_.info("goes on serving " + visitor_name_ + " with " + std::to_string(workers_.size()) +
            (workers_.size() == 1 ? " worker" : " workers") + " that ran on");
  const auto& now = facts_.model.session_start;
  if (now.config_bytes == start_.config_bytes) {
    config_changed(std::as_bytes(std::span(now.config).first(now.config_bytes)));
  }
  pause_reading(milliseconds(0));
}

void Connection::go_on_with(std::uint32_t queue, ipc::QueuePhase phase) {
  using State = SessionPeer::QueueState;
  constexpr std::array<State, 5> kStates = {State::kClosed, State::kOpen, State::kOpen,
                                            State::kServing, State::kClosing};
  peer_.adopt(queue, kStates[static_cast<std::size_t>(phase)]);
  if (phase == ipc::QueuePhase::kNone) return;
  if (phase == ipc::QueuePhase::kOpening) return open_queue(queue);
  // It died, and the broker before us had no time to say so; or it did while we waited for others.
  if (!workers_.contains(queue)) {
    const auto early = early_ends_.extract(queue);
    return early ? answer_death(queue, early.mapped()) : answer_ended(queue, {});
  }
  if (phase == ipc::QueuePhase::kClosing) close_queue(queue);
}

void Connection::watch_adopted_workers() {
  for (const auto& [queue, worker] : workers_) {
    if (!worker->watch_adopted()) worker->kill("its end could not be noticed");
  }
}

void Connection::examine(std::uint32_t queue, policy::Child body) {
  const pid_t pid = body.pid;
  post_mortems_[pid] = std::make_unique<PostMortem>(
      services_.loop, services_.audit, std::move(body),
      [this, queue, pid](const Death& death) { judge(queue, pid, death); });
}

void Connection::judge(std::uint32_t queue, pid_t pid, const Death& death) {
  // Not destroyed here: this is called from its own handler.
  services_.loop.post(
      [done = std::make_shared<decltype(post_mortems_)::node_type>(post_mortems_.extract(pid))] {});
  log_death(log_, {audit::Role::kWorker, pid, queue}, death, services_.audit,
            "worker " + facts_.name + "/" + std::to_string(queue),
            " (pid " + std::to_string(pid) + ")");
  if (death.by_seccomp() && !facts_.restart_after_violation) forbid(queue, kForbidTries);
}

// Between a worker's end and the next one's start there is nobody to stop: so we look again.
void Connection::forbid(std::uint32_t queue, int tries_left) {
  if (ending_) return;
  if (auto held = held_ends_.extract(queue)) {
    say_given_up(queue, kForbidden);
    held.mapped().end.outcome = ipc::QueueOutcome::kGaveUp;
    return answer_ended(queue, held.mapped().end);
  }
  if (const auto successor = workers_.find(queue); successor != workers_.end()) {
    say_given_up(queue, kForbidden);
    return successor->second->kill("the one before it did what its jail forbids");
  }
  if (tries_left == 0) return;  // The guest does not use that queue any more.
  forbidding_[queue] = services_.loop.after(
      kForbidRetry, [this, queue, tries_left] { forbid(queue, tries_left - 1); });
}

void Connection::replace_workers() {
  to_replace_.clear();
  for (const auto& [queue, worker] : workers_) to_replace_.push_back(queue);
  replace_next();
}

// One after the other: the next one when this one's successor serves.
void Connection::replace_next() {
  while (!to_replace_.empty() && !workers_.contains(to_replace_.back())) to_replace_.pop_back();
  if (to_replace_.empty() || ending_ || resuming_) return;
  ipc::ReplaceWorker message{};
  message.kind = ipc::ReplaceWorker::kKind;
  message.queue = to_replace_.back();
  answer(message);
}

}  // namespace broker
