// broker/systemd.h: readiness and socket activation, without libsystemd: a datagram and two
// environment variables (sd_notify(3), sd_listen_fds(3)).
#pragma once

#include <chrono>
#include <optional>
#include <string>
#include <string_view>

#include "common/fd.h"

namespace broker {

// Tells the service manager how we are. Does nothing where there is none.
class ServiceManager {
 public:
  // Takes its variables out of the environment, so that no child speaks for us.
  [[nodiscard]] static ServiceManager from_environment();

  // `state` as in sd_notify(3): "READY=1", "STOPPING=1", "STATUS=…", lines joined by '\n'. Never
  // blocks and never fails: what nobody hears is lost.
  void notify(std::string_view state) const noexcept;

  // For those who cannot make a socket any more once there is something to tell: connected, and
  // invalid where there is no manager. tell() does nothing with that.
  [[nodiscard]] common::Fd connect() const noexcept;
  static void tell(common::FdRef connected, std::string_view state) noexcept;

  [[nodiscard]] bool present() const noexcept { return !address_.empty(); }

  // WatchdogSec=: how often "WATCHDOG=1" must come at least, or we are taken for hung and killed.
  [[nodiscard]] std::optional<std::chrono::microseconds> watchdog() const noexcept {
    return watchdog_;
  }

 private:
  std::string address_;  // A path, or "@name" in the abstract namespace.
  std::optional<std::chrono::microseconds> watchdog_;
};

// How many sockets the service manager has opened for us, numbered from kListenFdsStart. 0 where
// there are none or they are meant for another process. Takes its variables out of the environment.
inline constexpr int kListenFdsStart = 3;
[[nodiscard]] int take_listen_fds();

}  // namespace broker
