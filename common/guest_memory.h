// common/guest_memory.h: the only door to memory that the guest can change under us.
//
// Invariant: no pointer or reference to guest memory leaves this file, except as an iovec for the
// kernel. Code that wants to look at guest bytes gets a copy, taken once, and decides on the copy.
// Not trusted: every byte behind the door, at every moment; the guest's other CPUs run while we do.
#pragma once

#include <sys/uio.h>

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>
#include <type_traits>

#include "common/addresses.h"
#include "common/checked.h"
#include "common/verify.h"

namespace common {

template <typename T>
concept GuestWire = std::is_trivially_copyable_v<T> && std::has_unique_object_representations_v<T>;

// One mapped piece of guest-physical memory. `host` stays mapped as long as the region is used.
struct GuestRegion {
  GuestAddr start;
  std::uint64_t bytes = 0;
  std::byte* host = nullptr;
};

// A stretch of guest memory that is contiguous for us and was checked once: a descriptor table, an
// avail ring, a used ring. Offsets are our own arithmetic, so one outside is our bug and traps.
class GuestWindow {
 public:
  GuestWindow() noexcept = default;
  GuestWindow(std::byte* host, std::uint64_t bytes) noexcept : host_(host), bytes_(bytes) {}

  // Acquire: what the guest wrote before it stored this index is visible to our later reads.
  [[nodiscard]] std::uint16_t load16_acquire(std::uint64_t offset) const noexcept {
    return __atomic_load_n(index_at(offset), __ATOMIC_ACQUIRE);
  }
  [[nodiscard]] std::uint16_t load16(std::uint64_t offset) const noexcept {
    return __atomic_load_n(index_at(offset), __ATOMIC_RELAXED);
  }
  // Two fields that stand side by side, as they were at one moment.
  [[nodiscard]] std::uint32_t load32(std::uint64_t offset) const noexcept {
    verify(range_within<std::uint64_t>(offset, sizeof(std::uint32_t), bytes_));
    return __atomic_load_n(reinterpret_cast<std::uint32_t*>(host_ + offset), __ATOMIC_RELAXED);
  }
  // Release: what we wrote before (used elements, status bytes) is visible to a guest that sees it.
  void store16_release(std::uint64_t offset, std::uint16_t value) noexcept {
    __atomic_store_n(index_at(offset), value, __ATOMIC_RELEASE);
  }

  // One fetch, like GuestMemory::copy_in().
  template <GuestWire T>
  [[nodiscard]] T load(std::uint64_t offset) const noexcept {
    verify(range_within<std::uint64_t>(offset, sizeof(T), bytes_));
    T copy;
    std::memcpy(&copy, host_ + offset, sizeof(T));
    asm volatile("" ::: "memory");
    return copy;
  }
  template <GuestWire T>
  void store(std::uint64_t offset, const T& value) noexcept {
    verify(range_within<std::uint64_t>(offset, sizeof(T), bytes_));
    std::memcpy(host_ + offset, &value, sizeof(T));
  }

  [[nodiscard]] std::uint64_t bytes() const noexcept { return bytes_; }

 private:
  [[nodiscard]] std::uint16_t* index_at(std::uint64_t offset) const noexcept {
    verify(range_within<std::uint64_t>(offset, sizeof(std::uint16_t), bytes_));
    return reinterpret_cast<std::uint16_t*>(host_ + offset);
  }

  std::byte* host_ = nullptr;
  std::uint64_t bytes_ = 0;
};

// Little-endian hosts only for the index accesses above; other hosts need a swap there.
static_assert(std::endian::native == std::endian::little);

class GuestMemory {
 public:
  GuestMemory() noexcept = default;
  // `regions` are sorted by start, do not overlap, and outlive this object; guest_map.cpp and the
  // session's memory table have checked them.
  explicit GuestMemory(std::span<const GuestRegion> regions) noexcept : regions_(regions) {}

  // The longest host range that starts at `addr` and is at most `want` bytes. Shorter than `want`
  // where two regions meet (they may touch in guest space and still be apart in ours); empty
  // (iov_len == 0) where nothing is mapped.
  [[nodiscard]] iovec translate(GuestAddr addr, std::uint64_t want) const noexcept {
    const GuestRegion* const region = find(addr);
    if (region == nullptr) return {nullptr, 0};
    const std::uint64_t offset = addr.value - region->start.value;
    const std::uint64_t rest = region->bytes - offset;
    return {region->host + offset, want < rest ? want : rest};
  }

  [[nodiscard]] std::span<const GuestRegion> regions() const noexcept { return regions_; }

  // The way back: what of the `bytes` bytes at `host`, which an iovec of ours names, lies in one
  // region, and where in the guest. Nothing where `host` is no guest memory.
  struct Place {
    GuestAddr start;
    std::uint64_t bytes = 0;
  };
  [[nodiscard]] std::optional<Place> place_of(const std::byte* host,
                                              std::uint64_t bytes) const noexcept;

  // One fetch. The compiler barrier stops the optimiser from going back to guest memory later for a
  // value it has already been given. Nothing if any byte is unmapped.
  template <GuestWire T>
  [[nodiscard]] std::optional<T> copy_in(GuestAddr addr) const noexcept {
    T copy;
    if (!copy_bytes(addr, std::as_writable_bytes(std::span(&copy, 1)))) return std::nullopt;
    asm volatile("" ::: "memory");
    return copy;
  }

  // All of [addr, addr + bytes) as one contiguous window, or nothing where it is not mapped in one
  // piece. `alignment` is that of the guest address and of our own mapping of it.
  [[nodiscard]] std::optional<GuestWindow> window(GuestAddr addr, std::uint64_t bytes,
                                                  std::uint64_t alignment) const noexcept;

  // Copies between our memory and buffers that translate() has checked. The bytes come from the
  // guest; `from` and `to` never overlap. Returns how many bytes were copied: the smaller of both.
  static std::size_t gather(std::span<const iovec> from, std::span<std::byte> to) noexcept;
  static std::size_t scatter(std::span<const std::byte> from, std::span<const iovec> to) noexcept;

  // gather() and scatter() of something small, without a call where it lies in one piece.
  template <GuestWire T>
  [[nodiscard]] static bool gather_one(std::span<const iovec> from, T& copy) noexcept {
    if (!from.empty() && from.front().iov_len >= sizeof(T)) [[likely]] {
      std::memcpy(&copy, from.front().iov_base, sizeof(T));
      asm volatile("" ::: "memory");
      return true;
    }
    return gather(from, std::as_writable_bytes(std::span(&copy, 1))) == sizeof(T);
  }
  // scatter() of something small to `offset` of one segment. False where it does not hold it whole.
  template <GuestWire T>
  [[nodiscard]] static bool store_at(const iovec& to, std::size_t offset, const T& value) noexcept {
    if (!range_within<std::size_t>(offset, sizeof(T), to.iov_len)) return false;
    std::memcpy(static_cast<std::byte*>(to.iov_base) + offset, &value, sizeof(T));
    return true;
  }
  static void store_byte(const iovec& to, std::byte value) noexcept {
    verify(to.iov_len == 1);
    std::memcpy(to.iov_base, &value, 1);
  }

 private:
  [[nodiscard]] bool copy_bytes(GuestAddr from, std::span<std::byte> to) const noexcept;
  [[nodiscard]] const GuestRegion* find(GuestAddr addr) const noexcept {
    if (last_hit_ < regions_.size()) [[likely]] {
      const GuestRegion& region = regions_[last_hit_];
      // Below its start the difference wraps to more than any region has.
      if (addr.value - region.start.value < region.bytes) [[likely]]
        return &region;
    }
    return search(addr);
  }
  [[nodiscard]] const GuestRegion* search(GuestAddr addr) const noexcept;

  std::span<const GuestRegion> regions_;
  mutable std::size_t last_hit_ = 0;  // Guests have few regions and use one of them most.
};

}  // namespace common
