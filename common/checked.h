// common/checked.h: arithmetic on numbers that a guest or a VMM sent.
#pragma once

#include <concepts>
#include <cstdint>
#include <optional>

namespace common {

template <std::unsigned_integral T>
[[nodiscard]] constexpr std::optional<T> checked_add(T left, T right) noexcept {
  T sum = 0;
  if (__builtin_add_overflow(left, right, &sum)) return std::nullopt;
  return sum;
}

template <std::unsigned_integral T>
[[nodiscard]] constexpr std::optional<T> checked_mul(T left, T right) noexcept {
  T product = 0;
  if (__builtin_mul_overflow(left, right, &product)) return std::nullopt;
  return product;
}

// True if [start, start + length) does not wrap and ends at or before `limit`.
template <std::unsigned_integral T>
[[nodiscard]] constexpr bool range_within(T start, T length, T limit) noexcept {
  return start <= limit && length <= limit - start;
}

[[nodiscard]] constexpr bool is_power_of_two(std::uint64_t value) noexcept {
  return value != 0 && (value & (value - 1)) == 0;
}

// `alignment` is a power of two.
[[nodiscard]] constexpr std::uint64_t round_down(std::uint64_t value,
                                                 std::uint64_t alignment) noexcept {
  return value & ~(alignment - 1);
}

}  // namespace common
