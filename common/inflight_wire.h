// common/inflight_wire.h: the in-flight region, as vhost-user's "Inflight I/O tracking" lays it out
// for split rings: which requests were taken and not answered yet, so that whoever serves a ring
// next can go on.
//
// Not trusted: the region's bytes. The front-end keeps the file and can change it at any time.
#pragma once

#include <cstdint>
#include <type_traits>

namespace common::inflight {

// "All numbers are in the machine native byte order": plain integers, as in vhost_wire.h.

// QueueRegionSplit without its array.
struct Header {
  std::uint64_t features;
  std::uint16_t version;  // 0: nobody has used the region yet.
  std::uint16_t desc_num;
  std::uint16_t last_batch_head;
  std::uint16_t used_idx;
};
static_assert(sizeof(Header) == 16 && std::has_unique_object_representations_v<Header>);

// DescStateSplit, one for each head.
struct DescState {
  std::uint8_t in_flight;
  std::uint8_t padding[5];
  std::uint16_t next;     // In the list of the last batch that was answered.
  std::uint64_t counter;  // In which order heads were taken.
};
static_assert(sizeof(DescState) == 16 && std::has_unique_object_representations_v<DescState>);

inline constexpr std::uint16_t kVersion = 1;
inline constexpr std::uint64_t kAlignment = 8;

[[nodiscard]] constexpr std::uint64_t queue_bytes(std::uint64_t entries) noexcept {
  return sizeof(Header) + entries * sizeof(DescState);
}

// From one queue's region to the next. Ours are whole pages, so that a worker maps no other queue's
// region; other back-ends' are multiples of 64 bytes, and such a region may come to us by
// migration.
inline constexpr std::uint64_t kOurStride = 4096;
inline constexpr std::uint64_t kPeerStride = 64;
[[nodiscard]] constexpr std::uint64_t stride(std::uint64_t entries, std::uint64_t unit) noexcept {
  return (queue_bytes(entries) + unit - 1) / unit * unit;
}

}  // namespace common::inflight
