// common/dirty_log_wire.h: the log of a migration (vhost-user, "Migration"): bit n of it, counted
// from the lowest of the first byte, is page n of guest-physical memory.
#pragma once

#include <cstdint>

namespace common::dirty_log {

inline constexpr std::uint64_t kPageBytes = 0x1000;  // VHOST_LOG_PAGE
inline constexpr std::uint64_t kPagesInByte = 8;

// Virtio feature bit 26, which is no driver's: everything that is written is to be logged.
inline constexpr std::uint64_t kFeatureLogAll = 1ULL << 26;
// SET_VRING_ADDR, bit 0 of `flags`: so is the used ring, at an address of its own in the log.
inline constexpr std::uint32_t kVringLog = 1;

// How much of a log it takes for all addresses below `end`.
[[nodiscard]] constexpr std::uint64_t bytes_for(std::uint64_t end) noexcept {
  if (end == 0) return 0;
  return (end - 1) / kPageBytes / kPagesInByte + 1;
}

}  // namespace common::dirty_log
