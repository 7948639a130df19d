// broker/doorway.h: where VMMs come in: a socket we listen on, one we connect to, or one we were
// handed. Asks each who it is and turns away whom the configuration does not name; says nothing
// about whether the device has time for it (device.h).
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "broker/budget.h"
#include "broker/config.h"
#include "broker/connection.h"
#include "broker/device_log.h"
#include "broker/event_loop.h"
#include "broker/keep.h"
#include "broker/services.h"
#include "broker/socket.h"

namespace broker {

class Doorway {
 public:
  using Arrived = std::function<void(Visitor)>;

  // From here on VMMs can connect (they wait until open()). `config` outlives the doorway.
  // `kept`: the socket that an earlier broker listened on.
  [[nodiscard]] static Answer<std::unique_ptr<Doorway>> make(const DeviceConfig& config,
                                                             std::optional<Listener> kept = {});
  ~Doorway();
  Doorway(const Doorway&) = delete;
  Doorway& operator=(const Doorway&) = delete;

  // Lets them in: `arrived` is called for one VMM, and then for nobody until next(). `log` is the
  // device's. `serving`: as for next().
  [[nodiscard]] common::Result<void> open(Services& services, DeviceLog& log, Arrived arrived,
                                          bool serving = false);
  // `serving` true: the device has a VMM, so that only a listening socket can bring another.
  void next(bool serving);
  // For good; removes the socket file if it is ours.
  void close() noexcept;
  // What was handed to us was one connection, and it has been let in: there is no next one.
  [[nodiscard]] bool used_up() const noexcept {
    return kind_ == Kind::kConnected && !handed_.valid();
  }

  [[nodiscard]] std::string describe() const;
  // What is listened on; not valid otherwise.
  [[nodiscard]] const Listener& listener() const noexcept { return listener_; }
  // Kept for the next broker until close().
  void keep(Kept kept) { kept_ = std::move(kept); }

 private:
  enum class Kind : std::uint8_t { kListening, kConnected, kClient };

  explicit Doorway(const DeviceConfig& config) : config_(config) {}
  [[nodiscard]] common::Result<void> watch_listener();
  void accept_one();
  void pause_accepting();
  void connect_later();
  void connect_once();
  void let_in(common::Fd socket);
  void refuse(const std::string& line);

  const DeviceConfig& config_;
  Services* services_ = nullptr;  // From open() on.
  DeviceLog* log_ = nullptr;
  Arrived arrived_;
  Kind kind_ = Kind::kListening;
  Listener listener_;
  common::Fd handed_;
  Kept kept_;
  bool connect_failure_told_ = false;
  std::chrono::milliseconds connect_delay_{0};
  std::chrono::steady_clock::time_point connected_at_;
  Budget refusals_{1, 20};
  EventLoop::Registration watch_;
  EventLoop::Registration timer_;
};

// "pid 123 (qemu-system-x86) uid 107", with the security label where there is one.
[[nodiscard]] std::string describe_peer(const Peer& peer);

}  // namespace broker
