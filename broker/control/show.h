// broker/control/show.h: what a broker has answered, for people and as JSON. The keys of the JSON
// are documented in packaging/docs/pages/bulkhead-status.scd; within one schema they may be added
// to, and neither change their meaning nor go away.
#pragma once

#include <string>
#include <vector>

#include "broker/control/json.h"
#include "broker/control/messages.h"
#include "common/device_kind.h"

namespace broker::control {

[[nodiscard]] std::string status_text(const StatusReply& status, const LatencySummary& latency);
[[nodiscard]] std::string status_json(const StatusReply& status, const LatencySummary& latency);

[[nodiscard]] std::string list_text(const std::vector<DeviceReply>& devices);
[[nodiscard]] std::string list_json(const std::vector<DeviceReply>& devices);

// "serving", "blk".
[[nodiscard]] std::string state_of(const DeviceReply& device);
[[nodiscard]] std::string type_of(const DeviceReply& device);

[[nodiscard]] common::DeviceKind kind_of(std::uint32_t type);
// "limits": { "iops": { "per_second": …, "burst": … } }
void put_limits(Json& json, const RateRecord& limits, std::uint32_t type);

// Columns as wide as what is in them; the first line is the head.
[[nodiscard]] std::string table_text(const std::vector<std::vector<std::string>>& rows);

}  // namespace broker::control
