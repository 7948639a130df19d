#include "broker/control/show.h"

#include <algorithm>
#include <array>
#include <cstdio>

#include "broker/blk_config.h"
#include "broker/control/client.h"
#include "broker/control/latency_metrics.h"
#include "broker/control/rate_record.h"
#include "broker/control/wire.h"
#include "broker/fleet.h"
#include "broker/host.h"
#include "broker/posture_probe.h"
#include "broker/settings.h"
#include "broker/text.h"

namespace broker::control {
namespace {

constexpr std::uint32_t kStates = 4;

std::string uptime_text(std::uint64_t milliseconds) {
  const std::uint64_t seconds = milliseconds / 1000;
  std::array<char, 64> text{};
  std::snprintf(text.data(), text.size(), "%llud %02llu:%02llu:%02llu",
                static_cast<unsigned long long>(seconds / 86400),
                static_cast<unsigned long long>(seconds / 3600 % 24),
                static_cast<unsigned long long>(seconds / 60 % 60),
                static_cast<unsigned long long>(seconds % 60));
  return text.data();
}

std::string vmm_of(const DeviceReply& device) {
  if (device.connected == 0) return "-";
  return "pid " + std::to_string(device.peer_pid) + " uid " + std::to_string(device.peer_uid);
}

std::string engine_of(const DeviceReply& device) {
  return engine_name(static_cast<common::EngineKind>(device.engine));
}

// What becomes of it all when the broker goes, and what came of one that went.
std::string adopted_text(const StatusReply& status) {
  if (status.keeper == 0) return "none; sessions and workers end with this broker";
  return std::to_string(status.adopted) + " processes of an earlier broker; keeper pid " +
         std::to_string(status.keeper);
}

std::string limits_of(const DeviceReply& device) {
  const std::string group = shown(device.limit_group);
  std::string text = limits_text(shown_limits(device.limits), kind_of(device.type));
  if (!group.empty()) text += (text.empty() ? "" : ",") + ("group=" + clean_text(group));
  return text.empty() ? "-" : text;
}

// Of a device that nobody has served yet, nothing is known.
bool was_never_served(const DeviceReply& device) {
  return device.layers == decltype(device.layers){};
}

// "16/18": how many layers of the jail hold.
std::string layers_text(const DeviceReply& device) {
  if (was_never_served(device)) return "-";
  const auto layers = layers_of(device.layers);
  const auto held = std::count_if(layers.begin(), layers.end(), [](common::LayerResult layer) {
    return layer.state == common::LayerResult::State::kEnforced;
  });
  return std::to_string(held) + "/" + std::to_string(layers.size());
}

}  // namespace

common::DeviceKind kind_of(std::uint32_t type) {
  return type == static_cast<std::uint32_t>(common::DeviceKind::kNet) ? common::DeviceKind::kNet
                                                                      : common::DeviceKind::kBlk;
}

void put_limits(Json& json, const RateRecord& record, std::uint32_t type) {
  json.object("limits");
  const DeviceLimits limits = shown_limits(record);
  for (std::size_t i = 0; i < limits.rates.size(); ++i) {
    const RateLimit& limit = limits.rates[i];
    if (limit.per_second == 0) continue;
    json.object(rate_name(static_cast<common::Rate>(i), kind_of(type)));
    json.number("per_second", limit.per_second).number("burst", burst_of(limit)).end();
  }
  json.end();
}

std::string state_of(const DeviceReply& device) {
  return device.state < kStates ? std::string(state_name(static_cast<DeviceState>(device.state)))
                                : "?";
}

std::string type_of(const DeviceReply& device) {
  return std::string(kind_name(static_cast<common::DeviceKind>(device.type)));
}

std::string table_text(const std::vector<std::vector<std::string>>& rows) {
  std::vector<std::size_t> widths;
  for (const auto& row : rows) {
    widths.resize(std::max(widths.size(), row.size()));
    for (std::size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], row[i].size());
  }
  std::string text;
  for (const auto& row : rows) {
    for (std::size_t i = 0; i < row.size(); ++i) {
      text += row[i];
      if (i + 1 < row.size()) text.append(widths[i] - row[i].size() + 2, ' ');
    }
    text += '\n';
  }
  return text;
}

std::string status_text(const StatusReply& status, const LatencySummary& latency) {
  const auto took = [&](std::uint64_t nanoseconds) { return duration_text(latency, nanoseconds); };
  return table_text({
      {"version", clean_text(shown(status.program_version))},
      {"process", "pid " + std::to_string(status.pid) + " uid " + std::to_string(status.uid)},
      {"up", uptime_text(status.uptime_ms)},
      {"devices",
       std::to_string(status.devices) + ", " + std::to_string(status.connected) + " in use"},
      {"workers", std::to_string(status.workers)},
      {"adopted", adopted_text(status)},
      {"requests took", "p50 " + took(latency.p50_ns) + ", p99 " + took(latency.p99_ns) +
                            ", p99.9 " + took(latency.p999_ns) + ", most " + took(latency.max_ns)},
      {"posture", status.strict != 0 ? "strict is required" : "any is allowed"},
      {"kept in", shown(status.state_dir).empty() ? "nothing is kept for the next start"
                                                  : clean_text(shown(status.state_dir))},
      {"you may", status.may_change != 0 ? "look and change" : "look"},
  });
}

std::string status_json(const StatusReply& status, const LatencySummary& latency) {
  Json json("status");
  json.text("version", shown(status.program_version));
  json.number("pid", status.pid).number("uid", status.uid);
  json.number("started_unix_seconds", status.started_unix_s);
  json.number("uptime_milliseconds", status.uptime_ms);
  json.number("devices", status.devices).number("devices_in_use", status.connected);
  json.number("workers", status.workers).number("clients", status.clients);
  json.number("adopted", status.adopted).number("keeper_pid", status.keeper);
  json.number("descriptors_max", status.descriptors_max);
  json.text("require_posture", status.strict != 0 ? "strict" : "any");
  json.text("state_dir", shown(status.state_dir));
  json.flag("may_change", status.may_change != 0).object("latency");
  latency_json(latency, json);
  return json.finish();
}

std::string list_text(const std::vector<DeviceReply>& devices) {
  std::vector<std::vector<std::string>> rows = {
      {"NAME", "TYPE", "STATE", "VMM", "WORKERS", "ENGINE", "LAYERS", "SIZE", "LIMITS", "BACKING"}};
  for (const DeviceReply& device : devices) {
    rows.push_back({shown(device.name), type_of(device), state_of(device), vmm_of(device),
                    std::to_string(device.workers),
                    was_never_served(device) ? "-" : engine_of(device), layers_text(device),
                    device.capacity_bytes == 0 ? "-" : size_text(device.capacity_bytes),
                    limits_of(device), clean_text(shown(device.backing))});
  }
  return table_text(rows);
}

std::string list_json(const std::vector<DeviceReply>& devices) {
  Json json("list");
  json.array("devices");
  for (const DeviceReply& device : devices) {
    json.object();
    json.text("name", shown(device.name)).text("type", type_of(device));
    json.text("state", state_of(device));
    json.text("origin", device.origin == 0 ? "configuration" : "operator");
    json.text("engine", engine_of(device)).number("uid", device.uid);
    json.flag("read_only", device.read_only != 0).flag("in_use", device.connected != 0);
    if (device.connected != 0) {
      json.number("vmm_pid", device.peer_pid).number("vmm_uid", device.peer_uid);
    }
    json.number("queues_max", device.queues_max).number("workers", device.workers);
    json.number("in_flight", device.in_flight).number("capacity_bytes", device.capacity_bytes);
    json.text("socket_path", shown(device.socket_path)).text("backing", shown(device.backing));
    json.text("tenant", shown(device.tenant)).text("vm_name", shown(device.vm_name));
    json.text("vm_uuid", shown(device.vm_uuid));
    if (!shown(device.limit_group).empty()) json.text("limit_group", shown(device.limit_group));
    put_limits(json, device.limits, device.type);
    json.text("posture", posture_summary(layers_of(device.layers)));
    json.end();
  }
  return json.finish();
}

}  // namespace broker::control
