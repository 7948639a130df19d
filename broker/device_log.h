// broker/device_log.h: the lines about one device that its peers can cause: a guest that resets for
// ever, a VMM that connects for ever. Limited, so that they cannot fill the disk or hide what
// matters. Its events for the audit trail go the same way, and are limited there.
#pragma once

#include <string>
#include <string_view>
#include <utility>

#include "broker/audit/device_trail.h"
#include "broker/budget.h"
#include "broker/log.h"

namespace broker {

class DeviceLog {
 public:
  DeviceLog(Log& log, std::string device, audit::DeviceTrail trail = {})
      : log_(log), device_(std::move(device)), trail_(std::move(trail)) {}

  void write(Level level, std::string_view text) {
    const bool urgent = level == Level::kWarn || level == Level::kError;
    if (!(urgent ? urgent_budget_ : budget_).take()) return;
    const auto dropped = budget_.take_dropped() + urgent_budget_.take_dropped();
    if (dropped != 0) {
      log_.warn(device_, std::to_string(dropped) + " lines were left out: too many a second");
    }
    log_.write(level, device_, text);
  }
  void info(std::string_view text) { write(Level::kInfo, text); }
  void warn(std::string_view text) { write(Level::kWarn, text); }
  void error(std::string_view text) { write(Level::kError, text); }

  [[nodiscard]] audit::DeviceTrail& trail() noexcept { return trail_; }
  void record(audit::Event event) { trail_.record(std::move(event)); }

 private:
  // A device of 64 queues starts and stops with 128 lines.
  static constexpr double kPerSecond = 5;
  static constexpr double kBurst = 512;

  Log& log_;
  std::string device_;
  audit::DeviceTrail trail_;
  Budget budget_{kPerSecond, kBurst};
  // A guest that resets for ever must not hide what became of a worker.
  Budget urgent_budget_{kPerSecond, kBurst};
};

}  // namespace broker
