// broker/session/broker_link.h: the session's end of its socket to the broker.
//
// The broker is trusted with our life, but not with our memory: kinds, sizes and numbers are
// checked like anyone's, and nonsense ends the session as a fault of the host.
#pragma once

#include <array>
#include <cstdint>

#include "broker/session/end.h"
#include "common/fd.h"
#include "common/ipc/channel.h"
#include "common/ipc/session_broker.h"

namespace session {

// How often one session may report one kind of thing: a guest that resets its device for ever must
// not fill the log, nor use up the share of other events. 9 kinds and the violation at the end:
// at most 73 events.
inline constexpr std::uint32_t kEventsOfOneKindMax = 8;

class BrokerLink {
 public:
  explicit BrokerLink(common::FdRef socket) noexcept : socket_(socket) {}

  [[nodiscard]] common::FdRef socket() const noexcept { return socket_; }

  template <common::ipc::Message T>
  [[nodiscard]] Outcome<void> send(const T& message,
                                   std::span<const common::FdRef> fds = {}) noexcept {
    if (!common::ipc::send(socket_, message, fds)) {
      return end_with(common::ipc::SessionExit::kBrokerGone);
    }
    return {};
  }

  // The next packet, into `packet`; false if there is none now.
  [[nodiscard]] Outcome<bool> receive(common::ipc::Packet& packet) noexcept;

  // Tells the operator, up to the limit. Losing one is no reason to end.
  void report(common::ipc::EventCode code, std::uint64_t first = 0, std::uint64_t second = 0,
              std::uint64_t third = 0) noexcept;
  // The last words of a session: what was dropped, and the violation that ends it.
  void report_end(const End& end) noexcept;

 private:
  void send_event(common::ipc::EventCode code,
                  const std::array<std::uint64_t, 3>& numbers) noexcept;

  // Slots of `reported_`: the codes from kConnected on, and kConfigNotWritable.
  static constexpr std::size_t kKinds = 10;
  [[nodiscard]] static std::size_t kind_of(common::ipc::EventCode code) noexcept;

  common::FdRef socket_;
  std::array<std::uint32_t, kKinds> reported_{};
  std::uint64_t dropped_ = 0;
};

}  // namespace session
