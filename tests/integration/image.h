// tests/integration/image.h: disk images whose every sector can be told from every other.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace integration {

inline constexpr std::uint64_t kSector = 512;

// What sector `sector` of version `version` looks like; version 0 is a fresh image.
[[nodiscard]] std::vector<std::byte> pattern(std::uint64_t sector, std::uint64_t bytes,
                                             std::uint32_t version = 0);
[[nodiscard]] bool is_pattern(std::span<const std::byte> bytes, std::uint64_t sector,
                              std::uint32_t version = 0);
[[nodiscard]] bool is_zero(std::span<const std::byte> bytes);

void make_image(const std::string& path, std::uint64_t bytes);
[[nodiscard]] std::vector<std::byte> read_image(const std::string& path, std::uint64_t sector,
                                                std::uint64_t bytes);

}  // namespace integration
