#include "common/guest_map.h"

#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "common/checked.h"

namespace common {
namespace {

// The unit in which a file can be mapped: the huge page on hugetlbfs, where st_blksize says so.
Result<std::uint64_t> mapping_unit(FdRef file) noexcept {
  struct stat status {};
  if (::fstat(file.number, &status) != 0) return fail_errno("fstat guest memory", errno);
  const auto page = static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));
  const auto unit = static_cast<std::uint64_t>(status.st_blksize);
  return is_power_of_two(unit) ? std::max(unit, page) : page;
}

}  // namespace

Result<void> GuestMap::add(FdRef file, std::uint64_t file_offset, GuestAddr start,
                           std::uint64_t bytes) noexcept {
  if (regions_.size() == kMemoryRegionsMax) return fail_errno("too many memory regions", ENOSPC);
  const auto end = checked_add(start.value, bytes);
  if (bytes == 0 || !end) return fail_errno("memory region is empty or wraps", EINVAL);

  TRY_LET(const std::uint64_t unit, mapping_unit(file));
  const std::uint64_t base = round_down(file_offset, unit);
  const std::uint64_t lead = file_offset - base;
  const auto length = checked_add(lead, bytes);
  const auto padded = length ? checked_add(*length, unit - 1) : std::nullopt;
  if (!padded) return fail_errno("memory region wraps", EINVAL);

  const auto place =
      std::upper_bound(regions_.begin(), regions_.end(), start,
                       [](GuestAddr at, const GuestRegion& there) { return at < there.start; });
  const bool hits_next = place != regions_.end() && place->start.value < *end;
  const bool hits_previous =
      place != regions_.begin() && (place - 1)->bytes > start.value - (place - 1)->start.value;
  if (hits_next || hits_previous) return fail_errno("memory regions overlap", EINVAL);

  TRY_LET(SharedRegion mapping, SharedRegion::map(file, base, round_down(*padded, unit),
                                                  SharedRegion::Access::kReadWrite));
  const std::span<std::byte> host = mapping.bytes();
  // Best effort: a core would need the process to be dumpable, which it is not.
  (void)::madvise(host.data(), host.size(), MADV_DONTDUMP);

  regions_.insert(place, GuestRegion{start, bytes, host.data() + lead});
  mappings_.push_back(std::move(mapping));
  return {};
}

}  // namespace common
