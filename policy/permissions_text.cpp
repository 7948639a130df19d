#include "policy/permissions_text.h"

#include <linux/io_uring.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <map>
#include <string_view>

#include "policy/seccomp.h"

namespace policy {
namespace {

struct OpcodeName {
  std::uint8_t opcode;
  std::string_view name;
};
constexpr OpcodeName kOpcodeNames[] = {
    {IORING_OP_NOP, "NOP"},
    {IORING_OP_READV, "READV"},
    {IORING_OP_WRITEV, "WRITEV"},
    {IORING_OP_FSYNC, "FSYNC"},
    {IORING_OP_POLL_ADD, "POLL_ADD"},
    {IORING_OP_POLL_REMOVE, "POLL_REMOVE"},
    {IORING_OP_TIMEOUT, "TIMEOUT"},
    {IORING_OP_ASYNC_CANCEL, "ASYNC_CANCEL"},
    {IORING_OP_FALLOCATE, "FALLOCATE"},
    {IORING_OP_READ, "READ"},
    {IORING_OP_WRITE, "WRITE"},
};

std::string hex(std::uint64_t value) {
  std::array<char, 24> text{};
  std::snprintf(text.data(), text.size(), "0x%llx", static_cast<unsigned long long>(value));
  return text.data();
}

std::string limit_text(const ArgLimit& limit) {
  const std::string argument = "arg" + std::to_string(limit.index);
  switch (limit.test) {
    case ArgLimit::Test::kAny:
      return {};
    case ArgLimit::Test::kEquals:
      return argument + " = " + std::to_string(limit.value);
    case ArgLimit::Test::kMaskedEquals:
      if (limit.value == 0) return argument + " within " + hex(~limit.mask);
      return argument + " & " + hex(limit.mask) + " = " + hex(limit.value);
    case ArgLimit::Test::kAtMost:
      return argument + " <= " + std::to_string(limit.value);
  }
  return {};
}

bool has_limits(const SyscallRule& rule) {
  return std::any_of(rule.limits.begin(), rule.limits.end(),
                     [](const ArgLimit& limit) { return limit.test != ArgLimit::Test::kAny; });
}

std::string padded(std::string text, std::size_t width) {
  text.resize(std::max(width, text.size() + 1), ' ');
  return text;
}

std::string counted(std::size_t count, std::string_view what) {
  return std::to_string(count) + " " + std::string(what) + (count == 1 ? "" : "s");
}

std::string headline(const Profile& profile) {
  const PermissionCount count = count_permissions(profile);
  std::string text(profile.name);
  text += ": " + counted(count.calls, "system call") + ", " +
          std::to_string(count.calls_with_limits) + " with checked arguments";
  if (count.opcodes != 0) text += ", " + counted(count.opcodes, "ring operation");
  if (profile.otherwise == Profile::Otherwise::kRefuse) {
    return text + "; others fail with EPERM and are logged\n";
  }
  return text + ", " + counted(profile.descriptors.size(), "descriptor") + " when sealed\n";
}

std::string rows_text(std::string_view kind, std::span<const SyscallRule> rules) {
  constexpr std::size_t kNameWidth = 18;
  constexpr std::size_t kLimitsWidth = 48;
  std::string text;
  for (const SyscallRule& rule : rules) {
    text += "  " + padded(std::string(kind), 4) + padded(syscall_name(rule.number), kNameWidth) +
            padded(limits_text(rule), kLimitsWidth) + std::string(rule.needed_by) + "\n";
  }
  return text;
}

std::string profile_text(const Profile& profile) {
  constexpr std::size_t kNameWidth = 18;
  std::string text = headline(profile);
  text += "  may: " + std::string(profile.may) + "\n";
  text += "  must never: " + std::string(profile.must_never) + "\n";
  text += rows_text("call", profile.syscalls);
  text += rows_text("rare", profile.by_chance);
  for (const int number : profile.not_there) {
    text += "  none " + padded(syscall_name(number), kNameWidth) + "fails with ENOSYS\n";
  }
  for (const std::uint8_t opcode : profile.uring_opcodes) {
    text += "  ring " + padded(opcode_name(opcode), kNameWidth) + "registered files only\n";
  }
  for (const int number : profile.descriptors) text += "  fd   " + std::to_string(number) + "\n";
  return text;
}

}  // namespace

PermissionCount count_permissions(const Profile& profile) {
  std::map<int, bool> limited;  // Of each call: every row limits something.
  for (const std::span<const SyscallRule> rules : {profile.syscalls, profile.by_chance}) {
    for (const SyscallRule& rule : rules) {
      const auto [found, is_new] = limited.try_emplace(rule.number, true);
      found->second = found->second && has_limits(rule);
    }
  }
  PermissionCount count;
  count.calls = limited.size();
  count.calls_with_limits = static_cast<std::size_t>(
      std::count_if(limited.begin(), limited.end(), [](const auto& call) { return call.second; }));
  count.opcodes = profile.uring_opcodes.size();
  return count;
}

std::string limits_text(const SyscallRule& rule) {
  std::string text;
  for (const ArgLimit& limit : rule.limits) {
    const std::string one = limit_text(limit);
    if (!one.empty()) text += (text.empty() ? "" : ", ") + one;
  }
  return text.empty() ? "any arguments" : text;
}

std::string opcode_name(std::uint8_t opcode) {
  const auto* const found = std::find_if(std::begin(kOpcodeNames), std::end(kOpcodeNames),
                                         [&](const auto& known) { return known.opcode == opcode; });
  if (found != std::end(kOpcodeNames)) return std::string(found->name);
  return std::to_string(opcode);
}

std::string permissions_text(std::span<const Profile* const> profiles) {
  std::string text;
  for (const Profile* const profile : profiles) {
    if (!text.empty()) text += "\n";
    text += profile_text(*profile);
  }
  return text;
}

}  // namespace policy
