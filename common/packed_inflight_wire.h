// common/packed_inflight_wire.h: the in-flight region, as vhost-user's "Inflight I/O tracking" lays
// it out for packed rings: the descriptors that were taken and not answered yet, since the driver
// may have put others in their places. inflight_wire.h has the split rings' regions.
//
// Not trusted: the region's bytes. The front-end keeps the file and can change it at any time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "common/inflight_wire.h"

namespace common::inflight {

// QueueRegionPacked without its array, in words of 64 bits: what changes together is stored
// together, and so whoever dies leaves either all of it or nothing.
struct PackedHeads {
  std::uint16_t version;  // 0: nobody has used the region yet.
  std::uint16_t desc_num;
  std::uint16_t free_head;  // Of the list of free entries; desc_num: there are none.
  std::uint16_t old_free_head;
};
struct PackedUsed {
  std::uint16_t used_idx;
  std::uint16_t old_used_idx;
  std::uint8_t used_wrap_counter;
  std::uint8_t old_used_wrap_counter;
  std::uint8_t padding[2];
};
struct PackedHeader {
  std::uint64_t features;
  PackedHeads heads;
  PackedUsed used;
  std::uint8_t padding[8];
};
static_assert(sizeof(PackedHeader) == 32 && std::has_unique_object_representations_v<PackedHeader>);
static_assert(sizeof(PackedHeads) == 8 && offsetof(PackedHeader, heads) % 8 == 0);
static_assert(sizeof(PackedUsed) == 8 && offsetof(PackedHeader, used) % 8 == 0);

// DescStatePacked, one for each descriptor. What belongs to a chain is in the entry of its head.
struct PackedDescState {
  std::uint8_t in_flight;
  std::uint8_t padding;
  std::uint16_t next;     // In the list of free entries, or in the chain.
  std::uint16_t last;     // Of the head: where its chain ends,
  std::uint16_t num;      // how many descriptors it has,
  std::uint64_t counter;  // and in which order chains were taken.
  std::uint16_t id;       // The descriptor as it was in the ring.
  std::uint16_t flags;
  std::uint32_t len;
  std::uint64_t addr;
};
static_assert(sizeof(PackedDescState) == 32 &&
              std::has_unique_object_representations_v<PackedDescState>);

[[nodiscard]] constexpr std::uint64_t packed_queue_bytes(std::uint64_t entries) noexcept {
  return sizeof(PackedHeader) + entries * sizeof(PackedDescState);
}
[[nodiscard]] constexpr std::uint64_t packed_stride(std::uint64_t entries,
                                                    std::uint64_t unit) noexcept {
  return (packed_queue_bytes(entries) + unit - 1) / unit * unit;
}

}  // namespace common::inflight
