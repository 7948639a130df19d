// common/virtqueue_wire.h: the split virtqueue and the feature bits every device shares
// (virtio 1.2, chapters 2.7 and 6).
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "common/endian.h"

namespace common {

// 2.7.5: descriptor flags.
inline constexpr std::uint16_t kDescNext = 1;
inline constexpr std::uint16_t kDescWrite = 2;
inline constexpr std::uint16_t kDescIndirect = 4;

// 2.7.5.
struct WireDesc {
  Le64 addr;
  Le32 len;
  Le16 flags;
  Le16 next;
};
static_assert(sizeof(WireDesc) == 16 && std::has_unique_object_representations_v<WireDesc>);

// 2.7.8.
struct WireUsedElem {
  Le32 id;
  Le32 len;
};
static_assert(sizeof(WireUsedElem) == 8);

// 2.7.6: le16 flags, le16 idx, le16 ring[size], le16 used_event.
inline constexpr std::uint64_t kAvailFlagsOffset = 0;
inline constexpr std::uint64_t kAvailIdxOffset = 2;
inline constexpr std::uint64_t kAvailRingOffset = 4;
inline constexpr std::uint16_t kAvailNoInterrupt = 1;

// 2.7.8: le16 flags, le16 idx, elem ring[size], le16 avail_event.
inline constexpr std::uint64_t kUsedFlagsOffset = 0;
inline constexpr std::uint64_t kUsedIdxOffset = 2;
inline constexpr std::uint64_t kUsedRingOffset = 4;
inline constexpr std::uint16_t kUsedNoNotify = 1;

// 2.7: sizes in bytes; the event fields at the end are counted always, as the layout reserves them.
[[nodiscard]] constexpr std::uint64_t desc_table_bytes(std::uint16_t size) noexcept {
  return std::uint64_t{size} * 16;
}
[[nodiscard]] constexpr std::uint64_t avail_bytes(std::uint16_t size, bool event_idx) noexcept {
  return 4 + std::uint64_t{size} * 2 + (event_idx ? 2 : 0);
}
[[nodiscard]] constexpr std::uint64_t used_bytes(std::uint16_t size, bool event_idx) noexcept {
  return 4 + std::uint64_t{size} * 8 + (event_idx ? 2 : 0);
}

// 2.7: alignment each part must have.
inline constexpr std::uint64_t kDescAlign = 16;
inline constexpr std::uint64_t kAvailAlign = 2;
inline constexpr std::uint64_t kUsedAlign = 4;

// 2.7: a power of two up to 32768; ours is the limit the project states (README.md).
inline constexpr std::uint32_t kQueueSizeMax = 1024;

// Chapter 6 and vhost-user: bits shared by all device types, as masks.
inline constexpr std::uint64_t kFeatureLogAll = 1ULL << 26;            // vhost
inline constexpr std::uint64_t kFeatureIndirectDesc = 1ULL << 28;      // VIRTIO_F_INDIRECT_DESC
inline constexpr std::uint64_t kFeatureEventIdx = 1ULL << 29;          // VIRTIO_F_EVENT_IDX
inline constexpr std::uint64_t kFeatureProtocolFeatures = 1ULL << 30;  // vhost-user
inline constexpr std::uint64_t kFeatureVersion1 = 1ULL << 32;
inline constexpr std::uint64_t kFeatureAccessPlatform = 1ULL << 33;
inline constexpr std::uint64_t kFeatureRingPacked = 1ULL << 34;
inline constexpr std::uint64_t kFeatureInOrder = 1ULL << 35;

}  // namespace common
