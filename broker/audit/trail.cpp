#include "broker/audit/trail.h"

#include <system_error>
#include <utility>

#include "broker/text.h"

namespace broker::audit {
namespace {

// Some 300 bytes each; a broker of a thousand devices makes three times as many at its start.
constexpr std::size_t kTasksMax = 8192;
// How long a broker that ends waits for a disk of the audit log that hangs.
constexpr std::chrono::milliseconds kFlushPatience{5000};

Time now() { return std::chrono::system_clock::now(); }

}  // namespace

Answer<std::unique_ptr<Trail>> Trail::open(const AuditConfig& config, Log& log, File file) {
  if (config.required && config.log.empty() && config.kernel == KernelAudit::kOff) {
    return common::fail(std::string(
        "--audit=required, and no audit log is named; give --audit-log, or --audit-kernel"));
  }
  std::unique_ptr<Trail> trail(new Trail(log));
  trail->required_ = config.required;
  Shared& shared = *trail->shared_;
  if (!config.log.empty() && file == File::kOfAnother) {
    auto json = JsonLog::open_of_another(config.log);
    if (json) {
      trail->not_ours_ = *std::move(json);
    } else {
      TRY(trail->leave_out(json.error()));
    }
  } else if (!config.log.empty()) {
    auto json = JsonLog::open(config.log);
    if (json) {
      shared.json = *std::move(json);
      shared.json->write_opened(now());
    } else {
      TRY(trail->leave_out(json.error()));
    }
  }
  if (config.kernel != KernelAudit::kOff) {
    auto kernel = KernelLog::open(config.kernel == KernelAudit::kAll);
    if (kernel) {
      shared.kernel = *std::move(kernel);
    } else {
      TRY(trail->leave_out(kernel.error()));
    }
  }
  trail->active_ = shared.json || shared.kernel || trail->not_ours_;
  return trail;
}

Answer<void> Trail::leave_out(const std::string& error) {
  if (required_) {
    return common::fail(error + " (--audit=required does not let the broker start without it)");
  }
  log_.error("", error + "; going on without it, since --audit=required is not given");
  return {};
}

Answer<void> Trail::take_file() {
  if (!not_ours_) return {};
  const auto taken = not_ours_->take();
  if (taken) {
    shared_->json = std::move(not_ours_);
    shared_->json->write_opened(now());
    if (thread_) say_head("goes on");  // The thread gets it with what has waited.
  }
  not_ours_.reset();
  take_waiting();
  active_ = shared_->json || shared_->kernel;
  if (!taken) TRY(leave_out(taken.error()));
  return {};
}

void Trail::take_waiting() {
  for (Task& task : std::exchange(waiting_, {})) add(std::move(task));
}

Trail::~Trail() {
  // Another broker's file is not written to; the kernel's log is everybody's.
  not_ours_.reset();
  take_waiting();
  if (thread_) {
    std::unique_lock lock(shared_->mutex);
    shared_->stop = true;
    shared_->came.notify_one();
    const bool flushed =
        shared_->ended.wait_for(lock, kFlushPatience, [this] { return shared_->stopped; });
    lock.unlock();
    if (!flushed) {
      // Its disk hangs. The thread ends with the process, or stays in the kernel with it.
      thread_->detach();
      log_.error("", "the last events of the audit log are not written: its disk hangs");
      return;
    }
    thread_->join();
  }
  look();
  say_head("ends");
}

void Trail::serving() {
  if (!active_ || thread_) return;
  say_head("goes on");
  try {
    thread_.emplace([shared = shared_] { run(*shared); });
  } catch (const std::system_error&) {
    log_.warn("",
              "the audit log is written by the broker itself, which waits for it: there is no "
              "thread to be had");
  }
}

// What verify --head compares with: kept where whoever changes the audit log may not get at it.
void Trail::say_head(const char* when) {
  if (!shared_->json) return;
  const Head& head = shared_->json->head();
  log_.info("", std::string("the audit log ") + when + " at event " + std::to_string(head.seq) +
                    ", head " + std::to_string(head.seq) + ":" + head.hash);
}

bool Trail::whole() {
  const std::scoped_lock lock(shared_->mutex);
  return !shared_->json_failing && !shared_->kernel_failing;
}

void Trail::record(Event event) {
  if (active_) add({Task::What::kWrite, std::move(event), now()});
}

void Trail::reopen() {
  if (active_) add({Task::What::kReopen, std::nullopt, now()});
}

void Trail::look() {
  if (!active_) return;
  std::vector<Message> messages;
  bool failing = false;
  {
    const std::scoped_lock lock(shared_->mutex);
    messages.swap(shared_->messages);
    failing = shared_->json_failing;
  }
  if (thread_ && failing) add({Task::What::kRetry, std::nullopt, now()});
  for (const Message& message : messages) log_.write(message.level, "", message.text);
}

void Trail::add(Task task) {
  if (not_ours_) {
    if (waiting_.size() < kTasksMax) waiting_.push_back(std::move(task));
    return;
  }
  if (!thread_) return perform(*shared_, task);
  const std::scoped_lock lock(shared_->mutex);
  if (shared_->tasks.size() >= kTasksMax) {
    if (task.what == Task::What::kWrite) ++shared_->overflowed;
    return;
  }
  shared_->tasks.push_back(std::move(task));
  shared_->came.notify_one();
}

// --- the writer ----------------------------------------------------------------------------------

void Trail::run(Shared& shared) {
  std::unique_lock lock(shared.mutex);
  while (true) {
    shared.came.wait(lock, [&] { return shared.stop || !shared.tasks.empty(); });
    if (shared.tasks.empty()) break;
    const Task task = std::move(shared.tasks.front());
    shared.tasks.pop_front();
    const std::uint64_t overflowed = std::exchange(shared.overflowed, 0);
    lock.unlock();
    if (overflowed != 0 && shared.json) {
      shared.json->add_lost(overflowed, "the audit log was written too slowly");
    }
    if (overflowed != 0 && shared.kernel) shared.kernel->add_lost(overflowed);
    perform(shared, task);
    lock.lock();
  }
  shared.stopped = true;
  shared.ended.notify_all();
}

void Trail::perform(Shared& shared, const Task& task) {
  switch (task.what) {
    case Task::What::kWrite:
      write(shared, *task.event, task.time);
      break;
    case Task::What::kReopen:
      if (!shared.json) break;
      if (const auto opened = shared.json->reopen(task.time); !opened) {
        tell(shared, Level::kError,
             opened.error() + "; events go on into the file that was there before");
      }
      break;
    case Task::What::kRetry:
      if (shared.json) shared.json->retry(task.time);
      break;
  }
  note_state(shared);
}

void Trail::write(Shared& shared, const Event& event, Time time) {
  if (shared.json) shared.json->write(event, time);
  if (!shared.kernel) return;
  const auto written = shared.kernel->write(event);
  const bool failing = !written;
  bool was_failing = false;
  {
    const std::scoped_lock lock(shared.mutex);
    was_failing = std::exchange(shared.kernel_failing, failing);
  }
  if (failing && !was_failing) {
    tell(shared, Level::kError,
         std::string("events are lost to the kernel's audit log: ") + written.error().what + ": " +
             errno_text(written.error().os_errno));
  }
  if (!failing && was_failing) {
    tell(shared, Level::kWarn,
         "the kernel's audit log takes events again; it says how many were lost");
  }
}

void Trail::note_state(Shared& shared) {
  if (!shared.json) return;
  const bool failing = shared.json->lost() != 0;
  bool was_failing = false;
  {
    const std::scoped_lock lock(shared.mutex);
    was_failing = std::exchange(shared.json_failing, failing);
  }
  if (failing && !was_failing) {
    tell(shared, Level::kError,
         "events are lost to the audit log: " + shared.json->lost_cause() +
             "; make room, and the next event says how many");
  }
  if (!failing && was_failing) {
    tell(shared, Level::kWarn, "the audit log is written again; it says how many events were lost");
  }
}

void Trail::tell(Shared& shared, Level level, std::string text) {
  constexpr std::size_t kMessagesMax = 16;
  const std::scoped_lock lock(shared.mutex);
  if (shared.messages.size() < kMessagesMax) shared.messages.push_back({level, std::move(text)});
}

}  // namespace broker::audit
