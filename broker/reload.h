// broker/reload.h: SIGHUP: the configuration is read again, and what has changed is done to the
// devices that are served, one after the other. Nothing is cut off: a device that a VMM uses stays
// as it is, and the log says so.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "broker/config.h"
#include "broker/config_diff.h"
#include "broker/event_loop.h"
#include "broker/fleet.h"
#include "broker/log.h"

namespace broker {

class Reload {
 public:
  // `before`: the configuration that the broker was started with. All of these outlive it.
  Reload(EventLoop& loop, Fleet& fleet, Log& log, const BrokerConfig& before)
      : loop_(loop), fleet_(fleet), log_(log), before_(before) {}

  // Another one that is asked for meanwhile follows this one.
  void start();

 private:
  void next();
  void step_done(const Answer<void>& result);
  [[nodiscard]] Answer<void> take_place(const Change& change);
  void warn_of_broker_settings(const BrokerConfig& now);

  EventLoop& loop_;
  Fleet& fleet_;
  Log& log_;
  const BrokerConfig& before_;
  std::vector<Change> changes_;
  std::size_t at_ = 0;
  std::size_t failed_ = 0;
  bool running_ = false;
  bool again_ = false;
};

// What a fleet serves, to be compared.
[[nodiscard]] RunningDevices running_in(const Fleet& fleet);

}  // namespace broker
