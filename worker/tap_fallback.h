// worker/tap_fallback.h: packets by readv() and writev(), for hosts that switch io_uring off or
// whose taps do not know RWF_NOWAIT (before Linux 6.4).
//
// Five system calls for each direction, on four descriptors (policy/worker_net.h). The tap is
// O_NONBLOCK: the broker has seen to that.
#pragma once

#include <cstdint>
#include <memory>

#include "common/fd.h"
#include "worker/eventfds.h"
#include "worker/tap_engine.h"

namespace worker {

class TapFallback final : public TapEngine {
 public:
  struct Parts {
    TapDirection direction = TapDirection::kReceive;
    common::FdRef tap;
    Eventfds::Parts events;
  };
  [[nodiscard]] static std::unique_ptr<TapEngine> create(const Parts& parts) noexcept;

  [[nodiscard]] TapWakeup transfer(std::span<TapPacket> packets) noexcept override;
  void ring_call() noexcept override { events_.ring_call(); }
  [[nodiscard]] TapWakeup wait(Until until) noexcept override;
  void watch_tap() noexcept override { events_.watch_device(tap_); }
  [[nodiscard]] bool ready() noexcept override;
  [[nodiscard]] std::uint64_t system_calls() const noexcept override {
    return system_calls_ + events_.system_calls();
  }

 private:
  explicit TapFallback(const Parts& parts) noexcept;
  void perform(TapPacket& packet) noexcept;
  [[nodiscard]] bool poll(bool sleep, std::uint32_t sleep_us_max = 0) noexcept;
  void take_news(TapWakeup& wakeup) noexcept;

  TapDirection direction_;
  common::FdRef tap_;
  Eventfds events_;
  std::uint32_t transfers_unpolled_ = 0;
  std::uint64_t system_calls_ = 0;
};

}  // namespace worker
