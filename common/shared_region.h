// common/shared_region.h: a mapping of memory that another process can write.
//
// The one place with Boost.Interprocess, and of it only `mapped_region`, over our own descriptor:
// its managed segments and offset pointers keep allocator state inside the shared memory, where a
// less trusted process could rewrite it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "common/fd.h"
#include "common/result.h"

namespace common {

// Owns a MAP_SHARED mapping; unmapped on destruction, so it lives as long as its users. A sealed
// process never destroys one: munmap is not on its list.
class SharedRegion {
 public:
  enum class Access : std::uint8_t { kReadOnly, kReadWrite };

  // Maps [offset, offset + bytes) of `file`. `offset` need not be page-aligned, but must be a
  // multiple of `huge_page_bytes` where the file is on hugetlbfs (guest_map.cpp rounds it).
  // The file must be at least that long: reading past its end kills the process with SIGBUS.
  [[nodiscard]] static Result<SharedRegion> map(FdRef file, std::uint64_t offset,
                                                std::uint64_t bytes, Access access) noexcept;

  SharedRegion() noexcept = default;
  SharedRegion(const SharedRegion&) = delete;
  SharedRegion& operator=(const SharedRegion&) = delete;
  SharedRegion(SharedRegion&& other) noexcept;
  SharedRegion& operator=(SharedRegion&& other) noexcept;
  ~SharedRegion();

  [[nodiscard]] std::span<std::byte> bytes() const noexcept;

 private:
  // Holds a boost::interprocess::mapped_region; shared_region.cpp checks size and alignment.
  static constexpr std::size_t kStorageBytes = 64;
  alignas(std::max_align_t) std::byte storage_[kStorageBytes] = {};
  bool mapped_ = false;
};

}  // namespace common
