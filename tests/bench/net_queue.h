// tests/bench/net_queue.h: one virtqueue of a network card under load: buffers that are laid out
// once and offered again and again, so that the client is not what is measured.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "common/fd.h"
#include "tests/fakes/split_driver.h"
#include "tests/fakes/vm_memory.h"

namespace bench {

struct NetShape {
  std::uint16_t size = 256;  // Of the ring; as many buffers, one descriptor each.
  std::uint32_t buffer_bytes = 2048;
  bool receive = false;
  bool event_idx = true;
};

class NetQueue {
 public:
  [[nodiscard]] static std::uint64_t bytes_needed(const NetShape& shape) noexcept;
  NetQueue(const NetShape& shape, const fakes::VmMemory& memory, std::uint64_t guest_addr);

  [[nodiscard]] const fakes::RingPlace& place() const noexcept { return place_; }
  [[nodiscard]] common::FdRef kick_fd() const noexcept { return kick_.ref(); }
  [[nodiscard]] common::FdRef call_fd() const noexcept { return call_.ref(); }
  [[nodiscard]] std::span<std::byte> buffer(std::uint16_t index) const;

  // What the device is told of a buffer's length: all of it, unless this is called.
  void set_length(std::uint16_t index, std::uint32_t bytes) noexcept;
  void offer(std::uint16_t index) noexcept { driver_.offer(index); }
  // Shows what was offered; kicks where the device wants it.
  void publish();

  struct Used {
    std::uint16_t index = 0;
    std::uint32_t bytes = 0;
  };
  [[nodiscard]] std::optional<Used> take();

  // Sleeps until the device has something, or `deadline_ns` (CLOCK_MONOTONIC). Returns at once
  // where there is something already.
  void sleep_until(std::uint64_t deadline_ns);
  void never_interrupt() noexcept { driver_.disable_interrupts(); }

  [[nodiscard]] std::uint64_t kicks() const noexcept { return kicks_; }
  [[nodiscard]] std::uint64_t interrupts() const noexcept { return interrupts_; }

 private:
  NetShape shape_;
  const fakes::VmMemory& memory_;
  fakes::RingPlace place_;
  fakes::SplitDriver driver_;
  common::Fd kick_;
  common::Fd call_;
  std::uint64_t data_addr_ = 0;
  std::uint64_t kicks_ = 0;
  std::uint64_t interrupts_ = 0;
};

}  // namespace bench
