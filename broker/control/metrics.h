// broker/control/metrics.h: counters for Prometheus, and as rates for a terminal.
#pragma once

#include <string>
#include <vector>

#include "broker/control/messages.h"
#include "broker/latency_totals.h"

namespace broker::control {

// The text exposition format 0.0.4: names with their unit and _total, one family after the other.
[[nodiscard]] std::string metrics_text(const StatusReply& status,
                                       const std::vector<DeviceReply>& devices,
                                       const std::vector<QueueReply>& queues);
[[nodiscard]] std::string metrics_json(const StatusReply& status,
                                       const std::vector<DeviceReply>& devices,
                                       const std::vector<QueueReply>& queues);

// What one device has done between two looks, `seconds` apart.
struct Rates {
  std::string name;
  std::uint64_t in_flight = 0;
  std::uint32_t workers = 0;
  bool connected = false;
  double reads = 0;  // Requests, or received packets, a second.
  double writes = 0;
  double read_bytes = 0;
  double written_bytes = 0;
  LatencySummary latency{};  // Of what was answered between them.
  double errors = 0;         // Of a network card: packets dropped.
  double throttled = 0;      // Requests or packets that a limit has made wait.
};
// Busiest first. A device that is new counts from now on.
[[nodiscard]] std::vector<Rates> rates_between(const std::vector<DeviceReply>& before,
                                               const std::vector<DeviceReply>& now, double seconds);
[[nodiscard]] std::string rates_text(const std::vector<Rates>& rates);
[[nodiscard]] std::string rates_json(const std::vector<Rates>& rates);

}  // namespace broker::control
