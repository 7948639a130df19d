// broker/control/add_device.h: asks a broker to serve a device, with the descriptors that its
// settings number in this process.
#pragma once

#include "broker/config.h"
#include "broker/connection.h"
#include "broker/control/client.h"
#include "broker/fleet.h"

namespace broker::control {

// How long a device may take to end, which is when the broker answers.
[[nodiscard]] constexpr Client::Duration end_takes(bool force) noexcept {
  return force ? kForced : kDrainPatience;
}

struct AddFlags {
  bool replace = false;
  bool force = false;
  bool from_file = false;
};

// Paths that are not absolute start from this process's working directory.
[[nodiscard]] Answer<void> add_device(Client& client, DeviceConfig device, AddFlags flags);

// What a client sends of a device, its paths made absolute.
[[nodiscard]] DeviceConfig with_absolute_paths(DeviceConfig device);

}  // namespace broker::control
