// common/virtio_blk_wire.h: the block device as the guest sees it (virtio 1.2, chapter 5.2).
#pragma once

#include <cstdint>
#include <type_traits>

#include "common/endian.h"

namespace common::blk {

// 5.2.3: feature bits, as masks.
inline constexpr std::uint64_t kFeatureSizeMax = 1ULL << 1;
inline constexpr std::uint64_t kFeatureSegMax = 1ULL << 2;
inline constexpr std::uint64_t kFeatureGeometry = 1ULL << 4;
inline constexpr std::uint64_t kFeatureReadOnly = 1ULL << 5;
inline constexpr std::uint64_t kFeatureBlkSize = 1ULL << 6;
inline constexpr std::uint64_t kFeatureFlush = 1ULL << 9;
inline constexpr std::uint64_t kFeatureTopology = 1ULL << 10;
inline constexpr std::uint64_t kFeatureConfigWce = 1ULL << 11;
inline constexpr std::uint64_t kFeatureMq = 1ULL << 12;
inline constexpr std::uint64_t kFeatureDiscard = 1ULL << 13;
inline constexpr std::uint64_t kFeatureWriteZeroes = 1ULL << 14;

// 5.2.6: request types and statuses.
enum class RequestType : std::uint32_t {
  kIn = 0,
  kOut = 1,
  kFlush = 4,
  kGetId = 8,
  kDiscard = 11,
  kWriteZeroes = 13,
};

enum class Status : std::uint8_t { kOk = 0, kIoError = 1, kUnsupported = 2 };

struct WireRequestHeader {
  Le32 type;
  Le32 reserved;
  Le64 sector;
};
static_assert(sizeof(WireRequestHeader) == 16 &&
              std::has_unique_object_representations_v<WireRequestHeader>);

// 5.2.6: one segment of DISCARD or WRITE_ZEROES.
struct WireRange {
  Le64 sector;
  Le32 num_sectors;
  Le32 flags;
};
static_assert(sizeof(WireRange) == 16 && std::has_unique_object_representations_v<WireRange>);
inline constexpr std::uint32_t kRangeFlagUnmap = 1;

// 5.2.6: GET_ID answers this many bytes, NUL-padded, not necessarily NUL-terminated.
inline constexpr std::uint32_t kIdBytes = 20;

// 5.2.4. Everything little-endian; the fields after `write_zeroes_may_unmap` (secure erase, zones)
// are not offered and read as zero.
struct WireConfig {
  Le32 capacity_sectors_low;  // In halves: as one le64 it would pad the whole to 64 bytes.
  Le32 capacity_sectors_high;
  Le32 size_max;
  Le32 seg_max;
  Le16 cylinders;
  std::uint8_t heads;
  std::uint8_t sectors;
  Le32 blk_size;
  std::uint8_t physical_block_exp;
  std::uint8_t alignment_offset;
  Le16 min_io_size;
  Le32 opt_io_size;
  std::uint8_t wce;
  std::uint8_t unused0;
  Le16 num_queues;
  Le32 max_discard_sectors;
  Le32 max_discard_seg;
  Le32 discard_sector_alignment;
  Le32 max_write_zeroes_sectors;
  Le32 max_write_zeroes_seg;
  std::uint8_t write_zeroes_may_unmap;
  std::uint8_t unused1[3];
};
static_assert(sizeof(WireConfig) == 60 && std::has_unique_object_representations_v<WireConfig>);
inline constexpr std::uint32_t kConfigWceOffset = 32;

// What we promise in the configuration space, and check in each request.
inline constexpr std::uint32_t kSegMax = 126;
inline constexpr std::uint32_t kSizeMax = 1U << 20;
inline constexpr std::uint32_t kRangeSegmentsMax = 64;
inline constexpr std::uint32_t kRangeSectorsMax = 1U << 22;  // 2 GiB in one segment.

}  // namespace common::blk
