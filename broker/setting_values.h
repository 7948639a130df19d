// broker/setting_values.h: reads the values of settings: numbers, switches and names, each within
// its limits. An error continues "--option …".
#pragma once

#include <charconv>
#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "broker/config.h"

namespace broker {

// "must be WHAT, not 'VALUE'".
[[nodiscard]] std::unexpected<std::string> must_be(std::string_view what, std::string_view value);

template <typename T>
[[nodiscard]] std::optional<T> parse_number(std::string_view text, int base = 10) {
  T number = 0;
  const char* end = text.data() + text.size();
  const auto result = std::from_chars(text.data(), end, number, base);
  if (text.empty() || result.ec != std::errc() || result.ptr != end) return std::nullopt;
  return number;
}

template <typename T>
[[nodiscard]] Answer<T> number_within(std::string_view text, T least, T most) {
  const std::optional<T> number = parse_number<T>(text);
  if (number && *number >= least && *number <= most) return *number;
  return must_be("a number from " + std::to_string(least) + " to " + std::to_string(most), text);
}

// "a,b,c" in its parts; an empty part is one, too.
[[nodiscard]] std::vector<std::string_view> split_at_commas(std::string_view text);

[[nodiscard]] Answer<bool> parse_switch(std::string_view text);
[[nodiscard]] Answer<std::string> text_within(std::string_view text, std::size_t bytes_max);

// "52:54:00:12:34:56": one card's, so neither a group's nor nobody's.
[[nodiscard]] Answer<MacAddress> parse_mac(std::string_view text);
[[nodiscard]] std::string mac_text(const MacAddress& mac);

// "6ba7b810-9dad-11d1-80b4-00c04fd430c8", in lower case.
[[nodiscard]] Answer<std::string> parse_uuid(std::string_view text);

// As the kernel lets an interface be called (dev_valid_name), and no pattern for it to complete.
[[nodiscard]] Answer<std::string> parse_interface_name(std::string_view text);

// Inherited descriptors: none of them what messages are written to, and each once.
[[nodiscard]] Answer<int> parse_descriptor(std::string_view text);
[[nodiscard]] Answer<std::vector<int>> parse_descriptors(std::string_view text,
                                                         std::size_t count_max);

}  // namespace broker
