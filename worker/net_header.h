// worker/net_header.h: the header before each packet that a guest sends, checked on a copy.
//
// Not trusted: every field. The kernel checks what its own safety needs; what is checked here is
// that the header fits its packet and asks for nothing that was not negotiated, and nothing of the
// guest's that the specification does not define reaches the tap.
#pragma once

#include <cstdint>

#include "common/virtio_net_wire.h"

namespace worker {

enum class HeaderVerdict : std::uint8_t { kGood, kBadHeader, kBadLength };

class HeaderRules {
 public:
  HeaderRules() noexcept = default;
  // `features`: acknowledged by the driver. `mtu`: as the configuration space has it, or 0.
  HeaderRules(std::uint64_t features, std::uint32_t mtu) noexcept;

  // Makes `header` what the tap is to be given: what has no meaning in it is zero. `packet_bytes`:
  // what follows the header.
  [[nodiscard]] HeaderVerdict check(common::net::WireHeader& header,
                                    std::uint32_t packet_bytes) const noexcept;

 private:
  [[nodiscard]] bool gso_is_negotiated(std::uint8_t gso_type) const noexcept;

  std::uint64_t features_ = 0;
  std::uint32_t plain_bytes_max_ = 0;  // Of a packet that nobody cuts into pieces.
};

}  // namespace worker
