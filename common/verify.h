// common/verify.h: the answer to our own bugs. Compiled into every build.
#pragma once

namespace common {

// For what must hold whatever a guest or a VMM does. Never for input: a guest must not be able to
// reach it. Traps instead of calling abort(): a sealed process may not send itself a signal, and an
// illegal instruction needs no system call.
constexpr void verify(bool condition) noexcept {
  if (!condition) [[unlikely]]
    __builtin_trap();
}

}  // namespace common
