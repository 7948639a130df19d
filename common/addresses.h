// common/addresses.h: the 64-bit numbers that the protocols mix, as types that do not convert.
#pragma once

#include <compare>
#include <cstdint>

namespace common {

// A guest-physical address: an index into the guest's world, never something to dereference.
struct GuestAddr {
  std::uint64_t value = 0;
  auto operator<=>(const GuestAddr&) const = default;
};

// An address in the VMM's own address space: how SET_VRING_ADDR and the memory table name a place.
struct VmmAddr {
  std::uint64_t value = 0;
  auto operator<=>(const VmmAddr&) const = default;
};

// virtio-blk counts in 512-byte sectors whatever the block size of the disk (virtio 1.2, 5.2.4).
inline constexpr std::uint64_t kSectorBytes = 512;

}  // namespace common
