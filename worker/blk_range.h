// worker/blk_range.h: the ranges of a DISCARD or WRITE_ZEROES (virtio 1.2, 5.2.6), copied once out
// of guest memory and checked before anything is done with the first.
#pragma once

#include <sys/uio.h>

#include <array>
#include <cstdint>
#include <span>

#include "common/virtio_blk_wire.h"

namespace worker {

// One checked range, in bytes. It ends within the disk.
struct ByteRange {
  std::uint64_t offset;
  std::uint32_t bytes;  // At most kRangeSectorsMax sectors, 2 GiB.
  std::uint32_t unmap;  // 1: deallocating it will do.
};

// No initialisers: these lie in pools that are not to be touched before use.
struct RangeList {
  std::uint32_t count;
  std::array<ByteRange, common::blk::kRangeSegmentsMax> ranges;
};

enum class RangeKind : std::uint8_t { kDiscard, kWriteZeroes };

// `data` is the request's data, `bytes` long in all. kOk: `out` holds all ranges; else what to
// answer, and nothing may be done.
[[nodiscard]] common::blk::Status read_ranges(std::span<const iovec> data, std::uint32_t bytes,
                                              RangeKind kind, std::uint64_t capacity_sectors,
                                              RangeList& out) noexcept;

}  // namespace worker
