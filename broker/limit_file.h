// broker/limit_file.h: the limits that operators have set on devices and groups of the
// configuration, kept for the broker's next start in the state directory. Devices that operators
// have added have theirs in their own files (state_dir.h).
#pragma once

#include <string>
#include <vector>

#include "broker/config.h"
#include "broker/limits.h"

namespace broker {

struct LimitEntry {
  bool group = false;
  std::string name;
  common::DeviceKind kind = common::DeviceKind::kBlk;
  DeviceLimits configured;  // What the configuration said then.
  DeviceLimits limits;
};

class LimitFile {
 public:
  // `directory` empty: nothing is kept.
  explicit LimitFile(const std::string& directory)
      : path_(directory.empty() ? "" : directory + "/limits") {}

  // All of them. Written beside it, flushed and renamed.
  [[nodiscard]] Answer<void> keep(const std::vector<LimitEntry>& entries) const;

  struct Kept {
    std::vector<LimitEntry> entries;
    std::string complaint;  // Empty where there is none.
  };
  [[nodiscard]] Kept read() const;

 private:
  std::string path_;
};

// One line, and back.
[[nodiscard]] std::string limit_line(const LimitEntry& entry);
[[nodiscard]] Answer<LimitEntry> parse_limit_line(std::string_view line);

// Puts them into a configuration, for those that it still says the same of.
[[nodiscard]] std::vector<LimitEntry> still_valid(std::vector<LimitEntry> entries,
                                                  const BrokerConfig& config);

}  // namespace broker
