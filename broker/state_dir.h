// broker/state_dir.h: devices that were added while the broker runs, kept for its next start: one
// file each, NAME.toml, which is what config_file.h reads.
#pragma once

#include <string>
#include <vector>

#include "broker/config.h"

namespace broker {

// Written beside it, flushed and renamed: after a crash there is the whole file or none.
[[nodiscard]] Answer<void> replace_file(const std::string& path, const std::string& text);
// It need not be there.
[[nodiscard]] Answer<void> remove_file(const std::string& path);

class StateDir {
 public:
  // `path` empty: nothing is kept.
  explicit StateDir(std::string path) : path_(std::move(path)) {}

  [[nodiscard]] const std::string& path() const noexcept { return path_; }

  // Whether it will be there after a start. Not without a directory, and not what was handed to us
  // as descriptors.
  [[nodiscard]] bool keeps(const DeviceConfig& device) const;
  [[nodiscard]] Answer<void> keep(const DeviceConfig& device) const;
  // It need not be there.
  [[nodiscard]] Answer<void> forget(const std::string& name) const;

  // All that is kept. A file that is wrong is a complaint, and keeps nobody from being served.
  struct Kept {
    std::vector<DeviceConfig> devices;
    std::vector<std::string> complaints;
  };
  [[nodiscard]] Kept read() const;

 private:
  [[nodiscard]] std::string file_of(const std::string& name) const;

  std::string path_;
};

}  // namespace broker
