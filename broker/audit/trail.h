// broker/audit/trail.h: the audit trail: every grant and refusal of the broker, once, in a form
// that shows whether it is whole.
//
// One schema (event.h), two sinks. JSON lines, each with a number and the hash of the one before
// (json_line.h), go to a file that is reopened on SIGUSR2 (SIGHUP is for the configuration, which
// a log's rotation must not touch), or to the journal. Records in libvirt's formats go to the
// kernel's audit log (kernel_text.h), for which alone CAP_AUDIT_WRITE is kept.
//
// Who waits for it: before serving() the caller, so that a sink that refuses is known before any
// VMM is. From then on nobody: a full disk, a slow one, which a guest may have made slow, or a
// kernel whose queue is full, is waited for by a thread of the trail's own. What the queue to it
// does not hold is counted as lost. No event is synced to the disk: a crash of the host may take
// the last seconds, and the broker's next start says so where a line was cut.
//
// What is caused by a guest or a VMM is bounded in rate for each device and kind (device_trail.h).
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "broker/audit/event.h"
#include "broker/audit/json_log.h"
#include "broker/audit/kernel_log.h"
#include "broker/config.h"
#include "broker/log.h"

namespace broker::audit {

class Trail {
 public:
  // Opens what `config` names. Where a sink cannot be had, and is not required, the log says so and
  // it is left out.
  // kOfAnother: a broker that we take over from writes the file yet. Events wait here until
  // take_file().
  enum class File : std::uint8_t { kOurs, kOfAnother };
  [[nodiscard]] static Answer<std::unique_ptr<Trail>> open(const AuditConfig& config, Log& log,
                                                           File file = File::kOurs);
  Trail(const Trail&) = delete;
  Trail& operator=(const Trail&) = delete;
  // Waits a moment for what is not written yet.
  ~Trail();

  // The other broker has left, and let go of the file: waits a moment where it has not, and writes
  // what has happened. Fails where the file cannot be had and is required.
  [[nodiscard]] Answer<void> take_file();

  // From now on the caller does not wait. After the broker has given up its privileges: what a
  // thread has, it keeps.
  void serving();

  void record(Event event);
  // The file was moved away: SIGUSR2.
  void reopen();
  // From time to time: tries again what could not be written, and logs what went wrong.
  void look();

  // A sink is open.
  [[nodiscard]] bool active() const noexcept { return active_; }
  // The first events could not be written, or a sink has been left out.
  [[nodiscard]] bool whole();

 private:
  struct Task {
    enum class What : std::uint8_t { kWrite, kReopen, kRetry };
    What what;
    std::optional<Event> event;
    Time time;
  };
  struct Message {
    Level level;
    std::string text;
  };
  // What the thread shares with us; it outlives us where a sink hangs for ever.
  struct Shared {
    std::mutex mutex;
    std::condition_variable came;
    std::condition_variable ended;
    std::deque<Task> tasks;
    std::uint64_t overflowed = 0;
    bool stop = false;
    bool stopped = false;
    std::vector<Message> messages;

    // The writer's alone: the caller until serving(), then the thread.
    std::optional<JsonLog> json;
    std::optional<KernelLog> kernel;
    bool json_failing = false;
    bool kernel_failing = false;
  };

  explicit Trail(Log& log) : log_(log), shared_(std::make_shared<Shared>()) {}
  [[nodiscard]] Answer<void> leave_out(const std::string& error);
  void take_waiting();
  void say_head(const char* when);
  void add(Task task);
  static void run(Shared& shared);
  static void perform(Shared& shared, const Task& task);
  static void write(Shared& shared, const Event& event, Time time);
  static void note_state(Shared& shared);
  static void tell(Shared& shared, Level level, std::string text);

  Log& log_;
  std::shared_ptr<Shared> shared_;
  std::optional<std::thread> thread_;
  bool active_ = false;
  bool required_ = false;
  std::optional<JsonLog> not_ours_;  // Until take_file().
  std::deque<Task> waiting_;         // For it.
};

}  // namespace broker::audit
