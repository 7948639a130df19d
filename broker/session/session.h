// broker/session/session.h: one conversation with one front-end, from the first byte to the last.
#pragma once

#include "broker/session/broker_link.h"
#include "broker/session/vhost_connection.h"
#include "broker/session/workers.h"
#include "common/fd.h"
#include "common/ipc/session_broker.h"

namespace session {

// What the broker says about the device, held against our own limits.
[[nodiscard]] bool start_is_sound(const common::ipc::SessionStart& start) noexcept;

// Everything a session remembers, made before the seal in one piece: nothing in it grows.
class Session {
 public:
  // `start` is sound. The sockets stay the caller's.
  Session(common::FdRef broker, common::FdRef vmm, const common::ipc::SessionStart& start) noexcept;
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;

  // Until somebody hangs up or breaks a rule; the broker has been told why.
  [[nodiscard]] common::ipc::SessionExit run() noexcept;

 private:
  [[nodiscard]] Outcome<void> turn() noexcept;
  [[nodiscard]] Outcome<void> hear_front_end() noexcept;
  [[nodiscard]] Outcome<void> reply(std::span<const std::byte> body,
                                    common::FdRef file = {}) noexcept;
  [[nodiscard]] bool ack_is_due() const noexcept;
  void say_no() noexcept;

  Device device_;
  BrokerLink broker_;
  VhostConnection front_end_;
  Workers workers_;
};

}  // namespace session
