// broker/control/wire.h: between the fixed rooms of messages and what the rest of the program uses.
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "broker/control/messages.h"

namespace broker::control {

// A whole packet as a T; nothing unless kind, version and size are exactly those of T.
template <Message T>
[[nodiscard]] std::optional<T> as(std::span<const std::byte> packet) noexcept {
  if (packet.size() != sizeof(T)) return std::nullopt;
  T copy;
  std::memcpy(&copy, packet.data(), sizeof(T));
  if (copy.kind != T::kKind || copy.version != kVersion) return std::nullopt;
  return copy;
}

// Nothing where anything but zeros follows the first zero.
template <std::size_t N>
[[nodiscard]] std::optional<std::string> text_of(const Text<N>& room) {
  const auto end = std::find(room.begin(), room.end(), '\0');
  if (std::any_of(end, room.end(), [](char character) { return character != '\0'; })) {
    return std::nullopt;
  }
  return std::string(room.begin(), end);
}

// What does not fit is cut off.
template <std::size_t N>
void put_text(Text<N>& room, std::string_view text) noexcept {
  room.fill('\0');
  std::copy_n(text.begin(), std::min(text.size(), N), room.begin());
}

[[nodiscard]] inline std::array<std::uint32_t, common::kLayerCount> layer_bits(
    const common::LayerResults& layers) noexcept {
  std::array<std::uint32_t, common::kLayerCount> bits{};
  for (std::size_t i = 0; i < bits.size(); ++i) bits[i] = std::bit_cast<std::uint32_t>(layers[i]);
  return bits;
}

[[nodiscard]] inline common::LayerResults layers_of(
    const std::array<std::uint32_t, common::kLayerCount>& bits) noexcept {
  common::LayerResults layers{};
  for (std::size_t i = 0; i < bits.size(); ++i) {
    layers[i] = std::bit_cast<common::LayerResult>(bits[i]);
  }
  return layers;
}

[[nodiscard]] Told told(Outcome outcome, std::string_view text = {}) noexcept;

}  // namespace broker::control
