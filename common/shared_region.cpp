#include "common/shared_region.h"

#include <boost/interprocess/mapped_region.hpp>
#include <cerrno>
#include <new>
#include <utility>

namespace common {
namespace {

namespace bip = boost::interprocess;

// What mapped_region asks of "memory mappable" types: a handle. The descriptor stays ours.
struct BorrowedFile {
  int number;
  [[nodiscard]] bip::mapping_handle_t get_mapping_handle() const noexcept {
    return bip::ipcdetail::mapping_handle_from_file_handle(number);
  }
};

bip::mapped_region* region_in(std::byte* storage) noexcept {
  return std::launder(reinterpret_cast<bip::mapped_region*>(storage));
}

}  // namespace

Result<SharedRegion> SharedRegion::map(FdRef file, std::uint64_t offset, std::uint64_t bytes,
                                       Access access) noexcept {
  static_assert(sizeof(bip::mapped_region) <= kStorageBytes);
  static_assert(alignof(bip::mapped_region) <= alignof(std::max_align_t));
  // mapped_region would take 0 for "to the end of the file", which a peer must not choose.
  if (bytes == 0) return fail_errno("map shared memory: no bytes", EINVAL);

  const auto mode = access == Access::kReadOnly ? bip::read_only : bip::read_write;
  SharedRegion region;
  try {
    new (region.storage_) bip::mapped_region(BorrowedFile{file.number}, mode,
                                             static_cast<bip::offset_t>(offset), bytes);
  } catch (const bip::interprocess_exception& error) {
    return fail_errno("map shared memory", error.get_native_error());
  }
  region.mapped_ = true;
  return region;
}

SharedRegion::SharedRegion(SharedRegion&& other) noexcept { *this = std::move(other); }

SharedRegion& SharedRegion::operator=(SharedRegion&& other) noexcept {
  if (this == &other) return *this;
  if (std::exchange(mapped_, false)) region_in(storage_)->~mapped_region();
  if (other.mapped_) {
    new (storage_) bip::mapped_region(std::move(*region_in(other.storage_)));
    region_in(other.storage_)->~mapped_region();
    other.mapped_ = false;
    mapped_ = true;
  }
  return *this;
}

SharedRegion::~SharedRegion() {
  if (mapped_) region_in(storage_)->~mapped_region();
}

std::span<std::byte> SharedRegion::bytes() const noexcept {
  if (!mapped_) return {};
  auto* const region = region_in(const_cast<std::byte*>(storage_));
  return {static_cast<std::byte*>(region->get_address()), region->get_size()};
}

}  // namespace common
