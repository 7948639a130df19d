// tests/fuzz/configuration_fuzz.cpp: any text as a configuration file: it is a configuration, which
// differs in nothing from itself and holds only what its keys allow, or a list of mistakes, each
// with the place where it is and in one line.
//
// Input: the text.
#include <cstddef>
#include <cstdint>
#include <set>
#include <string>
#include <string_view>

#include "broker/config_diff.h"
#include "broker/config_file.h"
#include "broker/control/add_device.h"
#include "broker/control/device_record.h"
#include "tests/fuzz/fuzz_input.h"

namespace {

using fuzz::require;

void check(const broker::BrokerConfig& config) {
  std::set<std::string> names;
  broker::RunningDevices running;
  for (const broker::DeviceConfig& device : config.devices) {
    require(!device.name.empty() && names.insert(device.name).second);
    running[device.name] = {device, broker::Origin::kFile, false};
    // An operator's client sends it to the broker like this, with paths that begin with '/', where
    // they are not too long then. Descriptors travel beside it.
    if (device.fd >= 0 || !device.tap_fds.empty()) continue;
    if (broker::control::with_absolute_paths(device) != device) continue;
    const auto again = broker::control::config_of(broker::control::record_of(device));
    require(again.has_value() && *again == device);
  }
  require(broker::changes_to(config.devices, running).empty());
}

void check(const std::vector<std::string>& mistakes) {
  require(!mistakes.empty());
  for (const std::string& mistake : mistakes) {
    require(mistake.starts_with("fuzzed:") && mistake.find('\n') == std::string::npos);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string text(reinterpret_cast<const char*>(data), size);
  const auto config = broker::parse_config(text, "fuzzed");
  if (config) {
    check(*config);
  } else {
    check(config.error());
  }
  return 0;
}
