// Long because all that one session can bring about is here, between its packets and its end.
#include "broker/connection.h"

#include <sys/epoll.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <utility>

#include "broker/event_text.h"
#include "broker/text.h"
#include "common/ipc/channel.h"
#include "common/packed_inflight_wire.h"
#include "common/sys.h"
#include "policy/jail.h"

namespace broker {
namespace {

namespace ipc = common::ipc;
using std::chrono::milliseconds;

// A session bounds itself to fewer (broker/session/broker_link.h); a hijacked one does not.
constexpr std::uint32_t kEventsMax = 72;
constexpr double kEventsPerSecond = 0.1;

// One wake-up reads at most so many packets of one session, so that others get their turn.
constexpr int kPacketsPerTurn = 16;

// A session that asks for more than this is not read for a while: starting a worker costs us half a
// millisecond, anything else microseconds. A device of 64 queues is started in one go.
constexpr double kEffortPerSecond = 4096;
constexpr double kEffortBurst = 8192;
constexpr int kEffortOfWorker = 64;
constexpr milliseconds kReadingPause{100};

// A session whose socket is closed has no reason to live longer than this.
constexpr milliseconds kExitPatience{1000};

constexpr const char* kNoMemoryForRing =
    "this user's limit on locked memory leaves no room for another ring; raise it (ulimit -l, or "
    "LimitMEMLOCK= in the systemd unit), or give the broker CAP_IPC_LOCK";

constexpr const char* kRingsForbidden =
    "this host does not let the broker make rings any more (sysctl kernel.io_uring_disabled); give "
    "its group to kernel.io_uring_group, or use --engine=fallback";

// Starts a process, or has the kernel change an interface.
bool is_costly(std::uint32_t kind) {
  return kind == ipc::OpenQueue::kKind || kind == ipc::DriverFeatures::kKind ||
         kind == ipc::SendRarp::kKind;
}

// What a start fails of may be over soon: the kernel still holds what dead workers had.
constexpr milliseconds kStartRetry{20};
bool is_passing(int os_errno) {
  return os_errno == ENOMEM || os_errno == EAGAIN || os_errno == EMFILE || os_errno == ENFILE;
}

}  // namespace

common::Result<std::unique_ptr<Connection>> Connection::start(Services& services,
                                                              const DeviceFacts& facts,
                                                              DeviceLog& log, Visitor visitor,
                                                              Ended ended) {
  TRY_LET(Jailed session,
          services.jailer.start_session(facts.name, facts.uid, visitor.socket.ref(),
                                        facts.model.session_start, facts.outlives()));
  log.record(audit::session_started(session));
  std::unique_ptr<Connection> connection(
      new Connection(services, facts, log, std::move(visitor), std::move(session),
                     facts.model.session_start, std::move(ended)));
  auto watched = connection->watch(false);
  if (watched) watched = connection->keep();
  if (!watched) {
    // Nobody would notice its end: it must not live.
    kill_child(connection->session_.child.pidfd.ref());
    return common::fail(watched.error());
  }
  return connection;
}

Connection::Connection(Services& services, const DeviceFacts& facts, DeviceLog& log,
                       Visitor visitor, Jailed session, const ipc::SessionStart& start, Ended ended)
    : services_(services),
      facts_(facts),
      log_(log),
      visitor_name_(std::move(visitor.name)),
      vmm_(std::move(visitor.socket)),
      session_(std::move(session)),
      ended_(std::move(ended)),
      peer_(*this, start),
      start_(start),
      events_(kEventsPerSecond, kEventsMax),
      effort_(kEffortPerSecond, kEffortBurst) {}

common::Result<void> Connection::watch(bool adopted) {
  TRY_LET(packet_watch_, services_.loop.watch(session_.socket.ref(), EPOLLIN,
                                              [this](std::uint32_t) { on_packets(); }));
  return exit_watch_.start(services_.loop, session_, adopted, ExitWatch::Patience::kUntilReaped,
                           [this](const Death& death) { on_session_exit(death); });
}

common::Result<void> Connection::keep() {
  TRY_LET(kept_, keep_thing(facts_.keep, 0, record(), kept_fds()));
  return {};
}

KeptRecord Connection::record() const {
  KeptRecord record = make_record(KeptType::kConnection, facts_.name);
  record.ipc_version = speaks_.first;
  record.ipc_oldest = speaks_.second;
  record.numbers[0] = static_cast<std::uint64_t>(session_.child.pid);
  record.start = start_;
  set_text(record, visitor_name_);
  return record;
}

std::array<common::FdRef, 4> Connection::kept_fds() const noexcept {
  return {session_.child.pidfd.ref(), session_.socket.ref(), session_.page_file.ref(), vmm_.ref()};
}

// --- what the operator, or the loop, wants -------------------------------------------------------

void Connection::drain(milliseconds patience) {
  draining_ = true;
  watch_adopted_workers();
  packet_watch_.reset();
  session_is_over(patience);
  release_session_if_drained();
}

// Only now may the VMM see its connection end: one that reconnects (QEMU) goes on from the used
// index it finds then, and would offer again what a worker is still about to answer.
void Connection::release_session_if_drained() {
  if (!draining_ || !workers_.empty()) return;
  // The session takes the end of its socket for the end of the broker, and exits.
  kept_.reset();
  session_.socket.reset();
}

void Connection::kill(const std::string& reason) {
  if (killed_because_.empty()) killed_because_ = reason;
  ending_ = true;
  held_ends_.clear();
  packet_watch_.reset();
  pause_timer_.reset();
  watch_adopted_workers();
  if (!session_reaped_) kill_child(session_.child.pidfd.ref());
  for (const auto& [queue, worker] : workers_) worker->kill(reason);
}

void Connection::list_processes(std::vector<Process>& list) const {
  if (!session_reaped_) {
    list.push_back({session_.child.pid, reported_layers(session_.page()), adopted_});
  }
  for (const auto& [queue, worker] : workers_) {
    list.push_back({worker->pid(), worker->layers(), worker->adopted()});
  }
}

CounterTotals Connection::counters() const {
  CounterTotals sum = ended_counters_;
  for (const auto& [queue, worker] : workers_) add_counters(sum, worker->counters());
  return sum;
}

std::uint64_t Connection::in_flight() const {
  std::uint64_t sum = 0;
  for (const auto& [queue, worker] : workers_) sum += worker->in_flight();
  return sum;
}

std::uint32_t Connection::disk_os_errno() const {
  for (const auto& [queue, worker] : workers_) {
    if (const std::uint32_t found = worker->disk_os_errno(); found != 0) return found;
  }
  return ended_disk_os_errno_;
}

// --- packets of the session ----------------------------------------------------------------------

void Connection::on_packets() {
  for (int i = 0; i < kPacketsPerTurn && !ending_; ++i) {
    ipc::Packet packet;
    const auto arrival = ipc::receive_packet(session_.socket.ref(), packet, false);
    if (!arrival || *arrival == ipc::Arrival::kTruncated) {
      services_.closer.close(packet.fds);
      return hang_up("a packet larger than any message");
    }
    if (*arrival == ipc::Arrival::kNothing) return;
    if (*arrival == ipc::Arrival::kClosed) {
      packet_watch_.reset();
      return session_is_over(kDrainPatience);
    }
    record_session_jailed();  // Before it reads a byte of the VMM's, of which all packets come.
    if (resuming_) {
      on_packet_before_resumed(packet);
      if (!resuming_) return;  // go_on() reads on.
      if (!within_rate(packet)) return pause_reading(kReadingPause);
      continue;
    }
    const Verdict verdict = peer_.on_packet(packet);
    services_.closer.close(packet.fds);  // What no request has taken.
    if (verdict == Verdict::kHangUp) return hang_up(peer_.complaint());
    if (!within_rate(packet)) return pause_reading(kReadingPause);
  }
}

// What it said before it died is in the socket still: above all, why.
void Connection::read_last_words() {
  if (!session_.socket.valid()) return;
  for (std::uint32_t i = 0; i < kEventsMax; ++i) {
    ipc::Packet packet;
    const auto arrival = ipc::receive_packet(session_.socket.ref(), packet, false);
    services_.closer.close(packet.fds);
    if (!arrival || *arrival != ipc::Arrival::kData) return;
    if (const auto event = packet.as<ipc::SessionEvent>()) session_event(*event);
  }
}

bool Connection::within_rate(const ipc::Packet& packet) {
  const int effort = is_costly(packet.kind()) ? kEffortOfWorker : 1;
  bool within = true;
  for (int i = 0; i < effort; ++i) within = effort_.take() && within;
  return within;
}

void Connection::pause_reading(milliseconds pause) {
  packet_watch_.reset();
  pause_timer_ = services_.loop.after(pause, [this] {
    auto watch = services_.loop.watch(session_.socket.ref(), EPOLLIN,
                                      [this](std::uint32_t) { on_packets(); });
    if (!watch) return hang_up("its socket cannot be watched any more");
    packet_watch_ = *std::move(watch);
  });
}

// --- what the table asks for ---------------------------------------------------------------------

common::Result<std::unique_ptr<Worker>> Connection::start_worker(std::uint32_t queue,
                                                                 common::EngineKind engine) {
  TRY_LET(WorkerRecipe recipe, facts_.model.worker_recipe(queue, engine));
  const WorkerOrder order{.device = facts_.name,
                          .queue = queue,
                          .uid = facts_.uid,
                          .of = {vmm_.ref(), {session_.child.pid, session_.child.pidfd.ref()}},
                          .keep = facts_.keep,
                          .group = kept_.id(),
                          .kind = facts_.model.kind,
                          .engine = recipe.engine,
                          .recipe = std::move(recipe)};
  facts_.queues->worker_started(queue, order.recipe.role, order.recipe.ticks_per_us != 0);
  return Worker::start(services_, log_, order,
                       [this, queue](const WorkerEnd& end) { on_worker_ended(queue, end); });
}

void Connection::open_queue(std::uint32_t queue) {
  const std::string name = "worker " + facts_.name + "/" + std::to_string(queue);
  auto worker = start_worker(queue, facts_.engine);
  const int refused = worker ? 0 : worker.error().os_errno;
  // EPERM: somebody has set kernel.io_uring_disabled since the broker started.
  const bool no_ring =
      facts_.engine == common::EngineKind::kIoUring && (refused == ENOMEM || refused == EPERM);
  const char* const why_no_ring = refused == ENOMEM ? kNoMemoryForRing : kRingsForbidden;
  if (no_ring && facts_.may_fall_back) {
    log_.warn(name + " gets the fallback engine: " + why_no_ring);
    worker = start_worker(queue, common::EngineKind::kFallback);
  }
  if (!worker) {
    facts_.model.hooks->queue_ended(queue);
    const std::string why = std::string(worker.error().what) + ": " +
                            errno_text(worker.error().os_errno) +
                            (no_ring ? std::string("; ") + why_no_ring : "");
    log_.error(name + " cannot be started: " + why);
    log_.record(audit::queue_event(audit::Kind::kWorkerFailed, queue, why));
    if (is_passing(worker.error().os_errno)) return answer_death(queue, {}, kStartRetry);
    return answer_ended(queue, {ipc::QueueOutcome::kNotStarted, 0});
  }
  const common::Fd socket = (*worker)->take_session_socket();
  workers_[queue] = *std::move(worker);

  ipc::QueueOpened opened{};
  opened.kind = ipc::QueueOpened::kKind;
  opened.queue = queue;
  const std::array<common::FdRef, 1> fds = {socket.ref()};
  answer(opened, fds);
}

void Connection::queue_serving(std::uint32_t queue) {
  const auto found = workers_.find(queue);
  if (found == workers_.end()) return;
  found->second->serving();
  if (!to_replace_.empty() && to_replace_.back() == queue) {
    to_replace_.pop_back();
    replace_next();
  }
  const auto died = died_at_.find(queue);
  if (died == died_at_.end()) return;
  const auto pause = std::chrono::steady_clock::now() - died->second;
  log_.info("queue " + std::to_string(queue) + " is served again, " + milliseconds_text(pause) +
            " after its worker died");
  const auto pause_ms = std::chrono::duration_cast<milliseconds>(pause).count();
  log_.record(audit::queue_event(audit::Kind::kWorkerRestarted, queue)
                  .with(audit::Key::kMilliseconds, static_cast<std::uint64_t>(pause_ms)));
  facts_.queues->worker_restarted(queue);
  died_at_.erase(died);
}

void Connection::close_queue(std::uint32_t queue) {
  if (auto held = held_ends_.extract(queue); held) return answer_ended(queue, held.mapped().end);
  if (const auto found = workers_.find(queue); found != workers_.end()) {
    found->second->stop(kDrainPatience);
  }
}

void Connection::swap_call(std::uint32_t queue, common::Fd eventfd, bool running) {
  auto answered = [this, queue](bool swapped) {
    ipc::CallSwapped message{};
    message.kind = ipc::CallSwapped::kKind;
    message.queue = queue;
    message.swapped = swapped ? 1 : 0;
    answer(message);
  };
  const auto found = workers_.find(queue);
  if (running && found != workers_.end()) {
    return found->second->swap_call(std::move(eventfd), std::move(answered));
  }
  services_.closer.close(std::move(eventfd));
  answered(false);
}

void Connection::look_for_stalls() {
  for (const auto& [queue, worker] : workers_) {
    const std::string text = worker->look_for_stall();
    if (!text.empty()) log_.warn("queue " + std::to_string(queue) + ": " + text);
  }
}

void Connection::driver_features(std::uint64_t features) {
  facts_.model.hooks->driver_features(features);
}

void Connection::host_mtu(std::uint32_t mtu) { facts_.model.hooks->host_mtu(mtu); }

void Connection::send_rarp(const std::array<std::uint8_t, 6>& mac) {
  facts_.model.hooks->send_rarp(mac);
}

void Connection::config_changed(std::span<const std::byte> config) {
  ipc::ConfigChanged message{};
  message.kind = ipc::ConfigChanged::kKind;
  message.config_bytes = static_cast<std::uint32_t>(std::min(config.size(), message.config.size()));
  std::memcpy(message.config.data(), config.data(), message.config_bytes);
  if (message.config == start_.config) return;
  start_.config = message.config;
  answer(message);
  if (facts_.keep != nullptr) facts_.keep->update(kept_.id(), record());
}

void Connection::make_inflight(std::uint64_t bytes) {
  const auto& device = facts_.model.session_start;
  const std::uint64_t most =
      device.queues_max *
      common::inflight::packed_stride(device.queue_size_max, common::inflight::kOurStride);
  ipc::InflightMade made{};
  made.kind = ipc::InflightMade::kKind;
  auto file = bytes != 0 && bytes <= most ? common::make_sealed_memfd("bulkhead-inflight", bytes)
                                          : common::fail_errno("too large", EFBIG);
  if (file) {
    const std::array<common::FdRef, 1> fds = {file->ref()};
    return answer(made, fds);
  }
  log_.error(std::string("no in-flight region can be made: ") + file.error().what + ": " +
             errno_text(file.error().os_errno) + "; a worker that dies will not be replaced");
  answer(made);
}

void Connection::session_event(const ipc::SessionEvent& event) {
  if (!events_.take()) return;
  const EventText text = describe_event(static_cast<ipc::EventCode>(event.code), event.numbers);
  log_.write(text.level, text.text);
  if (text.level != Level::kError) return;
  log_.record(audit::Event(audit::Kind::kVmmViolation).with(audit::Key::kCause, text.text));
}

// --- how it ends ---------------------------------------------------------------------------------

void Connection::on_session_exit(const Death& death) {
  read_last_words();
  record_session_end(death);
  log_session_end(death);
  session_reaped_ = true;
  packet_watch_.reset();
  watch_adopted_workers();
  session_is_over(kDrainPatience);
  session_.socket.reset();
  finish_if_empty();
}

void Connection::on_worker_ended(std::uint32_t queue, const WorkerEnd& end) {
  const auto found = workers_.find(queue);
  add_counters(ended_counters_, found->second->counters());
  facts_.queues->worker_ended(queue, found->second->totals(),
                              end.outcome == ipc::QueueOutcome::kGuestFault);
  auto unexplained = found->second->take_unexplained();
  if (found->second->disk_os_errno() != 0) ended_disk_os_errno_ = found->second->disk_os_errno();
  // Not destroyed here: this is called from its own handler.
  services_.loop.post([dead = std::shared_ptr<Worker>(std::move(found->second))] {});
  workers_.erase(found);
  facts_.model.hooks->queue_ended(queue);
  if (!ending_) answer_end(queue, end);
  if (unexplained) examine(queue, *std::move(unexplained));
  release_session_if_drained();
  finish_if_empty();
}

void Connection::answer_end(std::uint32_t queue, const WorkerEnd& end) {
  if (strangers_.empty()) return answer_death(queue, end);
  // The session is answered when we go on: until then we do not know its queues.
  if (strangers_.erase(queue) == 0) early_ends_.insert_or_assign(queue, end);
  if (strangers_.empty()) go_on();
}

void Connection::session_is_over(milliseconds patience) {
  ending_ = true;
  held_ends_.clear();
  pause_timer_.reset();
  for (const auto& [queue, worker] : workers_) worker->stop(patience);
  if (session_reaped_) {
    patience_timer_.reset();
    return;
  }
  // Told to drain, it waits for us to let go of it (release_session_if_drained), which is no fault
  // of its own; whoever drains kills in the end.
  if (draining_) return;
  patience_timer_ = services_.loop.after(std::min(patience, kExitPatience), [this] {
    log_.warn("the session of " + visitor_name_ + " does not end by itself; it is killed");
    killed_because_ = "it does not end by itself";
    kill_child(session_.child.pidfd.ref());
  });
}

void Connection::hang_up(const std::string& complaint) {
  if (ending_) return;
  log_.error("the session of " + visitor_name_ + " broke its protocol with the broker (" +
             complaint + "); it is killed, and its workers");
  log_.record(audit::process_refused(audit::Kind::kPolicyViolation, session_process(),
                                     "it broke its protocol with the broker: " + complaint));
  kill("its session broke its protocol with the broker");
}

void Connection::finish_if_empty() {
  if (!session_reaped_ || !workers_.empty() || std::exchange(finished_, true)) return;
  patience_timer_.reset();
  kept_.reset();
  services_.closer.close(std::move(vmm_));
  if (const auto dropped = events_.take_dropped(); dropped != 0) {
    log_.warn(std::to_string(dropped) + " events of the session were not logged: too many");
  }
  ended_();
}

// --- answers -------------------------------------------------------------------------------------

// Never waits: a session that does not read what it asked for is no session of ours.
void Connection::send(std::span<const std::byte> message, std::span<const common::FdRef> fds) {
  if (ending_) return;
  const auto sent = ipc::send_bytes(session_.socket.ref(), message, fds, false);
  if (sent) return;
  // Gone is not a fault: its exit is on its way.
  if (sent.error().os_errno == EPIPE || sent.error().os_errno == ECONNRESET) return;
  hang_up("it does not read its answers");
}

void Connection::answer_death(std::uint32_t queue, WorkerEnd end, milliseconds least_delay) {
  if (end.outcome != ipc::QueueOutcome::kDied) return answer_ended(queue, end);
  const std::string name = "queue " + std::to_string(queue);
  auto delay = restarts_[queue].after_death(end.lived);
  const bool forbidden = end.by_violation && !facts_.restart_after_violation;
  if (forbidden || !delay) {
    say_given_up(queue, forbidden ? kForbidden : "its workers died too often in a row");
    end.outcome = ipc::QueueOutcome::kGaveUp;
    return answer_ended(queue, end);
  }
  delay = std::max(*delay, least_delay);
  died_at_.emplace(queue, std::chrono::steady_clock::now());
  // A session that waits for the end of this worker has a front-end that waits for it.
  if (delay->count() == 0 || peer_.state(queue) == SessionPeer::QueueState::kClosing) {
    return answer_ended(queue, end);
  }
  log_.warn(name + " gets a new worker in " + std::to_string(delay->count()) + " ms");
  Held& held = held_ends_[queue];
  held.end = end;
  held.timer = services_.loop.after(*delay, [this, queue] {
    const WorkerEnd ended = held_ends_.extract(queue).mapped().end;
    answer_ended(queue, ended);
  });
}

void Connection::say_given_up(std::uint32_t queue, const std::string& why) {
  log_.error("queue " + std::to_string(queue) + " is not served any more: " + why +
             "; the guest has to reset the device");
  log_.record(audit::queue_event(audit::Kind::kQueueGivenUp, queue, why));
  restarts_.erase(queue);
  died_at_.erase(queue);
}

void Connection::answer_ended(std::uint32_t queue, const WorkerEnd& end) {
  peer_.queue_ended(queue);
  ipc::QueueEnded message{};
  message.kind = ipc::QueueEnded::kKind;
  message.queue = queue;
  message.outcome = static_cast<std::uint32_t>(end.outcome);
  message.next_avail = end.next_avail;
  answer(message);
}

}  // namespace broker
