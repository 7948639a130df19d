#include "broker/device_text.h"

#include <array>
#include <cstdio>

#include "broker/limit_text.h"
#include "broker/setting_values.h"

namespace broker {
namespace {

using Getter = std::string (*)(const DeviceConfig& device);

template <auto Member>
std::string text(const DeviceConfig& device) {
  return device.*Member;
}

template <auto Member>
std::string on_off(const DeviceConfig& device) {
  return device.*Member ? "on" : "off";
}

template <auto Member>
std::string number(const DeviceConfig& device) {
  return std::to_string(device.*Member);
}

template <auto Member>
std::string optional_number(const DeviceConfig& device) {
  return device.*Member ? std::to_string(*(device.*Member)) : "";
}

template <auto Member>
std::string numbers(const DeviceConfig& device) {
  std::string list;
  for (const auto each : device.*Member) list += (list.empty() ? "" : ",") + std::to_string(each);
  return list;
}

std::string mode(const DeviceConfig& device) {
  std::array<char, 16> digits{};
  std::snprintf(digits.data(), digits.size(), "%04o", device.socket_mode);
  return digits.data();
}

std::string engine(const DeviceConfig& device) {
  switch (device.engine) {
    case EngineChoice::kAuto:
      return "auto";
    case EngineChoice::kIoUring:
      return "io_uring";
    case EngineChoice::kFallback:
      return "fallback";
  }
  return "auto";
}

std::string on_violation(const DeviceConfig& device) {
  return device.restart_after_violation ? "restart" : "stop";
}

std::string mac(const DeviceConfig& device) { return device.mac ? mac_text(*device.mac) : ""; }

std::string memory_max(const DeviceConfig& device) {
  return device.memory_max_mib == 0 ? "0" : std::to_string(device.memory_max_mib) + "M";
}
std::string limit(const DeviceConfig& device) { return limits_text(device.limits, device.kind); }

struct Row {
  std::string_view setting;
  Getter get;
};
using D = DeviceConfig;
constexpr Row kRows[] = {
    {"socket-path", text<&D::socket_path>},
    {"fd", number<&D::fd>},
    {"client", on_off<&D::client>},
    {"socket-mode", mode},
    {"socket-owner", text<&D::socket_owner>},
    {"socket-group", text<&D::socket_group>},
    {"allow-uid", numbers<&D::allow_uids>},
    {"blk-file", text<&D::blk_file>},
    {"read-only", on_off<&D::read_only>},
    {"direct", on_off<&D::direct>},
    {"discard", on_off<&D::discard>},
    {"write-zeroes", on_off<&D::write_zeroes>},
    {"lock", on_off<&D::lock>},
    {"block-size", number<&D::block_size>},
    {"serial", text<&D::serial>},
    {"tap-name", text<&D::tap_name>},
    {"tap-create", on_off<&D::tap_create>},
    {"tap-fd", numbers<&D::tap_fds>},
    {"macvtap", text<&D::macvtap>},
    {"mac", mac},
    {"mtu", optional_number<&D::mtu>},
    {"offload-csum", on_off<&D::offload_csum>},
    {"offload-tso", on_off<&D::offload_tso>},
    {"offload-uso", on_off<&D::offload_uso>},
    {"mrg-rxbuf", on_off<&D::mrg_rxbuf>},
    {"num-queues", optional_number<&D::num_queues>},
    {"queue-size", optional_number<&D::queue_size>},
    {"packed-rings", on_off<&D::packed_rings>},
    {"engine", engine},
    {"poll-us", number<&D::poll_us>},
    {"name", text<&D::name>},
    {"on-worker-violation", on_violation},
    {"tenant", text<&D::tenant>},
    {"vm-name", text<&D::vm_name>},
    {"vm-uuid", text<&D::vm_uuid>},
    {"limit", limit},
    {"limit-group", text<&D::limit_group>},
    {"uid", optional_number<&D::uid>},
    {"memory-max", memory_max},
    {"cpu-max", number<&D::cpu_max_percent>},
    {"pids-max", optional_number<&D::pids_max>},
};

// A basic string of TOML.
std::string toml_string(std::string_view value) {
  std::string quoted = "\"";
  for (const char character : value) {
    if (character == '"' || character == '\\') quoted += '\\';
    const auto byte = static_cast<unsigned char>(character);
    if (byte >= 0x20 && byte != 0x7f) {
      quoted += character;
      continue;
    }
    std::array<char, 8> escape{};
    std::snprintf(escape.data(), escape.size(), "\\u%04x", byte);
    quoted += escape.data();
  }
  return quoted + "\"";
}

std::string toml_value(const SettingText& one) {
  switch (one.setting->kind) {
    case ValueKind::kText:
    case ValueKind::kMode:
    case ValueKind::kLimits:
      return toml_string(one.value);
    case ValueKind::kNumber:
      return one.value;
    case ValueKind::kSwitch:
    case ValueKind::kFlag:
      return one.value == "on" ? "true" : "false";
    case ValueKind::kNumbers:
      return "[" + one.value + "]";
  }
  return "";
}

}  // namespace

std::vector<SettingText> settings_of(const DeviceConfig& device) {
  static const DeviceConfig kDefaults;
  std::vector<SettingText> found;
  for (const Setting& setting : all_settings()) {
    if (setting.scope != Scope::kDevice || !setting.is_for(device.kind)) continue;
    for (const Row& row : kRows) {
      if (row.setting != setting.name) continue;
      std::string value = row.get(device);
      if (value != row.get(kDefaults)) found.push_back({&setting, std::move(value)});
    }
  }
  return found;
}

std::string device_toml(const DeviceConfig& device) {
  std::string table = "[[device]]\ntype = \"" + std::string(kind_name(device.kind)) + "\"\n";
  for (const SettingText& one : settings_of(device)) {
    table += spelled(one.setting->name, Spelling::kFile) + " = " + toml_value(one) + "\n";
  }
  return table;
}

}  // namespace broker
