// broker/toml_guard.h: what toml++ 3.3 takes for granted about a file, checked before it reads it:
// that everything outside strings and comments is ASCII, and that a name follows '[' where a table
// begins. Where that does not hold it aborts, or worse without its assertions.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

namespace broker {

struct TomlObjection {
  std::size_t line = 1;
  std::size_t column = 1;  // In characters.
  std::string text;
};

// The first thing that toml++ must not see.
[[nodiscard]] std::optional<TomlObjection> find_toml_objection(std::string_view text);

}  // namespace broker
