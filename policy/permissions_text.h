// policy/permissions_text.h: a permission table in words, a line for each row: what reviewers diff.
#pragma once

#include <span>
#include <string>

#include "policy/profile.h"

namespace policy {

// How many different system calls a profile allows, and of how many every row limits an argument.
struct PermissionCount {
  std::size_t calls = 0;
  std::size_t calls_with_limits = 0;
  std::size_t opcodes = 0;
};
[[nodiscard]] PermissionCount count_permissions(const Profile& profile);

// "arg0 = 5, arg2 <= 1024", or "any arguments".
[[nodiscard]] std::string limits_text(const SyscallRule& rule);

// "READ", or its number where this program does not know it.
[[nodiscard]] std::string opcode_name(std::uint8_t opcode);

// All of them, with what each may and must never do: policy/permissions.txt is this text.
[[nodiscard]] std::string permissions_text(std::span<const Profile* const> profiles);

}  // namespace policy
