// common/virtqueue_wire.h: the split and the packed virtqueue and the feature bits every device
// shares (virtio 1.2, chapters 2.7, 2.8 and 6).
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

// 2.8.1: whether a descriptor of a packed ring is available, or used: both are compared with a
// wrap counter.
inline constexpr std::uint16_t kPackedAvail = 1U << 7;
inline constexpr std::uint16_t kPackedUsed = 1U << 15;

// 2.8.13; as the driver makes it available and, with `addr` left alone, as the device returns it.
// The other flags are those of 2.7.5.
struct WirePackedDesc {
  Le64 addr;
  Le32 len;
  Le16 id;
  Le16 flags;
};
static_assert(sizeof(WirePackedDesc) == 16 &&
              std::has_unique_object_representations_v<WirePackedDesc>);
inline constexpr std::uint64_t kPackedDescLenOffset = 8;
inline constexpr std::uint64_t kPackedDescIdOffset = 12;
inline constexpr std::uint64_t kPackedDescFlagsOffset = 14;

// 2.8.10 and 2.8.14: when one side wants to hear from the other: le16 off_wrap, le16 flags.
inline constexpr std::uint64_t kPackedEventBytes = 4;
inline constexpr std::uint64_t kPackedEventOffWrapOffset = 0;
inline constexpr std::uint64_t kPackedEventFlagsOffset = 2;
inline constexpr std::uint16_t kPackedEventFlagsMask = 3;
inline constexpr std::uint16_t kPackedEventEnable = 0;
inline constexpr std::uint16_t kPackedEventDisable = 1;
inline constexpr std::uint16_t kPackedEventDesc = 2;  // At off_wrap; only with EVENT_IDX.

// 2.8: alignment each part must have.
inline constexpr std::uint64_t kPackedDescAlign = 16;
inline constexpr std::uint64_t kPackedEventAlign = 4;

[[nodiscard]] constexpr std::uint64_t packed_ring_bytes(std::uint16_t size) noexcept {
  return std::uint64_t{size} * sizeof(WirePackedDesc);
}

// A place in a packed ring: which descriptor, and how often the ring has been gone round (2.8.1).
// Both begin at the first descriptor with a counter of 1.
struct PackedPlace {
  std::uint16_t index = 0;
  bool wrap = true;

  [[nodiscard]] constexpr bool operator==(const PackedPlace&) const noexcept = default;
  // As vhost-user and off_wrap have it: bit 15 is the wrap counter.
  [[nodiscard]] constexpr std::uint16_t word() const noexcept {
    return static_cast<std::uint16_t>(index | (wrap ? 0x8000U : 0U));
  }
  [[nodiscard]] static constexpr PackedPlace from(std::uint16_t word) noexcept {
    return {static_cast<std::uint16_t>(word & 0x7fffU), (word & 0x8000U) != 0};
  }
};

// Where a back-end stands in a packed ring: what vhost-user's SET_VRING_BASE and GET_VRING_BASE
// carry, 32 bits ("Vring state description", packed virtqueues). Equal where nothing is in flight.
struct PackedBase {
  PackedPlace avail;  // The next descriptor to take,
  PackedPlace used;   // and the next to return.

  [[nodiscard]] constexpr bool operator==(const PackedBase&) const noexcept = default;
};
inline constexpr std::uint32_t kPackedBaseFresh = 0x8000'8000U;

[[nodiscard]] constexpr std::uint32_t pack_vring_base(const PackedBase& base) noexcept {
  return base.avail.word() | std::uint32_t{base.used.word()} << 16;
}
[[nodiscard]] constexpr PackedBase unpack_vring_base(std::uint32_t base) noexcept {
  return {PackedPlace::from(static_cast<std::uint16_t>(base)),
          PackedPlace::from(static_cast<std::uint16_t>(base >> 16))};
}
static_assert(pack_vring_base({}) == kPackedBaseFresh &&
              unpack_vring_base(kPackedBaseFresh) == PackedBase{});

// How far `to` is ahead of `from`, in descriptors; `size` of them are one round. Both within the
// ring. More than `size`: `to` cannot be ahead.
[[nodiscard]] constexpr std::uint32_t packed_distance(PackedPlace from, PackedPlace to,
                                                      std::uint32_t size) noexcept {
  if (from.wrap == to.wrap) {
    return to.index >= from.index ? std::uint32_t{to.index} - from.index : UINT32_MAX;
  }
  return size - from.index + to.index;
}

// `count` descriptors further on, at most once round the ring.
[[nodiscard]] constexpr PackedPlace packed_ahead(PackedPlace from, std::uint32_t count,
                                                 std::uint32_t size) noexcept {
  const std::uint32_t index = from.index + count;
  if (index < size) return {static_cast<std::uint16_t>(index), from.wrap};
  return {static_cast<std::uint16_t>(index - size), !from.wrap};
}

// 2.8.1: available in this round: AVAIL is the driver's wrap counter, USED is not.
[[nodiscard]] constexpr bool packed_is_available(std::uint16_t flags, bool wrap) noexcept {
  constexpr std::uint16_t kBoth = kPackedAvail | kPackedUsed;
  return (flags & kBoth) == (wrap ? kPackedAvail : kPackedUsed);
}

// Whether a back-end can stand there in a ring of `size`: both places are in it, and what is in
// flight is no more than it holds.
[[nodiscard]] constexpr bool packed_base_is_sane(const PackedBase& base,
                                                 std::uint32_t size) noexcept {
  return base.avail.index < size && base.used.index < size &&
         packed_distance(base.used, base.avail, size) <= size;
}

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
