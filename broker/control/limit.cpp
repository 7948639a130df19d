// broker/control/limit.cpp: `bulkhead limit`: shows and changes the limits of devices and groups.
#include <cstdio>
#include <optional>
#include <string>
#include <vector>

#include "broker/control/client.h"
#include "broker/control/json.h"
#include "broker/control/rate_record.h"
#include "broker/control/run.h"
#include "broker/control/show.h"
#include "broker/limit_text.h"
#include "broker/text.h"

namespace broker::control {
namespace {

// A device or a group, as it is shown.
struct Limited {
  std::string what;
  std::string name;
  std::uint32_t type = 0;
  RateRecord limits;
  std::string group;  // A device's.
};

Limited limited(const DeviceReply& device) {
  return {"device", shown(device.name), device.type, device.limits, shown(device.limit_group)};
}

Limited limited(const GroupReply& group) {
  return {"group", shown(group.name), group.type, group.limits, ""};
}

Answer<Limited> find(Client& client, const std::string& name, bool group) {
  if (!group) {
    TRY_LET(const DeviceReply device, client.device(name));
    return limited(device);
  }
  AskGroup ask;
  ask.name = name_room(name);
  TRY_LET(const std::optional<GroupReply> reply, client.ask<GroupReply>(ask));
  if (reply) return limited(*reply);
  return common::fail("there is no group " + in_quotes(name) + " ('bulkhead limit' shows all)");
}

Answer<std::vector<Limited>> all(Client& client) {
  std::vector<Limited> found;
  AskGroup ask;
  ask.next = 1;
  while (true) {
    TRY_LET(const std::optional<GroupReply> reply, client.ask<GroupReply>(ask));
    if (!reply) break;
    found.push_back(limited(*reply));
    ask.name = reply->name;
  }
  TRY_LET(const std::vector<DeviceReply> devices, client.devices());
  for (const DeviceReply& device : devices) found.push_back(limited(device));
  return found;
}

int show(const RunOperator& run, const std::vector<Limited>& list) {
  Json json("limit");
  json.array("limits");
  std::vector<std::vector<std::string>> rows = {{"WHAT", "NAME", "GROUP", "LIMITS"}};
  for (const Limited& one : list) {
    const std::string text = limits_text(shown_limits(one.limits), kind_of(one.type));
    rows.push_back({one.what, one.name, one.group.empty() ? "-" : clean_text(one.group),
                    text.empty() ? "none" : text});
    json.object().text(one.what, one.name);
    if (!one.group.empty()) json.text("limit_group", one.group);
    put_limits(json, one.limits, one.type);
    json.end();
  }
  return print(run.json ? json.finish() : table_text(rows));
}

Answer<void> change(Client& client, const RunOperator& run, const Limited& before) {
  std::string text;
  for (const std::string& word : run.changes) text += (text.empty() ? "" : ",") + word;
  const auto parsed = parse_limit_change(text, kind_of(before.type));
  if (!parsed) return common::fail(parsed.error());
  ChangeLimits request;
  request.group = run.group ? 1 : 0;
  request.type = before.type;
  request.name = name_room(run.names.front());
  request.change = {parsed->per_second, parsed->burst};
  TRY(client.order(request));
  return {};
}

}  // namespace

int run_limit(const RunOperator& run) {
  auto client = Client::connect(run.socket, run.patience());
  if (!client) return complain(client.error());
  if (run.names.empty()) {
    const auto list = all(*client);
    return list ? show(run, *list) : complain(list.error());
  }
  const std::string& name = run.names.front();
  auto one = find(*client, name, run.group);
  if (!one) return complain(one.error());
  if (!run.changes.empty()) {
    if (const auto changed = change(*client, run, *one); !changed) {
      return complain(name + ": " + changed.error());
    }
    one = find(*client, name, run.group);
    if (!one) return complain(one.error());
  }
  return show(run, {*one});
}

}  // namespace broker::control
