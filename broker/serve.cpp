// The broker: what a start takes, in which order, and the end.
// Long because the stages of a start, and the order that their failures want, stand in one place.
#include "broker/serve.h"

#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdlib>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "broker/audit/device_trail.h"
#include "broker/audit/trail.h"
#include "broker/audit_reader.h"
#include "broker/control/desk.h"
#include "broker/control/event_ring.h"
#include "broker/control/messages.h"
#include "broker/control/server.h"
#include "broker/device.h"
#include "broker/device_maker.h"
#include "broker/event_loop.h"
#include "broker/fleet.h"
#include "broker/foreign_close.h"
#include "broker/halts.h"
#include "broker/host.h"
#include "broker/inheritance.h"
#include "broker/jailer.h"
#include "broker/keep.h"
#include "broker/least_privilege.h"
#include "broker/program_files.h"
#include "broker/reload.h"
#include "broker/ring_messenger.h"
#include "broker/services.h"
#include "broker/settings.h"
#include "broker/signals.h"
#include "broker/state_dir.h"
#include "broker/stats_report.h"
#include "broker/systemd.h"
#include "broker/text.h"
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

std::uint64_t own_pid() { return static_cast<std::uint64_t>(::getpid()); }

// What systemd takes for "start me again" (packaging/systemd).
constexpr int kLeftExit = 75;

// Everything that lives as long as the process; destroyed backwards, so users come after what they
// use.
class Broker {
 public:
  Broker(const BrokerConfig& config, Log& log)
      : config_(config),
        log_(log),
        manager_(ServiceManager::from_environment()),
        maker_(log, config.posture, config.uids),
        state_(config.state_dir),
        halts_(config.state_dir) {}

  ~Broker() {
    log_.listen({});
    maker_.groups().let_go();  // They outlive what keeps them.
  }
  Broker(const Broker&) = delete;
  Broker& operator=(const Broker&) = delete;

  [[nodiscard]] Answer<void> start();
  [[nodiscard]] int run();
  // Why start() failed.
  void record_failure(const std::string& error);

 private:
  // The stages of start().
  [[nodiscard]] Answer<void> open_trail();
  [[nodiscard]] Answer<void> check_trail();
  [[nodiscard]] Answer<void> make_loop();
  [[nodiscard]] Answer<void> find_inheritance();
  void log_lost();
  void record_ended();
  [[nodiscard]] Answer<void> start_keeping();
  [[nodiscard]] Answer<void> keep_operators_socket();
  [[nodiscard]] Answer<void> open_backings();
  [[nodiscard]] Answer<void> open_doorways();
  [[nodiscard]] Answer<void> look_around();
  [[nodiscard]] Answer<void> choose_engines();
  [[nodiscard]] Answer<void> check_posture();
  [[nodiscard]] Answer<void> give_up();
  [[nodiscard]] Answer<void> open_devices();
  [[nodiscard]] Answer<void> open_late();
  void open_kept_devices();
  // It can only be opened when the broker before us has left, which does not hand it on.
  [[nodiscard]] bool is_late(const DeviceConfig& config) const {
    return inheritance_.is_owned() && config.kind == common::DeviceKind::kNet &&
           !inheritance_.card_of(config.name);
  }
  // An operator has stopped it, or drained it until nobody was left: it is not opened.
  [[nodiscard]] bool stays_stopped(const DeviceConfig& config, Origin origin);
  [[nodiscard]] Halt halt_of(const std::string& name) const;
  void halt_again();
  void read_state();
  void forget_old_halts();
  // Of the configuration's devices, with why each cannot be opened.
  using Failures = std::vector<std::pair<std::string, std::string>>;
  [[nodiscard]] Answer<void> go_on_without(const Failures& failures);
  [[nodiscard]] Answer<void> listen_to_operators();
  [[nodiscard]] Answer<void> serve_operators();
  void say_ready();
  void say_alive(std::chrono::microseconds interval);

  [[nodiscard]] bool strict() const { return maker_.strict(); }
  // What this host lacks may keep it from serving.
  [[nodiscard]] bool demanding() const {
    return strict() || config_.core_scheduling == common::CoreScheduling::kRequired;
  }
  [[nodiscard]] bool looks_before_listening() const;

  // Events of the loop.
  void on_signal(Signal signal);
  void stop();
  void stop_if_all_finished();
  [[noreturn]] void leave(const std::string& why, int exit_code);
  void on_keeper_lost(bool again);
  void log_postures();
  void reload();
  void log_stats();
  void look_at_disks();

  const BrokerConfig& config_;
  Log& log_;
  ServiceManager manager_;
  DeviceMaker maker_;
  std::unique_ptr<audit::Trail> trail_;
  std::unique_ptr<EventLoop> loop_;
  std::optional<Signals> signals_;
  std::optional<Programs> programs_;  // Until there is a jailer.
  std::optional<Host> host_;
  std::unique_ptr<Cgroups> cgroups_;  // Null where no tree was delegated.
  std::optional<Jailer> jailer_;
  ForeignCloser closer_;
  std::unique_ptr<RingMessenger> messenger_;
  std::unique_ptr<AuditReader> audit_;
  Inheritance inheritance_;
  std::unique_ptr<Keep> keep_;  // Null: children end with us.
  std::optional<Services> services_;
  std::vector<DevicePlan> plans_;       // Of config_.devices, until open_devices().
  std::vector<DevicePlan> kept_plans_;  // As state_ has them, until then.
  std::vector<std::pair<DeviceConfig, Origin>> stopped_;  // Until then, too.
  std::optional<Fleet> fleet_;
  std::unique_ptr<control::Server> control_;  // Null where there is no operator's socket.
  StateDir state_;
  StateDir::Kept kept_devices_;  // As it was when we started.
  Halts halts_;
  std::map<std::string, Halt> kept_halts_;  // As they were, too.
  control::EventRing events_;
  std::optional<control::Desk> desk_;
  std::optional<Reload> reload_;
  bool inherited_ = false;
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
  maker_.note_descriptors(config_);
  TRY(make_loop());
  read_state();
  TRY(find_inheritance());
  TRY(open_trail());
  TRY(open_backings());
  TRY_LET(programs_, open_programs());
  const bool look_first = looks_before_listening();
  if (look_first) {
    TRY(look_around());
    TRY(check_posture());
  }
  TRY(open_doorways());
  TRY(listen_to_operators());
  if (!demanding() && !config_.take_over) say_ready();
  if (!look_first) TRY(look_around());
  TRY(open_late());
  open_kept_devices();
  TRY(give_up());
  TRY(check_posture());  // As it is now that the broker has less, too.
  TRY(start_keeping());
  TRY(open_devices());
  TRY(serve_operators());
  if (demanding() || config_.take_over) say_ready();
  return {};
}

Answer<void> Broker::open_trail() {
  using File = audit::Trail::File;
  TRY_LET(trail_, audit::Trail::open(config_.audit, log_,
                                     inheritance_.is_owned() ? File::kOfAnother : File::kOurs));
  maker_.record_to(*trail_);
  trail_->record(audit::Event(audit::Kind::kBrokerStarted)
                     .with(audit::Key::kVersion, BULKHEAD_VERSION)
                     .with(audit::Key::kPid, own_pid())
                     .with(audit::Key::kUid, std::uint64_t{::geteuid()}));
  record_ended();
  return check_trail();
}

Answer<void> Broker::check_trail() {
  trail_->look();
  if (!config_.audit.required || trail_->whole()) return {};
  return common::fail(std::string(
      "the audit log cannot be written to, and --audit=required does not let the broker start "
      "without it; the line before this one says why"));
}

void Broker::record_failure(const std::string& error) {
  if (trail_ == nullptr) return;
  trail_->record(audit::Event(audit::Kind::kBrokerStopped).with(audit::Key::kCause, error));
}

bool Broker::looks_before_listening() const {
  return demanding() || std::any_of(config_.devices.begin(), config_.devices.end(),
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

Answer<void> Broker::open_backings() {
  maker_.restore_limits(config_);
  Failures failures;
  for (const DeviceConfig& config : config_.devices) {
    if (is_late(config) || stays_stopped(config, Origin::kFile)) continue;
    auto plan = maker_.open_backing(config);
    if (plan) {
      plans_.push_back(*std::move(plan));
      continue;
    }
    // Of others sessions and workers run on, and need a broker.
    const bool alone = inheritance_.is_owned() || !inheritance_.is_there();
    if (alone) return common::fail(config.name + ": " + plan.error());
    failures.emplace_back(config.name, plan.error());
  }
  return go_on_without(failures);
}

// Where nothing at all can be had, it is rather the storage that is gone for a while, or the file
// that is wrong: then nothing ends, and guests go on with what they have.
Answer<void> Broker::go_on_without(const Failures& failures) {
  if (failures.empty()) return {};
  const bool nothing_left = plans_.empty() && stopped_.empty() && kept_devices_.devices.empty();
  for (const auto& [name, why] : failures) {
    log_.error(name, nothing_left ? "cannot be served: " + why
                                  : "is not served any more, and what an earlier broker had left "
                                    "of it ends: " +
                                        why +
                                        "; once that is mended, 'bulkhead apply' or SIGHUP serves "
                                        "it again");
    if (nothing_left) continue;
    if (const auto uid = inheritance_.uid_of(name)) maker_.give_back(*uid);
  }
  if (!nothing_left) return {};
  return common::fail(
      "no device can be served. What an earlier broker has left goes on without "
      "one, " +
      std::to_string(inheritance_.process_count()) +
      " sessions and workers, until their VMMs end: mend what the lines before "
      "this one say and start it again, and it goes on with them");
}

Answer<void> Broker::open_doorways() {
  for (DevicePlan& plan : plans_) {
    if (const auto opened = maker_.open_doorway(plan); !opened) {
      return common::fail(plan.facts.name + ": " + opened.error());
    }
  }
  if (const auto door = inheritance_.open_door(); !door) {
    log_.warn("", door.error() + "; sessions and workers end with this broker");
  }
  return {};
}

Answer<void> Broker::look_around() {
  host_ = look_at_host();
  TRY(choose_engines());
  TRY_LET(cgroups_, Cgroups::take(config_.cgroup, log_));
  const JailChoices choices{strict(), config_.forensic, config_.core_scheduling};
  jailer_.emplace(*std::exchange(programs_, std::nullopt), *host_, choices, cgroups_.get());
  if (auto audit = AuditReader::open(*loop_)) {
    audit_ = *std::move(audit);
  } else {
    log_.debug("", "deaths by seccomp will not name the system call: " + error_text(audit.error()));
  }
  services_.emplace(Services{*loop_, log_, *jailer_, closer_, messenger_.get(), audit_.get(),
                             trail_.get(), nullptr, cgroups_.get()});
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
  for (DevicePlan& plan : plans_) {
    if (const auto chosen = maker_.choose_engine(plan, *host_); !chosen) {
      return common::fail(plan.facts.name + ": " + chosen.error());
    }
  }
  return {};
}

Answer<void> Broker::check_posture() {
  maker_.forget_postures();
  for (DevicePlan& plan : plans_) TRY(maker_.check_posture(plan, *jailer_));
  std::erase_if(kept_plans_, [this](DevicePlan& plan) {
    const auto checked = maker_.check_posture(plan, *jailer_);
    if (!checked) log_.error(plan.facts.name, "is not served: " + checked.error());
    return !checked;
  });
  return {};
}

Answer<void> Broker::give_up() {
  const policy::Profile* const list = own_list(config_, cgroups_ != nullptr);
  if (list == nullptr) log_.warn("", "forensic: the broker's own list of system calls is off");
  const auto given_up = give_up_privileges(needed_capabilities(config_, *host_), list);
  if (!given_up) return common::fail("cannot give up privileges: " + error_text(given_up.error()));
  trail_->serving();
  return {};
}

// From here on what fails keeps nobody else from being served: there is no broker to go back to.
Answer<void> Broker::open_late() {
  const auto late = [this](const DeviceConfig& config) { return is_late(config); };
  const bool any = std::any_of(config_.devices.begin(), config_.devices.end(), late) ||
                   std::any_of(kept_devices_.devices.begin(), kept_devices_.devices.end(), late);
  if (!any) return {};
  TRY(inheritance_.make_way());
  log_lost();
  for (const DeviceConfig& config : config_.devices) {
    if (!late(config)) continue;
    auto plan = maker_.make(config, *host_, *jailer_);
    if (plan) {
      plans_.push_back(*std::move(plan));
    } else {
      log_.error(config.name, "cannot be served any more: " + plan.error());
    }
  }
  return {};
}

// Those that operators have added to an earlier broker. One that cannot be served any more keeps
// nobody else from it.
void Broker::open_kept_devices() {
  StateDir::Kept kept = std::exchange(kept_devices_, {});
  for (const std::string& line : kept.complaints) log_.error("", line);
  std::set<std::pair<std::string_view, std::string>> claimed;
  for (const DeviceConfig& config : config_.devices) {
    for (Claim& claim : claims_of(config)) claimed.emplace(claim.setting, std::move(claim.value));
  }
  for (DeviceConfig& config : kept.devices) {
    const std::string name = config.name;
    const auto clashes = [&](const Claim& claim) {
      return claimed.contains({claim.setting, claim.value}) && !claim.shared;
    };
    const std::vector<Claim> claims = claims_of(config);
    if (std::any_of(claims.begin(), claims.end(), clashes)) {
      log_.warn(name,
                "was added by an operator, and the configuration now lists it or what it "
                "uses: that is served");
      continue;
    }
    for (const Claim& claim : claims) claimed.emplace(claim.setting, claim.value);
    if (stays_stopped(config, Origin::kOperator)) continue;
    auto plan = maker_.make(std::move(config), *host_, *jailer_);
    if (plan) {
      kept_plans_.push_back(*std::move(plan));
    } else {
      log_.error(name, "was added by an operator, and cannot be served any more: " + plan.error() +
                           "; 'bulkhead remove' does not know it: delete its file in " +
                           in_quotes(state_.path()));
    }
  }
}

Answer<void> Broker::open_devices() {
  fleet_.emplace(*services_, maker_, *host_, [this] { stop_if_all_finished(); });
  fleet_->keep_halts_in(halts_);
  for (DevicePlan& plan : plans_) {
    const std::string name = plan.facts.name;
    const auto opened = fleet_->admit(std::move(plan), Origin::kFile);
    if (opened) continue;
    // Others may have been gone on with by now: they must not end with it.
    if (!inherited_) return common::fail(name + ": " + opened.error());
    log_.error(name, "cannot be served: " + opened.error());
  }
  plans_.clear();
  for (DevicePlan& plan : kept_plans_) {
    const std::string name = plan.facts.name;
    const auto opened = fleet_->admit(std::move(plan), Origin::kOperator);
    if (!opened) log_.error(name, "cannot be served: " + opened.error());
  }
  kept_plans_.clear();
  for (auto& [config, origin] : stopped_) fleet_->admit_stopped(std::move(config), origin);
  stopped_.clear();
  halt_again();
  forget_old_halts();
  TRY(keep_operators_socket());
  inheritance_.done(keep_.get());
  record_ended();
  if (keep_ != nullptr) keep_->complete();
  look_at_disks();
  if (config_.stats_interval_s != 0) {
    stats_since_ = std::chrono::steady_clock::now();
    stats_timer_ =
        loop_->after(std::chrono::seconds(config_.stats_interval_s), [this] { log_stats(); });
  }
  return {};
}

void Broker::read_state() {
  kept_devices_ = state_.read();
  Halts::Kept kept = halts_.read();
  for (const std::string& line : kept.complaints) log_.error("", line);
  kept_halts_ = std::move(kept.halts);
}

// What an earlier broker has left knows best.
Halt Broker::halt_of(const std::string& name) const {
  if (inheritance_.is_there() || inherited_) return inheritance_.halt_of(name);
  const auto kept = kept_halts_.find(name);
  return kept == kept_halts_.end() ? Halt::kNone : kept->second;
}

// Of devices that are not there any more, or are served.
void Broker::forget_old_halts() {
  for (const auto& [name, halt] : std::exchange(kept_halts_, {})) {
    const Fleet::Served* served = fleet_->find(name);
    if (served != nullptr && served->state != DeviceState::kServing) continue;
    if (const auto gone = halts_.keep(name, Halt::kNone); !gone) log_.error(name, gone.error());
  }
}

bool Broker::stays_stopped(const DeviceConfig& config, Origin origin) {
  const bool stays = halt_of(config.name) != Halt::kNone && !inheritance_.is_served(config.name);
  if (stays) stopped_.emplace_back(config, origin);
  return stays;
}

// Whose VMM is served still.
void Broker::halt_again() {
  std::vector<std::pair<std::string, Halt>> halted;
  for (const auto& [name, served] : fleet_->all()) {
    if (served.device) halted.emplace_back(name, inheritance_.halt_of(name));
  }
  for (const auto& [name, halt] : halted) {
    if (halt == Halt::kDrain) (void)fleet_->drain(name);
    if (halt == Halt::kStop) fleet_->stop(name, false, [](const Answer<void>&) {});
  }
}

// A socket that was asked for must be had. The one of `serve` that was not is the first broker's
// that can have it.
Answer<void> Broker::listen_to_operators() {
  const std::string path =
      config_.control_socket.value_or(config_.control_by_default ? control::kDefaultSocket : "");
  if (path.empty()) return {};
  auto made = control::Server::make(config_, path, inheritance_.operators_listener(path));
  if (made) {
    control_ = *std::move(made);
    return {};
  }
  if (config_.control_socket) return common::fail(std::move(made).error());
  log_.info("", made.error() + "; without --control-socket=PATH nobody can ask this broker");
  return {};
}

Answer<void> Broker::serve_operators() {
  reload_.emplace(*loop_, *fleet_, log_, config_);
  if (!control_) return {};
  control::Desk::Facts facts;
  facts.strict = strict();
  facts.state = &state_;
  facts.end_broker = [this] { loop_->post([this] { stop(); }); };
  desk_.emplace(*control_, *fleet_, *services_, events_, std::move(facts));
  log_.listen([this](Level level, std::string_view subject, std::string_view text) {
    events_.add(level, subject, text);
    desk_->event_came();
  });
  if (const auto opened = control_->open(*services_, *desk_); !opened) {
    return common::fail("operator's socket: " + error_text(opened.error()));
  }
  return {};
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

// The devices of an earlier broker's operators may be among what it has left.
Answer<void> Broker::find_inheritance() {
  std::vector<std::string> names;
  for (const DeviceConfig& device : config_.devices) names.push_back(device.name);
  for (const DeviceConfig& device : kept_devices_.devices) names.push_back(device.name);
  TRY_LET(inheritance_, Inheritance::find(config_, std::move(names)));
  log_lost();
  maker_.inherit(inheritance_);
  return {};
}

void Broker::log_lost() {
  for (const Inheritance::Lost& lost : inheritance_.take_lost()) {
    log_.warn(lost.device, "what an earlier broker had left of it has ended: " + lost.why);
  }
  record_ended();
}

void Broker::record_ended() {
  if (trail_ == nullptr) return;
  for (const Inheritance::Ended& each : inheritance_.take_ended()) {
    audit::Subject subject;
    subject.device = each.device;
    trail_->record(
        audit::about(subject, audit::process_ended(each.process, "ended", "its broker had died")));
  }
}

Answer<void> Broker::keep_operators_socket() {
  if (keep_ == nullptr || !control_) return {};
  TRY_LET(Kept kept,
          inheritance_.keep_listener(*keep_, KeptType::kOperators, {}, control_->listener()));
  control_->keep(std::move(kept));
  return {};
}

// Everything else that can fail has not failed by now.
Answer<void> Broker::start_keeping() {
  if (!inheritance_.wanted()) return {};
  const Keep::Events events{
      .leave = [this] { leave("another broker takes over", 0); },
      .lost = [this](bool again) { on_keeper_lost(again); },
  };
  if (inheritance_.is_there()) {
    const bool owned = inheritance_.is_owned();
    TRY_LET(keep_, inheritance_.take_over(*loop_, *jailer_, events));
    inherited_ = true;
    log_lost();
    log_.info("", "taking over what an earlier broker has left");
    TRY(trail_->take_file());
    TRY(check_trail());
    trail_->record(audit::Event(audit::Kind::kBrokerTookOver)
                       .with(audit::Key::kPid, own_pid())
                       .with(audit::Key::kAmount, inheritance_.process_count())
                       .with(audit::Key::kCause, owned ? "which has left" : "which had died"));
  } else if (auto keep = Keep::start(*loop_, *jailer_, inheritance_.take_door(), events)) {
    keep_ = *std::move(keep);
  } else {
    log_.warn("", keep.error() + "; sessions and workers end with this broker");
    return {};
  }
  services_->keep = keep_.get();
  maker_.groups().keep_in(*keep_,
                          [this](const KeptRecord& record) { return inheritance_.take(record); });
  return {};
}

// Without a destructor: what it would close and remove is another broker's now.
void Broker::leave(const std::string& why, int exit_code) {
  log_.info("", why + ": leaving what is served to the next broker");
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

}  // namespace

int serve(const BrokerConfig& config, Log& log) {
  Broker broker(config, log);
  if (const auto started = broker.start(); !started) {
    broker.record_failure(started.error());
    log.error("", started.error());
    return 1;
  }
  return broker.run();
}

}  // namespace broker
