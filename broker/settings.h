// broker/settings.h: every setting of a device and of the broker: its name, its limits, its help.
// The command line (options.cpp) and the configuration file (config_file.cpp) are two ways to write
// the same table, so neither can know a setting, or a limit, that the other does not.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "broker/config.h"

namespace broker {

// Limits. The rest are common::kBlkQueuesMax and common::kQueueSizeMax.
inline constexpr std::size_t kSocketPathBytesMax = 107;  // sockaddr_un without its zero.
inline constexpr std::size_t kFilePathBytesMax = 4095;
inline constexpr std::size_t kNameBytesMax = 64;
inline constexpr std::size_t kVmNameBytesMax = 255;
inline constexpr std::size_t kAllowUidsMax = 64;
inline constexpr std::uint32_t kQueueSizeMin = 2;
inline constexpr std::uint32_t kMemoryMaxMib = 1U << 24;  // 16 TiB
inline constexpr std::uint32_t kCpuMaxPercent = 100'000;
inline constexpr std::uint32_t kPidsMax = 1U << 20;
inline constexpr std::uint32_t kPollMicrosecondsMax = 1'000'000;
inline constexpr std::uint32_t kStatsIntervalSecondsMax = 86'400;
inline constexpr std::size_t kDevicesMax = 16'384;

enum class ValueKind : std::uint8_t {
  kText,
  kNumber,
  kSwitch,   // on or off.
  kFlag,     // The same, and on where no value is given.
  kMode,     // Octal.
  kNumbers,  // With commas.
  kLimits,   // "iops=1000,bps=50M"; in a file also a table.
};

// Whose setting it is: of every device, or of the whole broker.
enum class Scope : std::uint8_t { kDevice, kBroker };

// Which device types have a setting: a mask.
using DeviceKinds = std::uint8_t;
inline constexpr DeviceKinds kForBlk = 1;
inline constexpr DeviceKinds kForNet = 2;
inline constexpr DeviceKinds kForAll = kForBlk | kForNet;
[[nodiscard]] constexpr DeviceKinds kinds_of(common::DeviceKind type) noexcept {
  return type == common::DeviceKind::kBlk ? kForBlk : kForNet;
}
// "blk": the command, and the type in a file.
[[nodiscard]] std::string_view kind_name(common::DeviceKind kind);

// Where a value goes.
struct Destination {
  BrokerConfig& broker;
  DeviceConfig& device;
};

struct Setting {
  std::string_view name;  // As on the command line: "socket-path".
  Scope scope = Scope::kDevice;
  ValueKind kind = ValueKind::kText;
  std::string_view value;  // What the value is called in the help: "PATH".
  std::string_view help;
  // Checks and stores. An error continues "--socket-path …": "must be …, not 'x'".
  Answer<void> (*set)(const Destination& to, std::string_view value) = nullptr;
  DeviceKinds kinds = kForAll;
  std::string_view aliases = {};  // Separated by commas.

  [[nodiscard]] bool is_for(common::DeviceKind type) const noexcept {
    return (kinds & kinds_of(type)) != 0;
  }
};

[[nodiscard]] std::span<const Setting> all_settings();

// What a device, tenant or group can be called.
[[nodiscard]] Answer<std::string> parse_name(std::string_view value);

// "queue-size" and "queue_size", or an alias. Null where there is none.
[[nodiscard]] const Setting* find_setting(std::string_view name);

// The name that the user probably meant, or empty.
[[nodiscard]] std::string_view suggest_setting(std::string_view name);

// How messages call a setting: "--queue-size" or "queue_size".
enum class Spelling : std::uint8_t { kCommandLine, kFile };
[[nodiscard]] std::string spelled(std::string_view name, Spelling spelling);

// After all settings of a device: what must go together, and its name where it has none. Each error
// is one sentence.
[[nodiscard]] std::vector<std::string> complete_device(DeviceConfig& device, Spelling spelling);

// What a device of one broker has for itself: no other device may claim the same value of the same
// setting, unless both claims are `shared` (readers of one image do not disturb each other).
struct Claim {
  std::string_view setting;
  std::string value;
  bool shared = false;
};
[[nodiscard]] std::vector<Claim> claims_of(const DeviceConfig& device);

}  // namespace broker
