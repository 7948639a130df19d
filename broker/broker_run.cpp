// The broker at work: signals, what it looks at now and then, and its end.
#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "broker/audit/device_trail.h"
#include "broker/broker.h"
#include "broker/device.h"
#include "broker/stats_report.h"
#include "common/startup_pages.h"
#include "policy/posture.h"

namespace broker {
namespace {

using std::chrono::milliseconds;

// How soon an operator reads that a disk fails, and how often at most.
constexpr milliseconds kLookInterval{2000};
// SIGTERM promises an end within 2 s, on a busy host too.
constexpr milliseconds kStopDrain{1200};
constexpr milliseconds kStopKill{1300};
constexpr milliseconds kStopLimit{1600};

// What systemd takes for "start me again" (packaging/systemd).
constexpr int kLeftExit = 75;

}  // namespace

std::uint64_t Broker::own_pid() { return static_cast<std::uint64_t>(::getpid()); }

int Broker::run() {
  common::give_back_startup_pages();
  loop_->run();
  if (control_) control_->look();
  trail_->record(audit::Event(audit::Kind::kBrokerStopped));
  return 0;
}

void Broker::on_signal(Signal signal) {
  switch (signal) {
    case Signal::kStop:
      return stop();
    case Signal::kPosture:
      return log_postures();
    case Signal::kReload:
      return reload();
    case Signal::kReopen:
      return trail_->reopen();
    case Signal::kUpgrade:
      log_.info("", "replacing the workers of all devices, one queue after the other");
      return fleet_->replace_workers();
    case Signal::kLeave:
      if (keep_ != nullptr) return leave("it was asked to leave", kLeftExit);
      return log_.warn("", "sessions and workers end with this broker (--orphans), so it stays");
  }
}
// Without a destructor: what it would close and remove is another broker's now.
void Broker::leave(const std::string& why, int exit_code) {
  log_.info("", why + ": leaving what is served to the next broker");
  if (control_) control_->look();
  trail_->record(audit::Event(audit::Kind::kBrokerLeft)
                     .with(audit::Key::kPid, own_pid())
                     .with(audit::Key::kCause, why));
  trail_.reset();  // Lets go of the audit log, which the next broker goes on with.
  std::_Exit(exit_code);
}

void Broker::on_keeper_lost(bool again) {
  if (again) return log_.warn("", "the keeper had died; another one keeps what is served");
  log_.error("",
             "the keeper has died, and no other can take its place: when this broker dies, another "
             "cannot go on with what it serves; restart it when the guests can do without");
}

void Broker::stop() {
  if (std::exchange(stopping_, true)) {
    // Asked twice: no more patience.
    fleet_->kill_all();
    return;
  }
  log_.info("", "stopping: workers finish what they have taken");
  manager_.notify("STOPPING=1");
  if (control_) control_->close();
  stats_timer_.reset();
  look_timer_.reset();
  kill_timer_ = loop_->after(kStopKill, [this] { fleet_->kill_all(); });
  // What does not die by SIGKILL hangs in the kernel: it dies with its disk, not by our waiting.
  limit_timer_ = loop_->after(kStopLimit, [this] {
    for (const auto& [name, served] : fleet_->all()) {
      if (!served.device || served.device->finished()) continue;
      log_.error(name,
                 "processes of it do not end: they wait in the kernel for its disk, "
                 "and are left behind");
    }
    loop_->stop();
  });
  fleet_->stop_all(kStopDrain);
  stop_if_all_finished();
}

void Broker::stop_if_all_finished() {
  if (fleet_->all_finished() && (stopping_ || !fleet_->was_changed())) loop_->stop();
}

// Without a file to read again it is the terminal that has gone.
void Broker::reload() {
  if (config_.config_path.empty()) return stop();
  if (reload_ && !stopping_) reload_->start();
}

void Broker::log_postures() {
  std::vector<policy::ProcessPosture> postures;
  if (auto own = policy::read_posture(::getpid(), nullptr)) postures.push_back(*std::move(own));
  std::vector<Connection::Process> processes;
  if (const Jailed* keeper = keep_ == nullptr ? nullptr : keep_->keeper(); keeper != nullptr) {
    processes.push_back({keeper->child.pid, reported_layers(keeper->page())});
  }
  for (const auto& [name, served] : fleet_->all()) {
    if (served.device) served.device->list_processes(processes);
  }
  for (const Connection::Process& process : processes) {
    // One that ends while we look has no posture any more.
    auto posture = host_->may_change_ids && (host_->namespaces.flags & CLONE_NEWUSER) != 0
                       ? policy::read_posture_as_owner(process.pid, &process.layers)
                       : policy::read_posture(process.pid, &process.layers);
    if (posture) {
      postures.push_back(*std::move(posture));
    }
  }
  const std::string table = policy::format_postures(postures);
  for (std::size_t begin = 0; begin < table.size();) {
    const std::size_t end = std::min(table.find('\n', begin), table.size());
    log_.info("", std::string_view(table).substr(begin, end - begin));
    begin = end + 1;
  }
}

// A worker cannot say anything, so it is looked at: one line per device and look at most, however
// much fails.
void Broker::look_at_disks() {
  for (const auto& [name, served] : fleet_->all()) {
    if (!served.device) continue;
    served.device->look_where_used();
    served.device->record_dropped();
    if (const std::string line = served.device->disk_errors_line(); !line.empty()) {
      log_.error(name, line);
    }
  }
  if (control_) control_->look();
  trail_->look();
  look_timer_ = loop_->after(kLookInterval, [this] { look_at_disks(); });
}

void Broker::log_stats() {
  const auto now = std::chrono::steady_clock::now();
  const double seconds = std::chrono::duration<double>(now - stats_since_).count();
  stats_since_ = now;
  for (const auto& [name, served] : fleet_->all()) {
    if (!served.device) continue;
    if (const std::string line = served.device->stats_line(seconds); !line.empty()) {
      log_.info(name, line);
    }
  }
  stats_timer_ =
      loop_->after(std::chrono::seconds(config_.stats_interval_s), [this] { log_stats(); });
}

}  // namespace broker
