// broker/control/exposition.h: lines of Prometheus' text exposition format, 0.0.4.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "broker/text.h"

namespace broker::control {

// Names of devices have no character that would need an escape; other text may.
[[nodiscard]] inline std::string label_text(std::string_view text) {
  std::string escaped;
  for (const char character : clean_text(text)) {
    if (character == '"' || character == '\\') escaped += '\\';
    escaped += character;
  }
  return escaped;
}

[[nodiscard]] inline std::string head(std::string_view name, std::string_view help,
                                      std::string_view type) {
  return "# HELP " + std::string(name) + " " + std::string(help) + "\n# TYPE " + std::string(name) +
         " " + std::string(type) + "\n";
}

[[nodiscard]] inline std::string sample(std::string_view name, std::string_view labels,
                                        std::string_view value) {
  std::string text(name);
  if (!labels.empty()) text.append("{").append(labels).append("}");
  return text.append(" ").append(value).append("\n");
}
[[nodiscard]] inline std::string sample(std::string_view name, std::string_view labels,
                                        std::uint64_t value) {
  return sample(name, labels, std::to_string(value));
}

inline constexpr std::uint64_t kNanosecondsPerSecond = 1'000'000'000;

// A number of units, of which `per_second` make a second (a power of ten), in seconds: exact.
[[nodiscard]] inline std::string seconds_text(std::uint64_t units, std::uint64_t per_second) {
  const std::string text = std::to_string(units / per_second);
  std::string rest = std::to_string(per_second + units % per_second).substr(1);
  while (!rest.empty() && rest.back() == '0') rest.pop_back();
  return rest.empty() ? text : text + "." + rest;
}

}  // namespace broker::control
