// tests/integration/loop_device.h: a block device whose medium the test holds in its hands.
#pragma once

#include <string>

#include "common/fd.h"

namespace integration {

class LoopDevice {
 public:
  // Not valid() where the host has no loop devices or does not let us make one.
  explicit LoopDevice(const std::string& image);
  LoopDevice(const LoopDevice&) = delete;
  LoopDevice& operator=(const LoopDevice&) = delete;
  ~LoopDevice();

  [[nodiscard]] bool valid() const noexcept { return device_.valid(); }
  [[nodiscard]] const std::string& path() const noexcept { return path_; }

 private:
  common::Fd device_;
  std::string path_;
};

}  // namespace integration
