// broker/inspect.h: looks at what a device's settings name without changing or locking anything:
// for `bulkhead check`.
#pragma once

#include <string>
#include <vector>

#include "broker/config.h"
#include "broker/device_maker.h"

namespace broker {

struct Inspected {
  std::vector<std::string> problems;  // Why it would be refused.
  std::string engine_unknown;         // Why nobody can say yet that a ring will do; mostly empty.
  DevicePlan plan;  // Of a device without problems: its model, which nobody serves.
};

// `served_already`: by a broker that would go on with it, so that its locks are no problem.
[[nodiscard]] Inspected inspect_device(const DeviceConfig& config, bool served_already);

}  // namespace broker
