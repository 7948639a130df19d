// worker/slots.h: fixed pools: everything a worker may have under way, made before it is sealed.
//
// A worker's private memory is counted in pages, so nothing here is touched before it is used, and
// what was used last is used next: a guest with a shallow queue costs as little as it uses.
#pragma once

#include <sys/uio.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>

#include "common/verify.h"

namespace worker {

// Which of `count` numbered things are free; last in, first out.
class FreeList {
 public:
  explicit FreeList(std::uint32_t count)
      : next_(std::make_unique_for_overwrite<std::uint32_t[]>(count)), count_(count) {}

  [[nodiscard]] bool any() const noexcept { return first_ != kNone || fresh_ < count_; }
  [[nodiscard]] std::uint32_t taken() const noexcept { return taken_; }

  // Only while any().
  [[nodiscard]] std::uint32_t take() noexcept {
    common::verify(any());
    ++taken_;
    if (first_ == kNone) return fresh_++;
    const std::uint32_t index = first_;
    first_ = next_[index];
    return index;
  }
  void put(std::uint32_t index) noexcept {
    common::verify(index < fresh_ && taken_ > 0);
    --taken_;
    next_[index] = first_;
    first_ = index;
  }

 private:
  static constexpr std::uint32_t kNone = UINT32_MAX;
  std::unique_ptr<std::uint32_t[]> next_;
  std::uint32_t count_;
  std::uint32_t first_ = kNone;
  std::uint32_t fresh_ = 0;  // From here on never taken yet.
  std::uint32_t taken_ = 0;
};

// Room for the segments of requests that have more than fit into their slot, in three sizes.
class SegmentPool {
 public:
  // Where a request's segments are. `room` is null where there are none of this pool.
  struct Lease {
    iovec* room;
    std::uint16_t shelf;
    std::uint16_t index;
  };

  // Small: 128 KiB in pages, the most Linux usually sends. Middle: our SEG_MAX and some. Large: as
  // much as a chain can have; so few of them that a guest which always sends such chains waits.
  static constexpr std::uint32_t kSmall = 40;
  static constexpr std::uint32_t kMiddle = 136;
  static constexpr std::uint32_t kMiddleCount = 64;
  static constexpr std::uint32_t kLargeCount = 16;

  SegmentPool(std::uint32_t small_count, std::uint32_t large_segments)
      : shelves_{Shelf(kSmall, small_count), Shelf(kMiddle, kMiddleCount),
                 Shelf(large_segments, kLargeCount)} {}

  // Room for at least `segments`. Nothing where all that is large enough is taken: then something
  // is under way and will give its room back.
  [[nodiscard]] std::optional<Lease> take(std::uint32_t segments) noexcept {
    for (std::uint16_t shelf = 0; shelf < kShelves; ++shelf) {
      Shelf& from = shelves_[shelf];
      if (segments > from.segments || !from.free.any()) continue;
      const std::uint32_t index = from.free.take();
      return Lease{&from.store[std::size_t{index} * from.segments], shelf,
                   static_cast<std::uint16_t>(index)};
    }
    return std::nullopt;
  }
  void put(const Lease& lease) noexcept { shelves_[lease.shelf].free.put(lease.index); }

 private:
  struct Shelf {
    Shelf(std::uint32_t segments_each, std::uint32_t count)
        : segments(segments_each),
          store(std::make_unique_for_overwrite<iovec[]>(std::size_t{segments_each} * count)),
          free(count) {}
    std::uint32_t segments;
    std::unique_ptr<iovec[]> store;
    FreeList free;
  };
  static constexpr std::uint16_t kShelves = 3;
  std::array<Shelf, kShelves> shelves_;
};

}  // namespace worker
