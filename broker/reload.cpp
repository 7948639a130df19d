#include "broker/reload.h"

#include <utility>

#include "broker/config_file.h"
#include "broker/control/add_device.h"
#include "broker/text.h"

namespace broker {

RunningDevices running_in(const Fleet& fleet) {
  RunningDevices running;
  for (const auto& [name, served] : fleet.all()) {
    if (served.removing) continue;
    running[name] = {control::with_absolute_paths(*served.config), served.origin,
                     served.connected()};
  }
  return running;
}

void Reload::start() {
  if (running_) {
    again_ = true;
    return;
  }
  FileAnswer file = read_config_file(before_.config_path);
  if (!file) {
    for (const std::string& line : file.error()) log_.error("", line);
    return log_.error("",
                      "the configuration is not reloaded: nothing has changed; correct it "
                      "('bulkhead check --config=FILE' tells the same) and send SIGHUP again");
  }
  warn_of_broker_settings(*file);
  fleet_.follow_groups(file->groups);
  for (DeviceConfig& device : file->devices) device = control::with_absolute_paths(device);
  changes_ = changes_to(file->devices, running_in(fleet_));
  at_ = 0;
  failed_ = 0;
  running_ = true;
  log_.info("", "reload: " + std::to_string(changes_.size()) + " changes in " +
                    in_quotes(before_.config_path));
  next();
}

void Reload::next() {
  if (at_ == changes_.size()) {
    running_ = false;
    log_.info("", "reload: done" + (failed_ == 0 ? std::string()
                                                 : ", but for " + std::to_string(failed_) +
                                                       " devices named above"));
    if (std::exchange(again_, false)) start();
    return;
  }
  const Change& change = changes_[at_];
  // From a task of its own: thousands of steps that are done at once would be as deep a stack.
  auto done = [this](Answer<void> result) {
    loop_.post([this, result = std::move(result)] { step_done(result); });
  };
  if (std::string why = swap_objection(change); !why.empty()) {
    return done(common::fail(std::move(why)));
  }
  if (change.kind == ChangeKind::kRemove || change.kind == ChangeKind::kMakeWay) {
    return fleet_.remove(change.name, false, std::move(done));
  }
  if (change.wanted.fd >= 0 || !change.wanted.tap_fds.empty()) {
    return done(
        common::fail(std::string("descriptors are handed over at the start only; restart "
                                 "the broker, or use 'bulkhead add'")));
  }
  if (change.kind == ChangeKind::kAdd) return done(fleet_.add(change.wanted, Origin::kFile));
  if (change.kind == ChangeKind::kTakePlace) return done(take_place(change));
  fleet_.replace(change.wanted, Origin::kFile, false, std::move(done));
}

// Where it cannot be served anew it is as it was, unless another one has taken what it had.
Answer<void> Reload::take_place(const Change& change) {
  const Answer<void> taken = fleet_.add(change.wanted, Origin::kFile);
  if (taken) return taken;
  const Answer<void> again = fleet_.add(change.before, Origin::kFile);
  return common::fail(taken.error() +
                      (again ? "; it is served as before"
                             : "; and it cannot be served as before any more: " + again.error()));
}

void Reload::step_done(const Answer<void>& result) {
  const Change& change = changes_[at_++];
  const std::string what = "reload: " + std::string(change_name(change.kind));
  if (result) {
    log_.info(change.name, what + ": done");
  } else {
    ++failed_;
    log_.error(change.name, what + ": not done: " + result.error());
  }
  next();
}

void Reload::warn_of_broker_settings(const BrokerConfig& now) {
  const bool same = now.posture == before_.posture && now.log_level == before_.log_level &&
                    now.forensic == before_.forensic &&
                    now.stats_interval_s == before_.stats_interval_s &&
                    now.control_group == before_.control_group &&
                    now.control_read_group == before_.control_read_group &&
                    now.state_dir == before_.state_dir && now.uids == before_.uids &&
                    now.cgroup == before_.cgroup && now.core_scheduling == before_.core_scheduling;
  if (same) return;
  log_.warn("",
            "reload: settings of the whole broker differ from those it runs with; they take "
            "effect when it is started again");
}

}  // namespace broker
