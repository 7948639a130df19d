// The broker's start: what it takes, and in which order, which the failures of its stages want.
#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "broker/audit/device_trail.h"
#include "broker/broker.h"
#include "broker/control/messages.h"
#include "broker/device.h"
#include "broker/least_privilege.h"
#include "broker/settings.h"
#include "broker/text.h"
#include "policy/posture.h"

namespace broker {
namespace {

using std::chrono::milliseconds;

std::string error_text(const common::Error& error) {
  return std::string(error.what) + ": " + errno_text(error.os_errno);
}

}  // namespace

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

// --- what an earlier broker has left ------------------------------------------------------------

// The devices of an earlier broker's operators may be among what it has left.
Answer<void> Broker::find_inheritance() {
  std::vector<std::string> names;
  names.reserve(config_.devices.size() + kept_devices_.devices.size());
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

}  // namespace broker
