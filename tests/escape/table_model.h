// tests/escape/table_model.h: what a table of policy/ says, read as its page does and without
// libseccomp: the model that filters and processes are compared with.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <span>

#include "policy/profile.h"

namespace escape {

using Arguments = std::array<std::uint64_t, 6>;

inline bool fits(const policy::ArgLimit& limit, const Arguments& arguments) {
  using Test = policy::ArgLimit::Test;
  const std::uint64_t value = arguments[limit.index];
  switch (limit.test) {
    case Test::kAny:
      return true;
    case Test::kEquals:
      return value == limit.value;
    case Test::kMaskedEquals:
      return (value & limit.mask) == limit.value;
    case Test::kAtMost:
      return value <= limit.value;
  }
  return false;
}

inline bool allows(std::span<const policy::SyscallRule> rules, int number,
                   const Arguments& arguments) {
  return std::any_of(rules.begin(), rules.end(), [&](const policy::SyscallRule& rule) {
    return rule.number == number &&
           std::all_of(rule.limits.begin(), rule.limits.end(),
                       [&](const policy::ArgLimit& limit) { return fits(limit, arguments); });
  });
}

}  // namespace escape
