// tests/fakes/refused_calls.h: a host that refuses some system calls, as an older kernel, a
// container or a security module would: by a seccomp filter that a program has before it starts.
#pragma once

#include <linux/filter.h>

#include <cstdint>
#include <vector>

namespace fakes {

// `argument` below 0: whatever the arguments are. Else only where the low half of that one, masked,
// equals `value`.
struct RefusedCall {
  int number = -1;
  int os_errno = 0;
  int argument = -1;
  std::uint32_t mask = 0xffff'ffff;
  std::uint32_t value = 0;
};

// One that allows everything else. x86-64 only.
[[nodiscard]] std::vector<sock_filter> filter_that_refuses(const std::vector<RefusedCall>& calls);

// For between fork and exec: makes system calls and does nothing else. Needs CAP_SYS_ADMIN. No
// no_new_privs comes with it: the program is to take that on itself.
[[nodiscard]] bool install_filter(const std::vector<sock_filter>& filter) noexcept;

}  // namespace fakes
