#include "broker/serve.h"

#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "broker/audit_reader.h"
#include "broker/blk_config.h"
#include "broker/calibrate.h"
#include "broker/device.h"
#include "broker/event_loop.h"
#include "broker/foreign_close.h"
#include "broker/host.h"
#include "broker/jailer.h"
#include "broker/least_privilege.h"
#include "broker/net_config.h"
#include "broker/open_disk.h"
#include "broker/open_tap.h"
#include "broker/posture_probe.h"
#include "broker/program_files.h"
#include "broker/ring_messenger.h"
#include "broker/services.h"
#include "broker/signals.h"
#include "broker/stats_report.h"
#include "broker/systemd.h"
#include "broker/text.h"
#include "broker/uid_range.h"
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

std::string error_text(const common::Error& error) {
  return std::string(error.what) + ": " + errno_text(error.os_errno);
}

// Everything that lives as long as the process; destroyed backwards, so users come after what they
// use.
class Broker {
 public:
  Broker(const BrokerConfig& config, Log& log)
      : config_(config), log_(log), manager_(ServiceManager::from_environment()) {}

  [[nodiscard]] Answer<void> start();
  [[nodiscard]] int run();

 private:
  // The stages of start().
  [[nodiscard]] Answer<void> make_loop();
  [[nodiscard]] Answer<void> open_backings();
  [[nodiscard]] Answer<DeviceModel> make_model(const DeviceConfig& config);
  [[nodiscard]] Answer<void> open_doorways();
  [[nodiscard]] Answer<void> look_around();
  [[nodiscard]] Answer<void> choose_engines();
  [[nodiscard]] Answer<void> check_posture();
  [[nodiscard]] Answer<void> give_up();
  [[nodiscard]] Answer<void> open_devices();
  void say_ready();
  void say_alive(std::chrono::microseconds interval);

  [[nodiscard]] bool strict() const { return config_.posture == PostureDemand::kStrict; }
  [[nodiscard]] bool looks_before_listening() const;

  // Events of the loop.
  void on_signal(Signal signal);
  void stop();
  void stop_if_all_finished();
  void log_postures();
  void log_stats();
  void look_at_disks();

  // What becomes a Device.
  struct Plan {
    DeviceFacts facts;
    EngineDecision engine;
    common::LayerResults posture{};
    std::unique_ptr<Doorway> doorway;
  };
  void log_start(const Plan& plan);

  const BrokerConfig& config_;
  Log& log_;
  ServiceManager manager_;
  TscClock clock_;
  UidRange uids_;
  std::unique_ptr<EventLoop> loop_;
  std::optional<Signals> signals_;
  std::optional<Programs> programs_;  // Until there is a jailer.
  std::optional<Host> host_;
  std::optional<Jailer> jailer_;
  ForeignCloser closer_;
  std::unique_ptr<RingMessenger> messenger_;
  std::unique_ptr<AuditReader> audit_;
  std::optional<Services> services_;
  std::vector<Plan> plans_;  // As config_.devices, until open_devices().
  std::vector<std::unique_ptr<Device>> devices_;
  bool stopping_ = false;
  std::chrono::steady_clock::time_point stats_since_;
  EventLoop::Registration stats_timer_;
  EventLoop::Registration look_timer_;
  EventLoop::Registration watchdog_timer_;
  EventLoop::Registration kill_timer_;
  EventLoop::Registration limit_timer_;
};

// A VMM can connect from open_doorways() on, and is let in by open_devices(). What takes time comes
// between these two, so that the socket is there within milliseconds of exec; unless something may
// have to be refused, which is said before anybody can connect.
Answer<void> Broker::start() {
  raise_limits();
  TRY(make_loop());
  TRY(open_backings());
  TRY_LET(programs_, open_programs());
  const bool look_first = looks_before_listening();
  if (look_first) {
    TRY(look_around());
    TRY(check_posture());
  }
  TRY(open_doorways());
  if (!strict()) say_ready();
  if (!look_first) TRY(look_around());
  TRY(give_up());
  TRY(check_posture());  // As it is now that the broker has less, too.
  TRY(open_devices());
  if (strict()) say_ready();
  return {};
}

bool Broker::looks_before_listening() const {
  return strict() || std::any_of(config_.devices.begin(), config_.devices.end(),
                                 [](const DeviceConfig& device) {
                                   return device.engine == EngineChoice::kIoUring;
                                 });
}

Answer<void> Broker::make_loop() {
  auto loop = EventLoop::create();
  if (!loop) return common::fail(error_text(loop.error()));
  loop_ = *std::move(loop);
  auto taken = Signals::take_over(*loop_, [this](Signal signal) { on_signal(signal); });
  if (!taken) return common::fail(error_text(taken.error()));
  signals_ = *std::move(taken);
  return {};
}

// The one place that chooses by type.
Answer<DeviceModel> Broker::make_model(const DeviceConfig& config) {
  auto tsc_per_us = [this] { return clock_.ticks_per_us(); };
  if (config.kind == common::DeviceKind::kNet) {
    TRY_LET(Tap tap, open_tap(config));
    return make_net_model(std::move(tap), config, std::move(tsc_per_us));
  }
  TRY_LET(Disk disk, open_disk(config));
  if (disk.unserved_bytes != 0) {
    log_.warn(config.name, "the last " + std::to_string(disk.unserved_bytes) + " bytes of " +
                               in_quotes(disk.path) + " are not served: they fill no block");
  }
  if (!disk.durable_writes) {
    log_.warn(config.name, in_quotes(disk.path) +
                               " is on FUSE, where the kernel does not make single direct writes "
                               "durable: a guest cannot switch its write cache off; with "
                               "--direct=off it can");
  }
  return make_blk_model(std::move(disk), config, std::move(tsc_per_us));
}

Answer<void> Broker::open_backings() {
  for (const DeviceConfig& config : config_.devices) {
    auto model = make_model(config);
    if (!model) return common::fail(config.name + ": " + model.error());
    Plan plan;
    plan.facts.name = config.name;
    plan.facts.model = *std::move(model);
    plan.facts.restart_after_violation = config.restart_after_violation;
    plan.facts.uid = uids_.pick(plan.facts.model.backing_device, plan.facts.model.backing_inode);
    plans_.push_back(std::move(plan));
  }
  return {};
}

Answer<void> Broker::open_doorways() {
  for (std::size_t i = 0; i < plans_.size(); ++i) {
    auto doorway = Doorway::make(config_.devices[i]);
    if (!doorway) return common::fail(plans_[i].facts.name + ": " + doorway.error());
    plans_[i].doorway = *std::move(doorway);
  }
  return {};
}

Answer<void> Broker::look_around() {
  host_ = look_at_host();
  TRY(choose_engines());
  jailer_.emplace(*std::exchange(programs_, std::nullopt), *host_, strict());
  if (auto audit = AuditReader::open(*loop_)) {
    audit_ = *std::move(audit);
  } else {
    log_.debug("", "deaths by seccomp will not name the system call: " + error_text(audit.error()));
  }
  services_.emplace(Services{*loop_, log_, *jailer_, closer_, messenger_.get(), audit_.get()});
  return {};
}

Answer<void> Broker::choose_engines() {
  // Without a ring of our own no worker with a ring could be reached.
  if (host_->uring.engine_possible) {
    if (auto messenger = RingMessenger::create(*loop_)) {
      messenger_ = *std::move(messenger);
    } else {
      host_->uring = {false, false, messenger.error().what, messenger.error().os_errno};
    }
  }
  for (std::size_t i = 0; i < plans_.size(); ++i) {
    Plan& plan = plans_[i];
    policy::UringSupport uring = host_->uring;
    if (uring.engine_possible && !plan.facts.model.uring_objection.empty()) {
      uring = {false, false, plan.facts.model.uring_objection.c_str(), EOPNOTSUPP};
    }
    auto engine = choose_engine(config_.devices[i].engine, uring);
    if (!engine) return common::fail(plan.facts.name + ": " + engine.error());
    plan.engine = *std::move(engine);
    plan.facts.engine = plan.engine.kind;
    plan.facts.may_fall_back = config_.devices[i].engine == EngineChoice::kAuto;
    plan.facts.model.session_start.call_swap_in_place =
        plan.engine.kind == common::EngineKind::kIoUring && host_->uring.message_fds ? 1 : 0;
  }
  return {};
}

// Each kind of worker once, however many devices have it.
Answer<void> Broker::check_posture() {
  std::map<const policy::Profile*, common::LayerResults> known;
  for (Plan& plan : plans_) {
    const auto profiles = plan.facts.model.worker_profiles(plan.facts.engine);
    for (const policy::Profile* profile : profiles) {
      if (known.contains(profile)) continue;
      TRY_LET(known[profile],
              probe_posture(*jailer_, plan.facts.uid, plan.facts.model.kind, *profile));
    }
    plan.posture = known[profiles.front()];
    for (const policy::Profile* profile : profiles) {
      plan.posture = weaker_posture(plan.posture, known[profile]);
    }
    if (!strict()) continue;
    std::string missing;
    for (const std::string& layer : missing_for_strict(plan.posture)) {
      missing += (missing.empty() ? "" : "; ") + layer;
    }
    if (!missing.empty()) {
      return common::fail("posture is below strict: " + missing +
                          "; give the broker what is missing, or use --require-posture=any to "
                          "serve without it");
    }
  }
  return {};
}

Answer<void> Broker::give_up() {
  const auto given_up = give_up_privileges(needed_capabilities(config_, *host_));
  if (!given_up) return common::fail("cannot give up privileges: " + error_text(given_up.error()));
  return {};
}

Answer<void> Broker::open_devices() {
  for (std::size_t i = 0; i < plans_.size(); ++i) {
    log_start(plans_[i]);
    devices_.push_back(std::make_unique<Device>(*services_, std::move(plans_[i].facts),
                                                std::move(plans_[i].doorway)));
    const auto opened = devices_.back()->open([this] { stop_if_all_finished(); });
    if (!opened) {
      return common::fail(config_.devices[i].name + ": " + error_text(opened.error()));
    }
  }
  plans_.clear();
  look_at_disks();
  if (config_.stats_interval_s != 0) {
    stats_since_ = std::chrono::steady_clock::now();
    stats_timer_ =
        loop_->after(std::chrono::seconds(config_.stats_interval_s), [this] { log_stats(); });
  }
  return {};
}

void Broker::log_start(const Plan& plan) {
  std::string engine = engine_name(plan.engine.kind);
  if (!plan.engine.why.empty()) engine += " (" + plan.engine.why + ")";
  log_.info(plan.facts.name, "serving " + plan.facts.model.summary + ", engine " + engine + ", " +
                                 plan.doorway->describe() + "; " + posture_summary(plan.posture));
}

void Broker::say_ready() {
  const std::size_t count = config_.devices.size();
  manager_.notify("READY=1\nSTATUS=Serving " + std::to_string(count) +
                  (count == 1 ? " device" : " devices"));
  if (const auto within = manager_.watchdog()) say_alive(*within / 2);
}

// From the loop, so that a loop that hangs says nothing.
void Broker::say_alive(std::chrono::microseconds interval) {
  manager_.notify("WATCHDOG=1");
  const auto pause = std::max(std::chrono::duration_cast<milliseconds>(interval), milliseconds(1));
  watchdog_timer_ = loop_->after(pause, [this, interval] { say_alive(interval); });
}

int Broker::run() {
  common::give_back_startup_pages();
  loop_->run();
  return 0;
}

void Broker::on_signal(Signal signal) {
  switch (signal) {
    case Signal::kStop:
      return stop();
    case Signal::kPosture:
      return log_postures();
  }
}

void Broker::stop() {
  if (std::exchange(stopping_, true)) {
    // Asked twice: no more patience.
    for (const auto& device : devices_) device->kill();
    return;
  }
  log_.info("", "stopping: workers finish what they have taken");
  manager_.notify("STOPPING=1");
  stats_timer_.reset();
  look_timer_.reset();
  kill_timer_ = loop_->after(kStopKill, [this] {
    for (const auto& device : devices_) device->kill();
  });
  // What does not die by SIGKILL hangs in the kernel: it dies with its disk, not by our waiting.
  limit_timer_ = loop_->after(kStopLimit, [this] {
    for (const auto& device : devices_) {
      if (device->finished()) continue;
      log_.error(device->name(),
                 "processes of it do not end: they wait in the kernel for its disk, "
                 "and are left behind");
    }
    loop_->stop();
  });
  for (const auto& device : devices_) device->stop(kStopDrain);
  stop_if_all_finished();
}

void Broker::stop_if_all_finished() {
  const bool all = std::all_of(devices_.begin(), devices_.end(),
                               [](const auto& device) { return device->finished(); });
  if (all) loop_->stop();
}

void Broker::log_postures() {
  std::vector<policy::ProcessPosture> postures;
  if (auto own = policy::read_posture(::getpid(), nullptr)) postures.push_back(*std::move(own));
  std::vector<Connection::Process> processes;
  for (const auto& device : devices_) device->list_processes(processes);
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
  for (const auto& device : devices_) {
    device->look_for_change();
    if (const std::string line = device->disk_errors_line(); !line.empty()) {
      log_.error(device->name(), line);
    }
  }
  look_timer_ = loop_->after(kLookInterval, [this] { look_at_disks(); });
}

void Broker::log_stats() {
  const auto now = std::chrono::steady_clock::now();
  const double seconds = std::chrono::duration<double>(now - stats_since_).count();
  stats_since_ = now;
  for (const auto& device : devices_) {
    if (const std::string line = device->stats_line(seconds); !line.empty()) {
      log_.info(device->name(), line);
    }
  }
  stats_timer_ =
      loop_->after(std::chrono::seconds(config_.stats_interval_s), [this] { log_stats(); });
}

}  // namespace

int serve(const BrokerConfig& config, Log& log) {
  Broker broker(config, log);
  if (const auto started = broker.start(); !started) {
    log.error("", started.error());
    return 1;
  }
  return broker.run();
}

}  // namespace broker
