// policy/profile.h: the shape of "what this process may do". Data only; the mechanism is in the
// .cpp files of this directory.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string_view>

namespace policy {

// Limits one system call argument, as the kernel's filter sees it: a 64-bit register, of which the
// whole is compared. Descriptors have fixed numbers in a sealed process, so a rule names the very
// descriptor and not just the call.
struct ArgLimit {
  enum class Test : std::uint8_t {
    kAny,           // No limit.
    kEquals,        // argument == value
    kMaskedEquals,  // (argument & mask) == value
    kAtMost,        // argument <= value
  };
  Test test = Test::kAny;
  std::uint8_t index = 0;
  std::uint64_t value = 0;
  std::uint64_t mask = 0;
};

[[nodiscard]] constexpr ArgLimit arg_is(std::uint8_t index, std::uint64_t value) noexcept {
  return {ArgLimit::Test::kEquals, index, value, 0};
}
// Every bit of the argument that is not in `allowed` must be zero.
[[nodiscard]] constexpr ArgLimit arg_within(std::uint8_t index, std::uint64_t allowed) noexcept {
  return {ArgLimit::Test::kMaskedEquals, index, 0, ~allowed};
}
// Every bit of `needed` must be set, and none that is in neither.
[[nodiscard]] constexpr ArgLimit arg_with(std::uint8_t index, std::uint64_t needed,
                                          std::uint64_t allowed) noexcept {
  return {ArgLimit::Test::kMaskedEquals, index, needed, ~allowed | needed};
}
[[nodiscard]] constexpr ArgLimit arg_at_most(std::uint8_t index, std::uint64_t value) noexcept {
  return {ArgLimit::Test::kAtMost, index, value, 0};
}

// ppoll without a signal mask: nobody may open a window for signals.
inline constexpr ArgLimit kNoSignalMask = arg_is(3, 0);
// exit_group: what wait() can tell, so that the broker reads it as it was meant.
inline constexpr ArgLimit kExitCode = arg_at_most(0, 255);

inline constexpr std::size_t kArgLimitsMax = 4;

// A system call may have several rows; it is allowed if one of them fits.
struct SyscallRule {
  int number;
  std::array<ArgLimit, kArgLimitsMax> limits;
  std::string_view needed_by;  // "file: function". tests/tidy checks that it still exists.
};

struct Profile {
  enum class Otherwise : std::uint8_t {
    kKill,    // The process is killed, and the kernel's audit log says so.
    kRefuse,  // The call fails with EPERM, and the log says so.
  };
  std::string_view name;
  std::string_view may;  // One sentence a reviewer can hold the table against.
  std::string_view must_never;
  std::span<const SyscallRule> syscalls;        // Anything else: `otherwise`.
  std::span<const std::uint8_t> uring_opcodes;  // seccomp cannot see these, so a list of their own.
  std::span<const int> descriptors;             // The whole fd table once sealed.
  Otherwise otherwise = Otherwise::kKill;
  std::span<const SyscallRule> by_chance{};  // Allowed too, but a whole run may do without.
  std::span<const int> not_there{};          // Fail with ENOSYS, and leave no record.
};

}  // namespace policy
