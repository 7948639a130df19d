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
  kRemove,   // No longer listed.
  kMakeWay,  // Comes back with kTakePlace, when others that want what it has made way, too.
  kChange,   // Something that needs no new device, or that it is listed now.
  kReplace,
  kTakePlace,
  kAdd,
};
[[nodiscard]] std::string_view change_name(ChangeKind kind) noexcept;

struct Change {
  ChangeKind kind = ChangeKind::kAdd;
  std::string name;
  bool in_use = false;    // Its VMM would be cut off: only by force.
  DeviceConfig wanted{};  // Not of kRemove and kMakeWay.
  DeviceConfig before{};  // Of kTakePlace: to go back to.
  // Of kMakeWay and kTakePlace: it and those that it swaps sockets, disks or taps with, to be
  // named. in_use is that of all of them.
  std::string together{};
};

// In an order in which they can be done: what goes makes room first. Devices that an operator has
// added are left alone unless they are listed.
[[nodiscard]] std::vector<Change> changes_to(const std::vector<DeviceConfig>& wanted,
                                             const RunningDevices& running);

// Why a change has to wait for its VMM, or for another one's; empty where it has not.
[[nodiscard]] std::string swap_objection(const Change& change);

}  // namespace broker
