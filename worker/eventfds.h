// worker/eventfds.h: kick, call and stop for the engines without io_uring: one ppoll() over what
// may wake a worker, and the reads and writes that belong to it.
//
// Trusts: the broker and the kernel; kick and call are the VMM's, and all they carry is "now".
#pragma once

#include <poll.h>

#include <array>
#include <cstddef>
#include <cstdint>

#include "common/fd.h"

namespace worker {

class Eventfds {
 public:
  // All stay open as long as this is used.
  struct Parts {
    common::FdRef stop;  // Readable: stop.
    common::FdRef kick;  // Invalid: the front-end wants its ring polled.
    common::FdRef call;  // Invalid: no interrupts.
  };
  // `device` (its fd may be -1) is polled with them.
  Eventfds(const Parts& parts, pollfd device) noexcept;

  void watch_device(common::FdRef device) noexcept { polled_[kDevice].fd = device.number; }
  // True where something is ready, which take_news() tells; `sleep`: waits for it, but no longer
  // than `sleep_us_max`; where that is 0, without a kick eventfd not longer than it takes to look
  // at the avail ring again.
  [[nodiscard]] bool poll(bool sleep, std::uint32_t sleep_us_max = 0) noexcept;

  struct News {
    bool kicked = false;
    bool device_ready = false;
  };
  // After poll(). Consumes kick and stop, not the device's readiness.
  [[nodiscard]] News take_news() noexcept;
  [[nodiscard]] bool stopping() const noexcept { return stopping_; }

  // Interrupts the guest; never waits.
  void ring_call() noexcept;
  void drain(common::FdRef eventfd) noexcept;

  [[nodiscard]] std::uint64_t system_calls() const noexcept { return system_calls_; }

 private:
  enum Place : std::size_t { kStop = 0, kKick = 1, kDevice = 2 };

  [[nodiscard]] bool call_has_room() noexcept;

  Parts parts_;
  std::array<pollfd, 3> polled_{};
  bool call_blocks_ = false;
  bool stopping_ = false;
  std::uint64_t system_calls_ = 0;
};

}  // namespace worker
