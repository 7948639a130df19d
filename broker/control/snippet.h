// broker/control/snippet.h: the lines that attach a device to a VMM, for its command line or
// configuration. Each was checked against that VMM's own documentation.
#pragma once

#include <string>
#include <string_view>

#include "broker/config.h"

namespace broker::control {

inline constexpr std::string_view kVmms =
    "qemu|libvirt|cloud-hypervisor|firecracker|crosvm|kubevirt|kata";

// Fails where that VMM has no such devices, or cannot be told of this one.
[[nodiscard]] Answer<std::string> snippet_for(const DeviceConfig& device, std::string_view vmm);

}  // namespace broker::control
