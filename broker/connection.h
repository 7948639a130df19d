// broker/connection.h: one VMM's connection to one device: its session, and the workers that
// session asked for. Lives until all of them are reaped.
//
// Not trusted: the session (session_peer.h) and, behind it, the VMM. The broker hands the VMM's
// socket on and never reads from it.
#pragma once

#include <array>
#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "broker/audit/device_events.h"
#include "broker/budget.h"
#include "broker/death.h"
#include "broker/device_log.h"
#include "broker/device_model.h"
#include "broker/event_loop.h"
#include "broker/exit_watch.h"
#include "broker/jailer.h"
#include "broker/keep.h"
#include "broker/post_mortem.h"
#include "broker/queue_book.h"
#include "broker/restart_policy.h"
#include "broker/services.h"
#include "broker/session_peer.h"
#include "broker/socket.h"
#include "broker/stats_report.h"
#include "broker/worker.h"
#include "common/fd.h"

namespace broker {

// A VMM at the door: let in, not served yet.
struct Visitor {
  common::Fd socket;
  Peer peer;
  std::string name;     // "pid 123 (qemu-system-x86) uid 107"
  std::string command;  // What the process calls itself.
};

// What does not change while the device exists.
struct DeviceFacts {
  std::string name;
  audit::Subject subject;  // The same, and its VM.
  // What becomes of its queues' figures: outlives connections and, in the fleet, the device.
  std::shared_ptr<QueueBook> queues = std::make_shared<QueueBook>();
  DeviceModel model;
  std::uint32_t uid = 0;
  common::EngineKind engine = common::EngineKind::kFallback;
  bool may_fall_back = false;  // Where no ring can be had for a worker: --engine=auto.
  bool restart_after_violation = false;
  Keep* keep = nullptr;  // Null where its processes end with the broker.
  [[nodiscard]] Outlives outlives() const noexcept {
    return keep == nullptr ? Outlives::kNobody : Outlives::kBroker;
  }
};

// Why a queue is given up whose worker's system call filter had to kill it.
inline constexpr const char* kForbidden =
    "its worker did what its jail forbids, which may have been an attack; "
    "--on-worker-violation=restart would start another one";

// How long workers may take to finish what they have taken once their VMM is gone.
inline constexpr std::chrono::milliseconds kDrainPatience{30'000};

class Connection final : private SessionRequests {
 public:
  // Called once everything is reaped. The connection may be destroyed after it has returned.
  using Ended = std::function<void()>;

  // `facts` and `log` outlive the connection.
  [[nodiscard]] static common::Result<std::unique_ptr<Connection>> start(
      Services& services, const DeviceFacts& facts, DeviceLog& log, Visitor visitor, Ended ended);
  // One that an earlier broker has left (keep.h): its session, and `workers` of its group.
  [[nodiscard]] static common::Result<std::unique_ptr<Connection>> adopt(
      Services& services, const DeviceFacts& facts, DeviceLog& log, KeptThing session,
      std::vector<KeptThing> workers, Ended ended);
  ~Connection() override = default;
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  // The broker wants to stop: no more for this VMM, and what its workers have taken is finished.
  void drain(std::chrono::milliseconds patience);
  void kill(const std::string& reason);

  // Of what is kept of it (keep.h); 0: nothing.
  [[nodiscard]] Keep::Id group() const noexcept { return kept_.id(); }
  // The VMM is gone or given up; only the workers' last requests keep this here.
  [[nodiscard]] bool ending() const noexcept { return ending_; }
  [[nodiscard]] const std::string& visitor_name() const noexcept { return visitor_name_; }

  struct Process {
    pid_t pid;
    common::LayerResults layers;
    bool adopted = false;  // An earlier broker has started it.
  };
  void list_processes(std::vector<Process>& list) const;
  // Of all workers there were.
  [[nodiscard]] CounterTotals counters() const;
  // Of one queue; null where it has none.
  [[nodiscard]] const Worker* worker(std::uint32_t queue) const {
    const auto found = workers_.find(queue);
    return found == workers_.end() ? nullptr : found->second.get();
  }
  // Requests that workers have taken and not answered.
  [[nodiscard]] std::uint64_t in_flight() const;
  // Why the disk failed last, where it did (Counter::kDiskErrors).
  [[nodiscard]] std::uint32_t disk_os_errno() const;
  // Tells the operator of queues whose disk does not answer.
  void look_for_stalls();
  // For the VMM: the device's configuration space has become this.
  void config_changed(std::span<const std::byte> config);
  [[nodiscard]] std::size_t worker_count() const noexcept { return workers_.size(); }
  // Has the session replace every worker, one after the other; what runs is this version's then.
  void replace_workers();

 private:
  Connection(Services& services, const DeviceFacts& facts, DeviceLog& log, Visitor visitor,
             Jailed session, const common::ipc::SessionStart& start, Ended ended);
  [[nodiscard]] common::Result<void> watch(bool adopted);
  [[nodiscard]] common::Result<void> keep();
  [[nodiscard]] KeptRecord record() const;
  // As adopt() takes them.
  [[nodiscard]] std::array<common::FdRef, 4> kept_fds() const noexcept;

  // After adopt().
  [[nodiscard]] common::Result<void> resume(std::vector<KeptThing> workers);
  void forget_predecessors(std::vector<KeptThing>& workers);
  void on_packet_before_resumed(common::ipc::Packet& packet);
  void begin_again(const common::ipc::Resumed& resumed);
  void go_on();
  void go_on_with(std::uint32_t queue, common::ipc::QueuePhase phase);
  void watch_adopted_workers();
  // A worker that ended for a reason that nobody could tell at once.
  void examine(std::uint32_t queue, policy::Child body);
  void judge(std::uint32_t queue, pid_t pid, const Death& death);
  void forbid(std::uint32_t queue, int tries_left);
  void replace_next();

  void open_queue(std::uint32_t queue) override;
  [[nodiscard]] common::Result<std::unique_ptr<Worker>> start_worker(std::uint32_t queue,
                                                                     common::EngineKind engine);
  void queue_serving(std::uint32_t queue) override;
  void close_queue(std::uint32_t queue) override;
  void swap_call(std::uint32_t queue, common::Fd eventfd, bool running) override;
  void make_inflight(std::uint64_t bytes) override;
  void session_event(const common::ipc::SessionEvent& event) override;
  void driver_features(std::uint64_t features) override;
  void host_mtu(std::uint32_t mtu) override;
  void send_rarp(const std::array<std::uint8_t, 6>& mac) override;

  void on_packets();
  void read_last_words();
  [[nodiscard]] bool within_rate(const common::ipc::Packet& packet);
  void pause_reading(std::chrono::milliseconds pause);
  void on_session_exit(const Death& death);
  void on_worker_ended(std::uint32_t queue, const WorkerEnd& end);
  void session_is_over(std::chrono::milliseconds patience);
  void hang_up(const std::string& complaint);
  void release_session_if_drained();
  void finish_if_empty();
  void log_session_end(const Death& death);
  void record_session_end(const Death& death);
  void record_session_jailed();
  [[nodiscard]] audit::Process session_process() const {
    return {audit::Role::kSession, session_.child.pid, std::nullopt};
  }

  template <common::ipc::Message T>
  void answer(const T& message, std::span<const common::FdRef> fds = {}) {
    send(std::as_bytes(std::span(&message, 1)), fds);
  }
  void send(std::span<const std::byte> message, std::span<const common::FdRef> fds);
  void answer_ended(std::uint32_t queue, const WorkerEnd& end);
  void say_given_up(std::uint32_t queue, const std::string& why);
  // The queue's worker has died: says so to the session when another one may be started.
  void answer_end(std::uint32_t queue, const WorkerEnd& end);
  void answer_death(std::uint32_t queue, WorkerEnd end, std::chrono::milliseconds least_delay = {});

  Services& services_;
  const DeviceFacts& facts_;
  DeviceLog& log_;
  std::string visitor_name_;
  // Never read from. The VMM sees its connection end when this is closed, too: a front-end that
  // connects again goes on from the used index it finds then, so that must be final.
  common::Fd vmm_;
  Jailed session_;
  Kept kept_;
  Ended ended_;
  SessionPeer peer_;
  std::map<std::uint32_t, std::unique_ptr<Worker>> workers_;
  // A queue whose workers die one after the other: its session is told later.
  struct Held {
    WorkerEnd end;
    EventLoop::Registration timer;
  };
  std::map<std::uint32_t, Held> held_ends_;
  std::map<std::uint32_t, RestartPolicy> restarts_;
  std::map<std::uint32_t, std::chrono::steady_clock::time_point> died_at_;
  CounterTotals ended_counters_{};
  std::uint32_t ended_disk_os_errno_ = 0;

  common::ipc::SessionStart start_;  // What the session was told, its configuration since then.
  // By its program, and with an older broker.
  std::pair<std::uint32_t, std::uint32_t> speaks_ = {common::ipc::kIpcVersion,
                                                     common::ipc::kIpcOldest};
  bool adopted_ = false;
  bool resuming_ = false;              // An adopted session has not said yet where it is.
  std::uint64_t resume_turn_ = 0;      // Of the answer that is waited for.
  common::ipc::Resumed resumed_{};     // What it said.
  std::set<std::uint32_t> strangers_;  // Queues of workers that it does not know: they end first.
  std::map<std::uint32_t, WorkerEnd> early_ends_;  // Of others, meanwhile.
  std::vector<std::uint32_t> to_replace_;
  std::map<pid_t, std::unique_ptr<PostMortem>> post_mortems_;
  std::map<std::uint32_t, EventLoop::Registration> forbidding_;

  bool draining_ = false;  // By the operator: the VMM is told last.
  bool ending_ = false;    // No packet of the session's is acted on any more.
  bool session_reaped_ = false;
  bool jail_recorded_ = false;
  bool finished_ = false;
  std::string killed_because_;
  Budget events_;  // What the session may have logged.
  Budget effort_;  // What its packets may cost us.

  EventLoop::Registration pause_timer_;
  EventLoop::Registration patience_timer_;
  EventLoop::Registration packet_watch_;
  ExitWatch exit_watch_;
};

}  // namespace broker
