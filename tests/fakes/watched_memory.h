// tests/fakes/watched_memory.h: counts every access to a page of guest memory, and can change it
// right after the first: what a guest's other CPU would do, at the worst moment, every time.
//
// The page is made inaccessible; each access faults, is let through for one instruction (the CPU's
// trap flag), counted, and locked again. x86-64, one watch at a time, one thread.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>

namespace fakes {

class WatchedMemory {
 public:
  static constexpr bool kSupported =
#if defined(__x86_64__)
      true;
#else
      false;
#endif
  static constexpr std::size_t kPageBytes = 4096;

  // `page` is page-aligned and one page long. `after_access` runs after each access, while the page
  // is writable and not watched.
  explicit WatchedMemory(std::span<std::byte> page,
                         std::function<void(std::size_t offset)> after_access = {});
  WatchedMemory(const WatchedMemory&) = delete;
  WatchedMemory& operator=(const WatchedMemory&) = delete;
  ~WatchedMemory();

  // How often an access began at this offset.
  [[nodiscard]] std::uint32_t accesses(std::size_t offset) const { return counts_.at(offset); }
  // The most often any one offset was accessed.
  [[nodiscard]] std::uint32_t most() const;
  [[nodiscard]] std::uint32_t total() const;

  // How many accesses one copy out of this page makes: the C library's own memcpy() may read some
  // bytes twice within the same copy.
  [[nodiscard]] static std::uint32_t accesses_of(std::span<std::byte> page,
                                                 const std::function<void()>& copy);

  // For the signal handlers.
  [[nodiscard]] bool begin_access(std::uintptr_t address);
  void end_access();

 private:
  void protect(bool locked);

  std::span<std::byte> page_;
  std::function<void(std::size_t)> after_access_;
  std::array<std::uint32_t, kPageBytes> counts_{};
  std::size_t last_ = 0;
};

}  // namespace fakes
