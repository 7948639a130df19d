// broker/config_diff.h: what has to be done so that a running broker serves what its configuration
// says now, and nothing that need not.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "broker/config.h"
#include "broker/fleet.h"

namespace broker {

struct RunningDevice {
  DeviceConfig config;
  Origin origin = Origin::kFile;
  bool in_use = false;
};
using RunningDevices = std::map<std::string, RunningDevice>;

enum class ChangeKind : std::uint8_t {
  kRemove,  // No longer listed.
  kChange,  // Something that needs no new device, or that it is listed now.
  kReplace,
  kAdd,
};
[[nodiscard]] std::string_view change_name(ChangeKind kind) noexcept;

struct Change {
  ChangeKind kind = ChangeKind::kAdd;
  std::string name;
  bool in_use = false;  // Its VMM would be cut off: only by force.
  DeviceConfig wanted;  // Not of kRemove.
};

// In an order in which they can be done: what goes makes room first. Devices that an operator has
// added are left alone unless they are listed.
[[nodiscard]] std::vector<Change> changes_to(const std::vector<DeviceConfig>& wanted,
                                             const RunningDevices& running);

}  // namespace broker
