#include "worker/blk_range.h"

#include "common/addresses.h"
#include "common/checked.h"
#include "common/guest_memory.h"

namespace worker {
namespace {

using common::blk::kRangeFlagUnmap;
using common::blk::kRangeSectorsMax;
using common::blk::kRangeSegmentsMax;
using common::blk::Status;
using common::blk::WireRange;

static_assert(std::uint64_t{kRangeSectorsMax} * common::kSectorBytes <= UINT32_MAX);

// 5.2.6.2: UNSUPP for any unknown flag, and for UNMAP in a discard.
bool flags_known(const WireRange& range, RangeKind kind) noexcept {
  const std::uint32_t allowed = kind == RangeKind::kWriteZeroes ? kRangeFlagUnmap : 0;
  return (range.flags.get() & ~allowed) == 0;
}

bool within_disk(const WireRange& range, std::uint64_t capacity_sectors) noexcept {
  const std::uint32_t sectors = range.num_sectors.get();
  return sectors <= kRangeSectorsMax &&
         common::range_within<std::uint64_t>(range.sector.get(), sectors, capacity_sectors);
}

}  // namespace

Status read_ranges(std::span<const iovec> data, std::uint32_t bytes, RangeKind kind,
                   std::uint64_t capacity_sectors, RangeList& out) noexcept {
  // 5.2.6.1: whole segments, one or more, and no more than the configuration space promises.
  if (bytes == 0 || bytes % sizeof(WireRange) != 0) return Status::kIoError;
  const auto count = static_cast<std::uint32_t>(bytes / sizeof(WireRange));
  if (count > kRangeSegmentsMax) return Status::kIoError;

  std::array<WireRange, kRangeSegmentsMax> copy;
  const auto wanted = std::as_writable_bytes(std::span(copy).first(count));
  common::verify(common::GuestMemory::gather(data, wanted) == wanted.size());

  for (const WireRange& range : std::span(copy).first(count)) {
    if (!flags_known(range, kind)) return Status::kUnsupported;
  }
  out.count = 0;
  for (const WireRange& range : std::span(copy).first(count)) {
    if (!within_disk(range, capacity_sectors)) return Status::kIoError;
    if (range.num_sectors.get() == 0) continue;  // Nothing to do is done.
    out.ranges[out.count++] = {
        range.sector.get() * common::kSectorBytes,
        static_cast<std::uint32_t>(range.num_sectors.get() * common::kSectorBytes),
        range.flags.get() & kRangeFlagUnmap};
  }
  return Status::kOk;
}

}  // namespace worker
