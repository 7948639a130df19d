// broker/control/apply.cpp: `bulkhead apply`: the file is read here, with the rights of whoever
// runs this, and the broker is asked for one change after the other.
#include <cstdio>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "broker/config_diff.h"
#include "broker/config_file.h"
#include "broker/control/add_device.h"
#include "broker/control/client.h"
#include "broker/control/device_record.h"
#include "broker/control/json.h"
#include "broker/control/rate_record.h"
#include "broker/control/run.h"

namespace broker::control {
namespace {

Answer<RunningDevices> running_at(Client& client) {
  TRY_LET(const std::vector<DeviceReply> devices, client.devices());
  RunningDevices running;
  for (const DeviceReply& device : devices) {
    AskSettings ask;
    ask.name = device.name;
    TRY_LET(const std::optional<SettingsReply> reply, client.ask<SettingsReply>(ask));
    if (!reply) continue;  // Removed meanwhile.
    TRY_LET(DeviceConfig config, config_of(reply->device));
    // Only that there are some is compared.
    config.fd = reply->device.socket_fds == 0 ? -1 : 0;
    config.tap_fds.assign(reply->device.tap_fds, 0);
    running[shown(device.name)] = {std::move(config), static_cast<Origin>(device.origin),
                                   device.connected != 0};
  }
  return running;
}

Answer<void> give_order(Client& client, Act act, const std::string& name, bool force) {
  Order order;
  order.act = static_cast<std::uint32_t>(act);
  order.force = force ? 1 : 0;
  order.name = name_room(name);
  const bool ends = act == Act::kRemove;
  TRY(client.order(order, {}, ends ? end_takes(force) : Client::Duration{}));
  return {};
}

// Where it cannot be served anew it is as it was, unless another one has taken what it had.
Answer<void> take_place(Client& client, const Change& change) {
  const Answer<void> taken = add_device(client, change.wanted, {false, false, true});
  if (taken) return taken;
  const Answer<void> again = add_device(client, change.before, {false, false, true});
  return common::fail(taken.error() +
                      (again ? "; it is served as before"
                             : "; and it cannot be served as before any more: " + again.error()));
}

Answer<void> apply(Client& client, const Change& change, bool force) {
  if (std::string why = swap_objection(change); !why.empty() && !force) {
    return common::fail(std::move(why));
  }
  switch (change.kind) {
    case ChangeKind::kRemove:
    case ChangeKind::kMakeWay:
      return give_order(client, Act::kRemove, change.name, force);
    case ChangeKind::kTakePlace:
      return take_place(client, change);
    case ChangeKind::kChange:
    case ChangeKind::kReplace:
      return add_device(client, change.wanted, {true, force, true});
    case ChangeKind::kAdd:
      return add_device(client, change.wanted, {false, force, true});
  }
  return {};
}

// Groups come before the devices that are in them, and go after them.
Answer<void> apply_groups(Client& client, const std::vector<GroupConfig>& groups, bool dry_run,
                          Json& json, std::string& text) {
  for (const GroupConfig& group : groups) {
    AskGroup ask;
    ask.name = name_room(group.name);
    TRY_LET(const std::optional<GroupReply> now, client.ask<GroupReply>(ask));
    const bool same = now && now->tenant == name_room(group.tenant) &&
                      now->type == static_cast<std::uint32_t>(group.kind) &&
                      shown_limits(now->configured) == group.limits;
    if (same) continue;
    PutGroup put;
    put.type = static_cast<std::uint32_t>(group.kind);
    put.name = name_room(group.name);
    put.tenant = name_room(group.tenant);
    put.limits = rates_of(group.limits);
    if (!dry_run) TRY(client.order(put));
    json.object().text("name", group.name).text("change", now ? "change" : "add").end();
    text +=
        "group " + group.name + ": " + (now ? "change" : "add") + (dry_run ? "" : ": done") + "\n";
  }
  return {};
}

std::string planned(const Change& change) {
  return change.name + ": " + std::string(change_name(change.kind)) +
         (change.in_use ? " (a VMM uses it: only with --force)" : "");
}

// What is done, and said of it.
class Report {
 public:
  explicit Report(const RunOperator& run) : run_(run) { json_.flag("dry_run", run.dry_run); }

  [[nodiscard]] Answer<void> groups(Client& client, const std::vector<GroupConfig>& groups) {
    json_.array("groups");
    TRY(apply_groups(client, groups, run_.dry_run, json_, text_));
    json_.end();
    return {};
  }

  void changes(Client& client, const std::vector<Change>& changes) {
    json_.array("changes");
    for (const Change& change : changes) {
      json_.object().text("name", change.name).text("change", change_name(change.kind));
      json_.flag("in_use", change.in_use);
      if (run_.dry_run) {
        text_ += planned(change) + "\n";
      } else {
        note(change.name + ": " + std::string(change_name(change.kind)),
             apply(client, change, run_.force));
      }
      json_.end();
    }
    json_.end();
  }

  [[nodiscard]] Answer<void> drop_groups(Client& client, const std::vector<GroupConfig>& listed) {
    std::set<std::string> names;
    for (const GroupConfig& group : listed) names.insert(group.name);
    json_.array("dropped_groups");
    AskGroup ask;
    ask.next = 1;
    while (true) {
      TRY_LET(const std::optional<GroupReply> group, client.ask<GroupReply>(ask));
      if (!group) break;
      ask.name = group->name;
      drop_group(client, shown(group->name), names);
    }
    json_.end();
    return {};
  }

  [[nodiscard]] int finish() {
    if (text_.empty() && exit_code_ == 0) text_ = "nothing differs from what is served\n";
    const int printed = print(run_.json ? json_.finish() : text_);
    return exit_code_ == 0 ? printed : exit_code_;
  }

 private:
  void drop_group(Client& client, const std::string& name, const std::set<std::string>& listed) {
    if (listed.contains(name)) return;
    json_.object().text("name", name);
    const std::string what = "group " + name + ": remove";
    if (run_.dry_run) {
      text_ += what + "\n";
    } else {
      note(what, give_order(client, Act::kDropGroup, name, false));
    }
    json_.end();
  }

  void note(const std::string& what, const Answer<void>& done) {
    json_.flag("done", done.has_value());
    if (done) {
      text_ += what + ": done\n";
      return;
    }
    json_.text("error", done.error());
    exit_code_ = complain(what + ": not done: " + done.error());
  }

  const RunOperator& run_;
  Json json_{"apply"};
  std::string text_;
  int exit_code_ = 0;
};

Answer<int> apply_file(const RunOperator& run, const BrokerConfig& file) {
  TRY_LET(Client client, Client::connect(run.socket, run.patience()));
  TRY_LET(const RunningDevices running, running_at(client));
  Report report(run);
  TRY(report.groups(client, file.groups));
  report.changes(client, changes_to(file.devices, running));
  TRY(report.drop_groups(client, file.groups));
  return report.finish();
}

}  // namespace

int run_apply(const RunOperator& run) {
  FileAnswer file = read_config_file(run.config);
  if (!file) {
    for (const std::string& line : file.error()) (void)complain(line);
    return 1;
  }
  for (DeviceConfig& device : file->devices) device = with_absolute_paths(std::move(device));
  const auto applied = apply_file(run, *file);
  return applied ? *applied : complain(applied.error());
}

}  // namespace broker::control
