// common/guest_map.h: maps a guest's memory table; start-up only.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "common/addresses.h"
#include "common/fd.h"
#include "common/guest_memory.h"
#include "common/result.h"
#include "common/shared_region.h"

namespace common {

// vhost-user, CONFIGURE_MEM_SLOTS: what we answer to GET_MAX_MEM_SLOTS, as QEMU's own limit.
inline constexpr std::size_t kMemoryRegionsMax = 509;

// Owns the mappings; `memory()` is valid as long as it lives. Not movable: GuestMemory points in.
class GuestMap {
 public:
  GuestMap() = default;
  GuestMap(const GuestMap&) = delete;
  GuestMap& operator=(const GuestMap&) = delete;

  // Maps `bytes` bytes of `file` from `file_offset` at guest-physical `start`, excluded from core
  // dumps. The caller keeps the descriptor. Errors: EINVAL (empty, wraps, overlaps one that is
  // there), ENOSPC (too many), what mmap says.
  [[nodiscard]] Result<void> add(FdRef file, std::uint64_t file_offset, GuestAddr start,
                                 std::uint64_t bytes) noexcept;

  // Valid until the next add().
  [[nodiscard]] GuestMemory memory() const noexcept { return GuestMemory(regions_); }

 private:
  // Vectors, since most guests have two regions and a worker's private memory is counted in pages.
  std::vector<SharedRegion> mappings_;
  std::vector<GuestRegion> regions_;  // Sorted by start.
};

}  // namespace common
