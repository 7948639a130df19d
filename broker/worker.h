// broker/worker.h: one worker process, from its start to its end.
//
// Not trusted: the worker once it serves, its status page included. Reaching it costs no wait: it
// is told to stop and given new eventfds through its ring (or a pipe that is for nothing else),
// and what it does not do in time, SIGKILL does.
#pragma once

#include <array>
#include <chrono>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "broker/audit/device_events.h"
#include "broker/death.h"
#include "broker/device_log.h"
#include "broker/event_loop.h"
#include "broker/exit_watch.h"
#include "broker/jailer.h"
#include "broker/keep.h"
#include "broker/queue_book.h"
#include "broker/services.h"
#include "broker/stall_watch.h"
#include "broker/stats_report.h"
#include "common/device_kind.h"
#include "common/fd.h"
#include "common/ipc/session_broker.h"
#include "common/result.h"

namespace broker {

struct WorkerOrder {
  std::string device;  // "vda"
  std::uint32_t queue = 0;
  std::uint32_t uid = 0;
  WorkerOf of = {};
  Keep* keep = nullptr;  // Null where it ends with the broker.
  Keep::Id group = 0;    // Its connection's, where that is kept.
  common::DeviceKind kind = common::DeviceKind::kBlk;
  common::EngineKind engine = common::EngineKind::kFallback;
  WorkerRecipe recipe;
};

struct WorkerEnd {
  // kGaveUp: dead, and another one would end the same way. kDied: another one may be tried.
  common::ipc::QueueOutcome outcome = common::ipc::QueueOutcome::kDied;
  std::uint32_t next_avail = 0;  // A number that the worker chose; not with kNotStarted.
  bool by_violation = false;     // kDied: by its system call filter.
  std::chrono::steady_clock::duration lived{};
};

class Worker {
 public:
  // Called once, when the process is reaped and every swap is answered. The worker may be destroyed
  // after it has returned, not in it.
  using Ended = std::function<void(const WorkerEnd&)>;

  // `log` outlives the worker.
  [[nodiscard]] static common::Result<std::unique_ptr<Worker>> start(Services& services,
                                                                     DeviceLog& log,
                                                                     const WorkerOrder& order,
                                                                     Ended ended);
  [[nodiscard]] bool adopted() const noexcept { return adopted_; }
  // One that an earlier broker has started. Its end is not noticed before watch_adopted().
  [[nodiscard]] static common::Result<std::unique_ptr<Worker>> adopt(Services& services,
                                                                     DeviceLog& log, KeptThing kept,
                                                                     Ended ended);
  [[nodiscard]] common::Result<void> watch_adopted();  // Again: nothing.
  ~Worker();
  Worker(const Worker&) = delete;
  Worker& operator=(const Worker&) = delete;

  // The session's end of the worker's socket; there once.
  [[nodiscard]] common::Fd take_session_socket() { return std::move(process_.socket); }

  // The session says that it serves: for the log. Where strict is asked for, one that turns out not
  // to have its whole jail is killed; it should have ended by itself.
  void serving();

  // Let it finish what it has taken and end; SIGKILL once `patience` is over. May be called again
  // with less patience.
  void stop(std::chrono::milliseconds patience);
  void kill(const std::string& reason);

  // Puts `eventfd` in the place of the worker's call eventfd. `answered` is called once.
  void swap_call(common::Fd eventfd, std::function<void(bool swapped)> answered);

  // Once it has ended: itself, where nobody could tell how, and what it was may yet be decided by
  // that (--on-worker-violation). There once.
  [[nodiscard]] std::optional<policy::Child> take_unexplained();

  [[nodiscard]] pid_t pid() const noexcept { return process_.child.pid; }
  [[nodiscard]] common::LayerResults layers() const { return reported_layers(process_.page()); }
  [[nodiscard]] std::uint32_t in_flight() const {
    return process_.page().in_flight.load(std::memory_order_relaxed);
  }
  [[nodiscard]] CounterTotals counters() const { return read_counters(process_.page()); }
  [[nodiscard]] QueueTotals totals() const {
    return read_totals(process_.page(), ticks_per_us_ != 0);
  }
  // It has a clock.
  [[nodiscard]] bool measures() const noexcept { return ticks_per_us_ != 0; }
  [[nodiscard]] common::EngineKind engine() const noexcept { return engine_kind_; }
  // How long the oldest request has been in flight; 0 where there is none.
  [[nodiscard]] std::uint64_t oldest_us() const noexcept;
  // See stall_watch.h.
  [[nodiscard]] std::string look_for_stall();
  [[nodiscard]] std::uint32_t disk_os_errno() const {
    return process_.page().disk_os_errno.load(std::memory_order_relaxed);
  }

 private:
  struct Swap {
    common::Fd eventfd;
    std::function<void(bool)> answered;
  };

  Worker(Services& services, DeviceLog& log, const WorkerOrder& order, Ended ended);
  [[nodiscard]] common::Result<void> keep(const WorkerOrder& order);
  // As adopt() takes them.
  [[nodiscard]] std::array<common::FdRef, 3> kept_fds() const noexcept;
  [[nodiscard]] common::Result<void> watch();
  void check_jail(int tries_left);
  void send_stop();
  void stop_later();
  void next_swap();
  void finish_swap(bool swapped);
  void answer_all_swaps();
  void on_exit(const Death& told);
  void conclude(const Death& death);
  [[nodiscard]] Death guessed(const Death& death) const;
  [[nodiscard]] WorkerEnd end_of(const Death& death) const;
  [[nodiscard]] bool was_sealed() const {
    return process_.page().stage.load(std::memory_order_relaxed) >= common::Stage::kSealed;
  }
  void log_end(const Death& death);
  void record_jailed();
  void record_end(const Death& death);
  [[nodiscard]] audit::Process process() const { return {audit::Role::kWorker, pid(), queue_}; }
  [[nodiscard]] std::string fault_text() const;

  Services& services_;
  DeviceLog& log_;
  std::string name_;  // "vda/2"
  std::uint32_t queue_;
  common::EngineKind engine_kind_;
  std::uint32_t ticks_per_us_;
  std::chrono::steady_clock::time_point started_;
  Jailed process_;
  // io_uring: the worker's ring lives until this is closed, its files with it. Not valid with the
  // fallback engine, and where the worker was adopted: then only `stop_` reaches it.
  common::Fd engine_;
  common::Fd stop_;
  bool adopted_ = false;
  bool unexplained_ = false;
  bool watched_ = false;  // Adopted ones: from watch_adopted() on.
  Kept kept_;
  Ended ended_;

  StallWatch stall_;
  bool stop_asked_ = false;
  bool jail_recorded_ = false;
  std::string killed_because_;
  std::chrono::milliseconds stop_retry_{1};
  std::deque<Swap> swaps_;  // The first one is under way.
  RingMessenger::Ticket stop_ticket_ = 0;
  RingMessenger::Ticket swap_ticket_ = 0;
  EventLoop::Registration stop_timer_;
  EventLoop::Registration patience_timer_;
  EventLoop::Registration jail_timer_;
  EventLoop::Registration swap_timer_;
  ExitWatch exit_watch_;
};

}  // namespace broker
