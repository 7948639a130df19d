// common/ticks.h: the CPU's time stamp counter: no system call, which a sealed worker could not
// make. The broker, which reads moments that workers wrote down, must look at the same one.
#pragma once

#include <cstdint>

namespace common {

[[nodiscard]] inline std::uint64_t read_ticks() noexcept {
#if defined(__x86_64__)
  return __builtin_ia32_rdtsc();
#elif defined(__aarch64__)
  std::uint64_t ticks = 0;
  asm volatile("mrs %0, cntvct_el0" : "=r"(ticks));
  return ticks;
#else
#error "No time stamp counter is known for this CPU."
#endif
}

}  // namespace common
