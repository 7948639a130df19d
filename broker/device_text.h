// broker/device_text.h: a device's settings as a person would have written them: for the state
// directory, and for showing what a broker serves.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "broker/config.h"
#include "broker/settings.h"

namespace broker {

struct SettingText {
  const Setting* setting = nullptr;
  std::string value;  // As on the command line.
};

// Those that differ from their default, in the order of all_settings().
[[nodiscard]] std::vector<SettingText> settings_of(const DeviceConfig& device);

// A [[device]] table that config_file.h reads as this device.
[[nodiscard]] std::string device_toml(const DeviceConfig& device);

}  // namespace broker
