// worker/bounce.h: aligned buffers for an O_DIRECT disk and guest buffers that are not aligned.
//
// A few, of fixed size, touched only when a guest needs one. A request that finds none free waits
// its turn; whoever gives one back serves the longest waiting.
#pragma once

#include <sys/uio.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>

#include "worker/slots.h"

namespace worker {

class BouncePool {
 public:
  static constexpr std::uint32_t kBuffers = 4;
  static constexpr std::uint32_t kBufferBytes = 128U << 10;

  // For a disk that is not direct: none at all. `alignment` is a power of two.
  BouncePool(bool needed, std::uint64_t alignment);

  [[nodiscard]] bool any() const noexcept { return free_.any(); }
  [[nodiscard]] std::uint32_t take() noexcept { return free_.take(); }
  void put(std::uint32_t buffer) noexcept { free_.put(buffer); }

  [[nodiscard]] std::span<std::byte> bytes(std::uint32_t buffer) noexcept;
  // The first `count` bytes of it as the one segment of a read or write; stays put until the next
  // call.
  [[nodiscard]] std::span<const iovec> segment(std::uint32_t buffer, std::uint32_t count) noexcept;

 private:
  struct Free {
    void operator()(std::byte* memory) const noexcept;
  };
  std::unique_ptr<std::byte[], Free> memory_;
  std::array<iovec, kBuffers> segments_{};
  FreeList free_;
};

}  // namespace worker
