// broker/control/json.h: writes JSON (RFC 8259), and reads none.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace broker::control {

// Each line of output is one object that begins with "schema".
inline constexpr std::string_view kJsonSchema = "bulkhead/1";

class Json {
 public:
  // An object with the schema and what it is the answer to.
  explicit Json(std::string_view command);

  Json& text(std::string_view key, std::string_view value);
  Json& number(std::string_view key, std::uint64_t value);
  Json& real(std::string_view key, double value);
  Json& seconds(std::string_view key, std::uint64_t nanoseconds);  // To the nanosecond.
  Json& flag(std::string_view key, bool value);
  // Until end(). An empty key: an element of an array.
  Json& object(std::string_view key = {});
  Json& array(std::string_view key);
  // An array of what stands between line feeds.
  Json& lines(std::string_view key, std::string_view text);
  Json& end();
  // All that is open ends, with a line feed.
  [[nodiscard]] std::string finish();

 private:
  void begin(std::string_view key);
  void quoted(std::string_view text);

  std::string out_;
  std::string open_;  // What ends what is open, innermost last.
  bool first_ = true;
};

}  // namespace broker::control
