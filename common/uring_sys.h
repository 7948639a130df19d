// common/uring_sys.h: io_uring's three system calls, and the constants that are newer than the
// headers of Debian 12 (kernel 6.1). Raw, since a worker may link no library for two calls.
#pragma once

#include <linux/io_uring.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>

namespace common::uring {

inline constexpr std::uint32_t kSetupNoSqArray = 1U << 16;  // 6.6
inline constexpr std::uint32_t kRegisterSendMsgRing = 31;   // 6.13

// Each returns what the kernel does: >= 0, or -1 with errno.
[[nodiscard]] inline int setup(std::uint32_t entries, io_uring_params* params) noexcept {
  return static_cast<int>(::syscall(SYS_io_uring_setup, entries, params));
}
[[nodiscard]] inline int reg(int fd, std::uint32_t opcode, const void* argument,
                             std::uint32_t count) noexcept {
  return static_cast<int>(::syscall(SYS_io_uring_register, fd, opcode, argument, count));
}
[[nodiscard]] inline int enter(int fd, std::uint32_t submit, std::uint32_t wait,
                               std::uint32_t flags, const void* argument,
                               std::size_t argument_bytes) noexcept {
  return static_cast<int>(
      ::syscall(SYS_io_uring_enter, fd, submit, wait, flags, argument, argument_bytes));
}

}  // namespace common::uring
