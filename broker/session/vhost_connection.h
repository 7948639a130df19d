// broker/session/vhost_connection.h: the stream from the front-end, cut into messages.
//
// Not trusted: every byte. Framing is checked here, before anybody looks at a payload: version,
// known request, payload size and number of descriptors, all from the row of vhost_table.cpp. A
// message may come byte by byte or never end: bytes are collected as they come, and nobody waits
// for the rest.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>
#include <type_traits>

#include "broker/session/end.h"
#include "broker/session/vhost_wire.h"
#include "common/fd.h"
#include "common/ipc/channel.h"
#include "common/verify.h"

namespace session {

struct Row;

// A message that has passed the checks of its row. Valid until the next receive() or reply.
struct Incoming {
  const Row& row;
  std::span<std::byte> payload;
  common::ipc::FdList& fds;
  // Room for the answer's body: the payload's own memory, so an answer may repeat parts of it.
  std::span<std::byte> reply_room;

  // The payload's first bytes as a T; the row guarantees that there are as many.
  template <typename T>
  [[nodiscard]] T as() const noexcept {
    static_assert(std::is_trivially_copyable_v<T>);
    common::verify(payload.size() >= sizeof(T));
    T copy;
    std::memcpy(&copy, payload.data(), sizeof(T));
    return copy;
  }
};

class VhostConnection {
 public:
  explicit VhostConnection(common::FdRef socket) noexcept : socket_(socket) {}

  [[nodiscard]] common::FdRef socket() const noexcept { return socket_; }

  // Takes what has come, without waiting; true once a message is complete.
  [[nodiscard]] Outcome<bool> receive() noexcept;
  [[nodiscard]] Incoming message() noexcept;
  // The request of the message that is complete or under way asks for an ack.
  [[nodiscard]] bool wants_ack() const noexcept { return (header().flags & kFlagNeedReply) != 0; }
  // A violation in the current message can still be answered by an ack: its header is known, and no
  // reply of its own is expected.
  [[nodiscard]] bool awaits_ack() const noexcept;
  // Makes room for the next message; descriptors that nobody took are closed.
  void finish() noexcept;

  // Sends a reply to the current message. False, and nothing was sent, if there is no room in the
  // socket's buffer: the front-end does not read.
  [[nodiscard]] Outcome<bool> reply(std::span<const std::byte> body,
                                    common::FdRef file = {}) noexcept;

 private:
  [[nodiscard]] Header header() const noexcept;
  // Reads towards `want` bytes of the message; true once there.
  [[nodiscard]] Outcome<bool> collect(std::size_t want) noexcept;
  [[nodiscard]] Outcome<void> check_header() noexcept;

  common::FdRef socket_;
  alignas(8) std::array<std::byte, sizeof(Header) + kPayloadBytesMax> buffer_{};
  std::size_t have_ = 0;
  const Row* row_ = nullptr;  // Set once the header is complete and fits its row.
  common::ipc::FdList fds_;
};

}  // namespace session
