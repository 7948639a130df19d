#include "broker/worker.h"

#include <sys/epoll.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <utility>

#include "broker/death_log.h"
#include "broker/event_text.h"
#include "broker/host.h"
#include "broker/text.h"
#include "common/ipc/worker_messages.h"
#include "common/stop_pipe.h"
#include "common/ticks.h"
#include "common/verify.h"
#include "policy/jail.h"
#include "policy/sanitizer.h"

namespace broker {
namespace {

namespace ipc = common::ipc;
using std::chrono::milliseconds;

// A worker that does not answer within this is replaced instead.
constexpr milliseconds kSwapPatience{1000};
// A front-end changes a call eventfd and waits; more than so many at once is no front-end's doing.
constexpr std::size_t kSwapsMax = 8;
constexpr milliseconds kStopRetryMax{64};
// How long sealing may take after "serving": microseconds, on a host that is not overloaded.
constexpr milliseconds kSealWait{50};
constexpr int kSealTries = 100;

}  // namespace

common::Result<std::unique_ptr<Worker>> Worker::start(Services& services, DeviceLog& log,
                                                      const WorkerOrder& order, Ended ended) {
  std::unique_ptr<Worker> worker(new Worker(services, log, order, std::move(ended)));
  TRY_LET(JailedWorker started,
          services.jailer.start_worker(
              worker->name_, order.uid, order.of, order.kind, order.engine, order.recipe,
              order.keep == nullptr ? Outlives::kNobody : Outlives::kBroker));
  worker->process_ = std::move(started.process);
  worker->engine_ = std::move(started.engine);
  worker->stop_ = std::move(started.stop);
  auto watched = worker->watch();
  // Before anybody can make it serve: a broker that takes our place must know of it.
  if (watched) watched = worker->keep(order);
  if (!watched) {
    // Nobody would notice its end: it must not live.
    kill_child(worker->process_.child.pidfd.ref());
    return common::fail(watched.error());
  }
  log.record(audit::worker_started(order.queue, worker->process_, engine_name(order.engine)));
  return worker;
}

common::Result<void> Worker::watch() {
  return exit_watch_.start(services_.loop, process_, adopted_, ExitWatch::Patience::kShort,
                           [this](const Death& death) { on_exit(death); });
}

common::Result<void> Worker::keep(const WorkerOrder& order) {
  KeptRecord record = make_record(KeptType::kWorker, order.device);
  record.numbers[0] = static_cast<std::uint64_t>(pid());
  record.numbers[1] = order.queue;
  record.numbers[2] = static_cast<std::uint64_t>(engine_kind_);
  record.numbers[3] = static_cast<std::uint64_t>(started_.time_since_epoch().count());
  record.numbers[4] = ticks_per_us_;
  record.numbers[5] = static_cast<std::uint64_t>(order.recipe.role);
  TRY_LET(kept_, keep_thing(order.keep, order.group, record, kept_fds()));
  return {};
}

std::array<common::FdRef, 3> Worker::kept_fds() const noexcept {
  return {process_.child.pidfd.ref(), stop_.ref(), process_.page_file.ref()};
}

common::Result<std::unique_ptr<Worker>> Worker::adopt(Services& services, DeviceLog& log,
                                                      KeptThing kept, Ended ended) {
  WorkerOrder order;
  order.device = kept.device();
  order.queue = static_cast<std::uint32_t>(kept.record.numbers[1]);
  order.engine = static_cast<common::EngineKind>(kept.record.numbers[2]);
  order.recipe.ticks_per_us = static_cast<std::uint32_t>(kept.record.numbers[4]);
  std::unique_ptr<Worker> worker(new Worker(services, log, order, std::move(ended)));
  using Clock = std::chrono::steady_clock;
  worker->started_ =
      Clock::time_point(Clock::duration(static_cast<Clock::rep>(kept.record.numbers[3])));
  worker->adopted_ = true;
  worker->process_.child.pid = static_cast<pid_t>(kept.record.numbers[0]);
  worker->process_.child.pidfd = std::move(kept.fds[0]);
  worker->stop_ = std::move(kept.fds[1]);
  worker->process_.page_file = std::move(kept.fds[2]);
  TRY(worker->process_.map_page());
  services.keep->adopt_thing(kept, worker->kept_fds());
  worker->kept_ = Kept(services.keep, kept.id);
  worker->jail_recorded_ = true;  // By whoever started it.
  log.record(audit::process_adopted(worker->process()));
  return worker;
}

common::Result<void> Worker::watch_adopted() {
  if (!adopted_ || std::exchange(watched_, true)) return {};
  return watch();
}

Worker::Worker(Services& services, DeviceLog& log, const WorkerOrder& order, Ended ended)
    : services_(services),
      log_(log),
      name_(order.device + "/" + std::to_string(order.queue)),
      queue_(order.queue),
      engine_kind_(order.engine),
      ticks_per_us_(order.recipe.ticks_per_us),
      started_(std::chrono::steady_clock::now()),
      ended_(std::move(ended)) {}

Worker::~Worker() {
  if (services_.messenger == nullptr) return;
  services_.messenger->abandon(stop_ticket_);
  services_.messenger->abandon(swap_ticket_);
}

void Worker::serving() {
  log_.info("worker " + name_ + " pid " + std::to_string(pid()) + " serving (" +
            engine_name(engine_kind_) + ", " +
            milliseconds_text(std::chrono::steady_clock::now() - started_) + ")");
  if (services_.jailer.strict() || log_.trail().active()) check_jail(kSealTries);
}

// "Serving" is the last thing that a worker can say: it is sealed right after it.
void Worker::check_jail(int tries_left) {
  const auto stage = process_.page().stage.load(std::memory_order_relaxed);
  common::Layer missing{};
  if (stage < common::Stage::kSealed && tries_left > 0) {
    jail_timer_ =
        services_.loop.after(kSealWait, [this, tries_left] { check_jail(tries_left - 1); });
    return;
  }
  record_jailed();
  if (services_.jailer.strict() && policy::below_strict(layers(), missing)) {
    const std::string what =
        "layer '" + std::string(common::layer_name(missing)) + "' of its jail is missing";
    log_.record(audit::process_refused(audit::Kind::kPostureRefused, process(), what));
    kill(what);
  }
}

void Worker::record_jailed() {
  if (std::exchange(jail_recorded_, true)) return;
  log_.record(audit::process_jailed(process(), layers()));
}

std::uint64_t Worker::oldest_us() const noexcept {
  const std::uint64_t since = process_.page().oldest_ticks.load(std::memory_order_relaxed);
  const std::uint64_t now = common::read_ticks();
  return since == 0 || since > now || ticks_per_us_ == 0 ? 0 : (now - since) / ticks_per_us_;
}

std::string Worker::look_for_stall() {
  const common::StatusPage& page = process_.page();
  constexpr auto kTurns = static_cast<std::size_t>(common::Counter::kTurns);
  return stall_.look(page.in_flight.load(std::memory_order_relaxed),
                     page.counters[kTurns].load(std::memory_order_relaxed));
}

void Worker::stop(milliseconds patience) {
  patience_timer_ = services_.loop.after(patience, [this, patience] {
    kill("it did not drain within " + std::to_string(patience.count()) + " ms");
  });
  exit_watch_.expect();
  if (!std::exchange(stop_asked_, true)) send_stop();
}

void Worker::send_stop() {
  if (!engine_.valid()) {
    // Where it has ended, on_exit() is on its way.
    (void)common::tell_to_stop(stop_.ref());
    return;
  }
  auto ticket = services_.messenger->send_stop(engine_.ref(), [this](int result) {
    stop_ticket_ = 0;
    if (result < 0) stop_later();
  });
  if (ticket) {
    stop_ticket_ = *ticket;
  } else {
    stop_later();
  }
}

// It has not enabled its ring yet (EBADFD: still starting), or its completion queue is full. Where
// it has ended, on_exit() is on its way.
void Worker::stop_later() {
  stop_timer_ = services_.loop.after(stop_retry_, [this] { send_stop(); });
  stop_retry_ = std::min(stop_retry_ * 2, kStopRetryMax);
}

void Worker::kill(const std::string& reason) {
  if (killed_because_.empty()) killed_because_ = reason;
  kill_child(process_.child.pidfd.ref());
}

void Worker::swap_call(common::Fd eventfd, std::function<void(bool)> answered) {
  const bool possible =
      engine_.valid() && !stop_asked_ && swaps_.size() < kSwapsMax && is_eventfd(eventfd.ref());
  if (!possible) {
    services_.closer.close(std::move(eventfd));
    return answered(false);
  }
  swaps_.push_back({std::move(eventfd), std::move(answered)});
  if (swaps_.size() == 1) next_swap();
}

// One at a time for one worker, so that the last one asked for is the one that stays.
void Worker::next_swap() {
  while (!swaps_.empty()) {
    auto ticket = services_.messenger->send_call(engine_.ref(), swaps_.front().eventfd.ref(),
                                                 [this](int result) { finish_swap(result >= 0); });
    if (ticket) {
      swap_ticket_ = *ticket;
      swap_timer_ = services_.loop.after(kSwapPatience, [this] {
        services_.messenger->abandon(swap_ticket_);
        finish_swap(false);
      });
      return;
    }
    const Swap refused = std::move(swaps_.front());
    swaps_.pop_front();
    refused.answered(false);
  }
}

void Worker::finish_swap(bool swapped) {
  swap_timer_.reset();
  swap_ticket_ = 0;
  const Swap done = std::move(swaps_.front());
  swaps_.pop_front();
  next_swap();
  done.answered(swapped);
}

void Worker::answer_all_swaps() {
  swap_timer_.reset();
  if (services_.messenger != nullptr) services_.messenger->abandon(swap_ticket_);
  for (const Swap& swap : std::exchange(swaps_, {})) swap.answered(false);
}

void Worker::on_exit(const Death& told) {
  unexplained_ = !told.known && was_sealed() && !stop_asked_ && killed_because_.empty();
  conclude(guessed(told));
}

std::optional<policy::Child> Worker::take_unexplained() {
  if (!std::exchange(unexplained_, false)) return std::nullopt;
  return policy::Child{process_.child.pid, std::move(process_.child.pidfd)};
}

void Worker::conclude(const Death& death) {
  stop_timer_.reset();
  patience_timer_.reset();
  jail_timer_.reset();
  if (services_.messenger != nullptr) services_.messenger->abandon(stop_ticket_);
  answer_all_swaps();
  // Before the session hears of it, which asks for the next one at once: a broker that finds both
  // would not know which of them serves.
  kept_.reset();
  if (was_sealed()) record_jailed();
  record_end(death);
  log_end(death);
  ended_(end_of(death));
}

// What its status page says of an end that nobody saw. It could have left with any exit code, too.
Death Worker::guessed(const Death& death) const {
  const common::StatusPage& page = process_.page();
  const bool left = page.stage.load(std::memory_order_relaxed) == common::Stage::kEnding;
  if (death.known || !left) return death;
  const auto fault = page.fault.load(std::memory_order_relaxed);
  constexpr auto kSessionsFaults = static_cast<std::uint32_t>(ipc::WorkerFault::kBadMessage);
  constexpr auto kHostsFaults = static_cast<std::uint32_t>(ipc::WorkerFault::kEngine);
  ipc::WorkerExit code = ipc::WorkerExit::kStopped;
  if (fault != 0) code = ipc::WorkerExit::kGuestFault;
  if (fault >= kSessionsFaults) code = ipc::WorkerExit::kStartRefused;
  if (fault >= kHostsFaults) code = ipc::WorkerExit::kHostFault;
  return {CLD_EXITED, static_cast<int>(code)};
}

WorkerEnd Worker::end_of(const Death& death) const {
  using ipc::QueueOutcome;
  const auto exited = [&](ipc::WorkerExit code) {
    return death.exited_with(static_cast<int>(code));
  };
  const std::uint32_t next_avail = process_.page().next_avail.load(std::memory_order_relaxed);
  if (exited(ipc::WorkerExit::kStopped) && stop_asked_) {
    return {QueueOutcome::kStopped, next_avail};
  }
  if (exited(ipc::WorkerExit::kGuestFault)) return {QueueOutcome::kGuestFault, next_avail};
  if (exited(ipc::WorkerExit::kStartRefused)) return {QueueOutcome::kNotStarted, 0};
  // It could not set itself up, or we have killed it for good reason: another one would fare alike.
  // A crash is none of that, also where a sanitizer's run-time makes an exit of it.
  const bool refused_itself = exited(ipc::WorkerExit::kHostFault) || !policy::kSanitizerBuild;
  if (death.exited() && !was_sealed() && refused_itself) return {QueueOutcome::kNotStarted, 0};
  if (!killed_because_.empty()) return {QueueOutcome::kGaveUp, next_avail};
  return {QueueOutcome::kDied, next_avail, death.by_seccomp(),
          std::chrono::steady_clock::now() - started_};
}

void Worker::log_end(const Death& death) {
  const std::string who = " (pid " + std::to_string(pid()) + ")";
  const std::string worker = "worker " + name_;
  const auto outcome = end_of(death).outcome;
  if (outcome == ipc::QueueOutcome::kStopped) return log_.info(worker + " stopped: drained" + who);
  // Not its own doing: its session went away while it waited to be told of its ring.
  if (outcome == ipc::QueueOutcome::kNotStarted && stop_asked_) {
    return log_.info(worker + " stopped before it served" + who);
  }
  if (!killed_because_.empty() && !death.exited()) {
    return log_.warn(worker + " killed: " + killed_because_ + who);
  }
  if (death.exited() && process_.page().fault.load(std::memory_order_relaxed) != 0) {
    return log_.warn(worker + " ended: " + fault_text() + who);
  }
  if (unexplained_) return log_.error(worker + " ended; how is not known yet" + who);
  log_death(log_, process(), death, services_.audit, worker, who);
}

void Worker::record_end(const Death& death) {
  const auto outcome = end_of(death).outcome;
  const auto ended = [&](std::string_view how, const std::string& cause = {}) {
    log_.record(audit::process_ended(process(), how, cause));
  };
  if (outcome == ipc::QueueOutcome::kStopped) return ended("drained");
  if (outcome == ipc::QueueOutcome::kNotStarted && stop_asked_) return ended("not needed");
  if (!killed_because_.empty() && !death.exited()) return ended("killed", killed_because_);
  if (death.exited() && process_.page().fault.load(std::memory_order_relaxed) != 0) {
    return ended(outcome == ipc::QueueOutcome::kGuestFault ? "guest's fault" : "failed",
                 fault_text());
  }
  if (!death.known) return ended("died");
  ended("died", words_for(death));
}

std::string Worker::fault_text() const {
  const common::StatusPage& page = process_.page();
  const auto fault = static_cast<ipc::WorkerFault>(page.fault.load(std::memory_order_relaxed));
  return describe_fault(fault,
                        {page.fault_detail[0].load(std::memory_order_relaxed),
                         page.fault_detail[1].load(std::memory_order_relaxed)},
                        static_cast<int>(page.fault_os_errno.load(std::memory_order_relaxed)));
}

}  // namespace broker
