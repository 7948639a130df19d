// common/single_writer.h: counters that one thread writes and others read.
#pragma once

#include <atomic>
#include <cstdint>

namespace common {

// No locked instruction, and not the three that a compiler makes of a load and a store either:
// these are on the data path, several times for each request.
inline void add_alone(std::atomic<std::uint64_t>& counter, std::uint64_t amount) noexcept {
#if defined(__x86_64__)
  static_assert(sizeof(counter) == sizeof(std::uint64_t));
  asm("addq %1, %0" : "+m"(reinterpret_cast<std::uint64_t&>(counter)) : "er"(amount) : "cc");
#else
  counter.store(counter.load(std::memory_order_relaxed) + amount, std::memory_order_relaxed);
#endif
}

}  // namespace common
