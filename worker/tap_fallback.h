// worker/tap_fallback.h: packets by readv() and writev(), for hosts that switch io_uring off or
// whose taps do not know RWF_NOWAIT (before Linux 6.4).
//
// Five system calls for each direction, on four descriptors (policy/worker_net.h). The tap is
// O_NONBLOCK: the broker has seen to that.
#pragma once

#include <poll.h>

#include <array>
#include <cstdint>
#include <memory>

#include "common/fd.h"
#include "worker/tap_engine.h"

namespace worker {

class TapFallback final : public TapEngine {
 public:
  struct Parts {
    TapDirection direction = TapDirection::kReceive;
    common::FdRef tap;
    common::FdRef stop;  // Readable: stop.
    common::FdRef kick;  // Invalid: the front-end wants its ring polled.
    common::FdRef call;  // Invalid: no interrupts.
  };
  [[nodiscard]] static std::unique_ptr<TapEngine> create(const Parts& parts) noexcept;

  [[nodiscard]] TapWakeup transfer(std::span<TapPacket> packets) noexcept override;
  void ring_call() noexcept override;
  [[nodiscard]] TapWakeup wait(Until until) noexcept override;
  void watch_tap() noexcept override { polled_[kTap].fd = parts_.tap.number; }
  [[nodiscard]] bool ready() noexcept override;
  [[nodiscard]] std::uint64_t system_calls() const noexcept override { return system_calls_; }

 private:
  enum Place : std::size_t { kStop = 0, kKick = 1, kTap = 2 };

  TapFallback(const Parts& parts, bool call_blocks) noexcept;
  void perform(TapPacket& packet) noexcept;
  [[nodiscard]] int poll(bool sleep) noexcept;
  void take_news(TapWakeup& wakeup) noexcept;
  void drain() noexcept;
  [[nodiscard]] bool call_has_room() noexcept;

  Parts parts_;
  std::array<pollfd, 3> polled_{};
  bool call_blocks_ = false;
  bool stopping_ = false;
  std::uint32_t transfers_unpolled_ = 0;
  std::uint64_t system_calls_ = 0;
};

}  // namespace worker
