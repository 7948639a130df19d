// broker/control/apply.cpp: `bulkhead apply`: the file is read here, with the rights of whoever
// runs this, and the broker is asked for one change after the other.
#include <cstdio>
#include <optional>
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

Answer<void> apply(Client& client, const Change& change, bool force) {
  if (change.kind != ChangeKind::kRemove) {
    const bool replace = change.kind != ChangeKind::kAdd;
    return add_device(client, change.wanted, {replace, force, true});
  }
  Order order;
  order.act = static_cast<std::uint32_t>(Act::kRemove);
  order.force = force ? 1 : 0;
  order.name = name_room(change.name);
  TRY(client.order(order));
  return {};
}

// Groups come before the devices that are in them. One that is not listed any more is left to its
// devices; the broker forgets it when it reads the file itself.
Answer<void> apply_groups(Client& client, const std::vector<GroupConfig>& groups, bool dry_run,
                          Json& json, std::string& text) {
  json.array("groups");
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
  json.end();
  return {};
}

std::string planned(const Change& change) {
  return change.name + ": " + std::string(change_name(change.kind)) +
         (change.in_use ? " (a VMM uses it: only with --force)" : "");
}

}  // namespace

int run_apply(const RunOperator& run) {
  FileAnswer file = read_config_file(run.config);
  if (!file) {
    for (const std::string& line : file.error()) (void)complain(line);
    return 1;
  }
  for (DeviceConfig& device : file->devices) device = with_absolute_paths(std::move(device));
  auto client = Client::connect(run.socket);
  if (!client) return complain(client.error());
  const auto running = running_at(*client);
  if (!running) return complain(running.error());
  int exit_code = 0;
  Json json("apply");
  json.flag("dry_run", run.dry_run);
  std::string text;
  if (const auto done = apply_groups(*client, file->groups, run.dry_run, json, text); !done) {
    return complain(done.error());
  }
  json.array("changes");
  for (const Change& change : changes_to(file->devices, *running)) {
    json.object().text("name", change.name).text("change", change_name(change.kind));
    json.flag("in_use", change.in_use);
    if (run.dry_run) {
      text += planned(change) + "\n";
    } else {
      const auto done = apply(*client, change, run.force);
      json.flag("done", done.has_value());
      if (!done) {
        json.text("error", done.error());
        exit_code = complain(change.name + ": " + std::string(change_name(change.kind)) +
                             ": not done: " + done.error());
      } else {
        text += change.name + ": " + std::string(change_name(change.kind)) + ": done\n";
      }
    }
    json.end();
  }
  if (text.empty() && exit_code == 0) text = "nothing differs from what is served\n";
  const int printed = print(run.json ? json.finish() : text);
  return exit_code == 0 ? printed : exit_code;
}

}  // namespace broker::control
