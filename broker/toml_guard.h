// broker/toml_guard.h: what toml++ 3.3 takes for granted about a file, checked before it reads it:
// that everything outside strings and comments is ASCII, that a name follows '[' where a table
// begins, that a quote begins a key or a value and stands nowhere else, and that only ASCII follows
// a backslash in a text of several lines. Where that does not hold it aborts, or worse without its
// assertions. (tests/fuzz/configuration_fuzz.cpp found the last two.)
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
