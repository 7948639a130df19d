// common/endian.h: integers as virtio 1.x and vhost-user lay them out, whatever the host is.
#pragma once

#include <bit>
#include <concepts>
#include <cstdint>
#include <type_traits>

namespace common {

template <std::unsigned_integral T>
class Le {
 public:
  Le() = default;
  constexpr explicit Le(T host) noexcept : wire_(swap(host)) {}
  [[nodiscard]] constexpr T get() const noexcept { return swap(wire_); }
  friend constexpr bool operator==(const Le&, const Le&) = default;

 private:
  static constexpr T swap(T value) noexcept {
    if constexpr (std::endian::native == std::endian::big) return std::byteswap(value);
    return value;
  }
  T wire_;
};

using Le16 = Le<std::uint16_t>;
using Le32 = Le<std::uint32_t>;
using Le64 = Le<std::uint64_t>;

static_assert(sizeof(Le16) == 2 && sizeof(Le32) == 4 && sizeof(Le64) == 8);
static_assert(std::is_trivially_copyable_v<Le64>);
static_assert(std::has_unique_object_representations_v<Le64>);

}  // namespace common
