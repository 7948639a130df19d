// common/ipc/channel.h: the project's only sendmsg and recvmsg, and on top of them one packet of
// one of our messages. Trusts nobody: sizes, kinds and descriptor counts are checked here.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>

#include "common/fd.h"
#include "common/ipc/message.h"
#include "common/result.h"

namespace common::ipc {

// Enough for the largest message of anyone who talks to us: a front-end may send 32 memory regions
// in one SET_MEM_TABLE (peers differ; the specification's floor is 8).
inline constexpr std::size_t kFdListMax = 32;

// Descriptors that came with a message, each owned until somebody takes it.
class FdList {
 public:
  [[nodiscard]] std::size_t size() const noexcept { return count_; }
  // Moves the descriptor out; what was not taken is closed with the list.
  [[nodiscard]] Fd take(std::size_t index) noexcept;
  [[nodiscard]] FdRef at(std::size_t index) const noexcept;
  void clear() noexcept;

 private:
  friend struct Receiver;
  std::array<Fd, kFdListMax> fds_;
  std::size_t count_ = 0;
};

// What a receive brought.
enum class Arrival : std::uint8_t {
  kData,       // `bytes` of it; on a packet socket the whole packet.
  kClosed,     // The other side closed.
  kNothing,    // Non-blocking and nothing there.
  kTruncated,  // A violation: larger packet, or more descriptors, than anybody may send. Those that
               // fitted are in the list.
};

struct Received {
  Arrival arrival = Arrival::kNothing;
  std::size_t bytes = 0;
};

// Reads at most buffer.size() bytes and the descriptors that came with them (CLOEXEC). Descriptors
// replace what `fds` held. `wait` false: never blocks. Errors: what recvmsg says, EINTR excluded.
// syscalls: recvmsg
[[nodiscard]] Result<Received> receive(FdRef socket, std::span<std::byte> buffer, FdList& fds,
                                       bool wait) noexcept;

// Sends all of `bytes`, with `fds` on the first byte. On a stream socket continues after a partial
// send. Never raises SIGPIPE. `wait` false: EAGAIN if the other side's buffer is full.
// syscalls: sendmsg
[[nodiscard]] Result<void> send_bytes(FdRef socket, std::span<const std::byte> bytes,
                                      std::span<const FdRef> fds, bool wait) noexcept;

template <Message T>
[[nodiscard]] Result<void> send(FdRef socket, const T& message, std::span<const FdRef> fds = {},
                                bool wait = true) noexcept {
  return send_bytes(socket, std::as_bytes(std::span(&message, 1)), fds, wait);
}

// One received packet, still untrusted.
struct Packet {
  alignas(8) std::array<std::byte, kMessageBytesMax> storage;
  std::size_t size = 0;
  FdList fds;

  [[nodiscard]] std::uint32_t kind() const noexcept;  // 0 for a packet too short to have one.

  // The packet as a T, or nothing unless kind, size and descriptor count are exactly those of T.
  template <Message T>
  [[nodiscard]] std::optional<T> as() const noexcept {
    if (kind() != T::kKind || size != sizeof(T)) return std::nullopt;
    if (fds.size() < T::kFdsMin || fds.size() > T::kFdsMax) return std::nullopt;
    T copy;
    std::memcpy(&copy, storage.data(), sizeof(T));
    return copy;
  }
};

[[nodiscard]] Result<Arrival> receive_packet(FdRef socket, Packet& packet, bool wait) noexcept;

}  // namespace common::ipc
