#include "broker/session/memory_table.h"

#include <algorithm>
#include <utility>

#include "broker/session/descriptor_check.h"
#include "common/checked.h"

namespace session {
namespace {

using common::checked_add;
using common::range_within;
using common::ipc::EventCode;
using Region = MemoryTable::Region;

std::uint64_t number(Request request) noexcept { return static_cast<std::uint64_t>(request); }

// Everything about one region that does not depend on its neighbours. `index` is its place in the
// message, for the operator.
Outcome<Region> check(Request request, std::uint64_t index, const MemoryRegion& place,
                      common::Fd file) noexcept {
  if (place.bytes == 0) {
    return violation(EventCode::kRegionEmpty, number(request), place.guest_addr);
  }
  const auto file_end = checked_add(place.file_offset, place.bytes);
  if (!checked_add(place.guest_addr, place.bytes) || !checked_add(place.vmm_addr, place.bytes) ||
      !file_end) {
    return violation(EventCode::kRegionWraps, number(request), place.guest_addr, place.bytes);
  }
  const auto facts = mode_of(file.ref());
  if (!facts || !facts->is_regular()) {
    return violation(EventCode::kBadFdType, number(request), index, facts ? facts->mode : 0);
  }
  if (*file_end > facts->bytes) {
    return violation(EventCode::kRegionBeyondFile, number(request), *file_end, facts->bytes);
  }
  return Region{place, facts->device, facts->inode, std::move(file)};
}

// Puts `fresh` in its place among the first `count` of `sorted`. Only guest addresses must not
// overlap: two guest regions may well be the same memory for the VMM, or in the file.
Outcome<void> insert(Request request, std::span<Region> sorted, std::size_t count,
                     Region fresh) noexcept {
  const auto end = sorted.begin() + static_cast<std::ptrdiff_t>(count);
  const auto at = std::upper_bound(
      sorted.begin(), end, fresh.place.guest_addr,
      [](std::uint64_t addr, const Region& there) { return addr < there.place.guest_addr; });
  const bool hits_next =
      at != end && at->place.guest_addr - fresh.place.guest_addr < fresh.place.bytes;
  const bool hits_previous =
      at != sorted.begin() &&
      fresh.place.guest_addr - (at - 1)->place.guest_addr < (at - 1)->place.bytes;
  if (hits_next || hits_previous) {
    return violation(EventCode::kRegionOverlaps, number(request), fresh.place.guest_addr,
                     fresh.place.bytes);
  }
  std::move_backward(at, end, end + 1);
  *at = std::move(fresh);
  return {};
}

}  // namespace

bool Region::same_as(const Region& other) const noexcept {
  return place.guest_addr == other.place.guest_addr && place.bytes == other.place.bytes &&
         place.vmm_addr == other.place.vmm_addr && place.file_offset == other.place.file_offset &&
         device == other.device && inode == other.inode;
}

Outcome<void> MemoryTable::set(std::span<const MemoryRegion> places,
                               common::ipc::FdList& files) noexcept {
  constexpr auto kRequest = Request::kSetMemTable;
  if (places.size() > kTableRegionsMax) {
    return violation(EventCode::kRegionTooMany, number(kRequest), places.size());
  }
  // No descriptor means that the VMM's memory is private to it: the commonest mistake of users.
  if (places.empty() || places.size() != files.size()) {
    return violation(EventCode::kRegionCount, number(kRequest), places.size(), files.size());
  }
  std::array<Region, kTableRegionsMax> fresh;
  for (std::size_t i = 0; i < places.size(); ++i) {
    TRY_LET(Region region, check(kRequest, i, places[i], files.take(i)));
    TRY(insert(kRequest, fresh, i, std::move(region)));
  }
  const auto same = [](const Region& left, const Region& right) { return left.same_as(right); };
  if (count_ == places.size() &&
      std::equal(regions_.begin(), regions_.begin() + static_cast<std::ptrdiff_t>(count_),
                 fresh.begin(), same)) {
    return {};
  }
  for (std::size_t i = places.size(); i < count_; ++i) regions_[i] = Region{};
  count_ = places.size();
  std::move(fresh.begin(), fresh.begin() + static_cast<std::ptrdiff_t>(count_), regions_.begin());
  ++generation_;
  return {};
}

Outcome<void> MemoryTable::add(const MemoryRegion& place, common::Fd file) noexcept {
  constexpr auto kRequest = Request::kAddMemReg;
  TRY_LET(Region region, check(kRequest, 0, place, std::move(file)));
  const auto end = regions_.begin() + static_cast<std::ptrdiff_t>(count_);
  const auto there =
      std::find_if(regions_.begin(), end, [&](const Region& each) { return each.same_as(region); });
  if (there != end) {
    if (there->uses < UINT32_MAX) ++there->uses;
    return {};
  }
  if (count_ == regions_.size()) {
    return violation(EventCode::kRegionTooMany, number(kRequest), count_ + 1);
  }
  TRY(insert(kRequest, regions_, count_, std::move(region)));
  ++count_;
  ++generation_;
  return {};
}

Outcome<void> MemoryTable::remove(const MemoryRegion& place) noexcept {
  const auto end = regions_.begin() + static_cast<std::ptrdiff_t>(count_);
  const auto at = std::find_if(regions_.begin(), end, [&](const Region& there) {
    return there.place.guest_addr == place.guest_addr && there.place.vmm_addr == place.vmm_addr &&
           there.place.bytes == place.bytes;
  });
  if (at == end) {
    return violation(EventCode::kRegionNotFound, number(Request::kRemMemReg), place.guest_addr,
                     place.bytes);
  }
  if (--at->uses > 0) return {};
  std::move(at + 1, end, at);
  *(end - 1) = Region{};
  --count_;
  ++generation_;
  return {};
}

std::optional<common::GuestAddr> MemoryTable::translate(common::VmmAddr addr,
                                                        std::uint64_t bytes) const noexcept {
  for (const Region& region : regions()) {
    if (addr.value < region.place.vmm_addr) continue;
    const std::uint64_t offset = addr.value - region.place.vmm_addr;
    if (range_within(offset, bytes, region.place.bytes)) {
      return common::GuestAddr{region.place.guest_addr + offset};
    }
  }
  return std::nullopt;
}

}  // namespace session
