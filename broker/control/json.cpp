#include "broker/control/json.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>

#include "broker/control/exposition.h"
#include "broker/text.h"

namespace broker::control {

Json::Json(std::string_view command) {
  object();
  text("schema", kJsonSchema);
  text("command", command);
}

void Json::begin(std::string_view key) {
  if (!first_) out_ += ',';
  first_ = false;
  if (key.empty()) return;
  quoted(key);
  out_ += ':';
}

// Clean text is UTF-8 without control characters, so two characters are left to escape.
void Json::quoted(std::string_view text) {
  out_ += '"';
  for (const char character : clean_text(text)) {
    if (character == '"' || character == '\\') out_ += '\\';
    out_ += character;
  }
  out_ += '"';
}

Json& Json::text(std::string_view key, std::string_view value) {
  begin(key);
  quoted(value);
  return *this;
}

Json& Json::number(std::string_view key, std::uint64_t value) {
  begin(key);
  out_ += std::to_string(value);
  return *this;
}

Json& Json::real(std::string_view key, double value) {
  begin(key);
  std::array<char, 64> digits{};
  std::snprintf(digits.data(), digits.size(), "%.3f", std::isfinite(value) ? value : 0);
  out_ += digits.data();
  return *this;
}

Json& Json::seconds(std::string_view key, std::uint64_t nanoseconds) {
  begin(key);
  out_ += seconds_text(nanoseconds, kNanosecondsPerSecond);
  return *this;
}

Json& Json::flag(std::string_view key, bool value) {
  begin(key);
  out_ += value ? "true" : "false";
  return *this;
}

Json& Json::object(std::string_view key) {
  begin(key);
  out_ += '{';
  open_ += '}';
  first_ = true;
  return *this;
}

Json& Json::array(std::string_view key) {
  begin(key);
  out_ += '[';
  open_ += ']';
  first_ = true;
  return *this;
}

Json& Json::lines(std::string_view key, std::string_view text) {
  array(key);
  while (!text.empty()) {
    const std::size_t length = std::min(text.find('\n'), text.size());
    begin({});
    quoted(text.substr(0, length));
    text.remove_prefix(std::min(length + 1, text.size()));
  }
  return end();
}

Json& Json::end() {
  out_ += open_.back();
  open_.pop_back();
  first_ = false;
  return *this;
}

std::string Json::finish() {
  while (!open_.empty()) end();
  return out_ + "\n";
}

}  // namespace broker::control
