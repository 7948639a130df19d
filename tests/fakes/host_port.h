// tests/fakes/host_port.h: the host's end of an interface: what a guest sends comes out here, and
// what is sent here goes to the guest; unfinished packets (checksums, segments) in both directions.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "common/fd.h"
#include "common/virtio_net_wire.h"

namespace fakes {

struct NetPacket {
  common::net::WireHeader header{};
  std::vector<std::byte> frame;
};

class HostPort {
 public:
  explicit HostPort(const std::string& interface);

  // Fails where the kernel does not take it (a frame above the interface's MTU, without segments).
  void send(const NetPacket& packet);
  void send(std::span<const std::byte> frame);
  // False where the kernel does not take it.
  [[nodiscard]] bool try_send(const NetPacket& packet);
  // The next packet that the guest has sent; nothing after `timeout_ms`.
  [[nodiscard]] std::optional<NetPacket> receive(int timeout_ms);

 private:
  common::Fd socket_;
  std::vector<std::byte> buffer_;
};

// --- frames --------------------------------------------------------------------------------------

inline constexpr common::net::Mac kGuestMac = {0x52, 0x54, 0x00, 0x00, 0x00, 0x01};
inline constexpr common::net::Mac kHostMac = {0x52, 0x54, 0x00, 0x00, 0x00, 0x02};

// `bytes` long, of a protocol that no host speaks; its content follows from `seed`.
[[nodiscard]] std::vector<std::byte> make_frame(std::size_t bytes, std::uint32_t seed,
                                                bool from_guest = false);

// What kind of unfinished packet.
enum class Unfinished : std::uint8_t {
  kTcp4Checksum,
  kTcp6Checksum,
  kUdp4Checksum,
  kTcp4Segments,
  kTcp4EcnSegments,
  kTcp6Segments,
  kUdp4Segments,  // USO.
  kUdp6Segments,
};
[[nodiscard]] NetPacket make_unfinished(Unfinished kind, std::size_t frame_bytes,
                                        std::uint32_t seed, bool from_guest = false);
// The same packet with its checksum filled in and no header, as a host finishes it; for the kinds
// that have a checksum only.
[[nodiscard]] std::vector<std::byte> finish_checksum(const NetPacket& packet);

}  // namespace fakes
