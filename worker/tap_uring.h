// worker/tap_uring.h: packets by io_uring: two system calls and no descriptor.
//
// A batch is one io_uring_enter, whose requests all say RWF_NOWAIT and so are complete when it
// returns. Kick and tap are polled and never read for it: the transmit worker needs no operation
// that reads. The bell travels with the next batch or sleep (worker/uring_port.h). Trusts: the
// broker and the kernel.
#pragma once

#include <cstdint>
#include <memory>

#include "common/result.h"
#include "worker/tap_engine.h"
#include "worker/uring_port.h"

namespace worker {

class TapUring final : public TapEngine {
 public:
  [[nodiscard]] static common::Result<std::unique_ptr<TapEngine>> create(
      TapDirection direction, const UringPort::Parts& parts) noexcept;

  [[nodiscard]] TapWakeup transfer(std::span<TapPacket> packets) noexcept override;
  void ring_call() noexcept override { port_.ring_call(); }
  [[nodiscard]] TapWakeup wait(Until until) noexcept override;
  void watch_tap() noexcept override;
  [[nodiscard]] bool ready() noexcept override;
  [[nodiscard]] std::uint64_t system_calls() const noexcept override {
    return port_.system_calls();
  }

 private:
  TapUring(TapDirection direction, UringPort port) noexcept;

  void prepare(const TapPacket& packet, std::uint32_t index) noexcept;
  void arm_kick() noexcept;
  void arm_tap() noexcept;
  void arm_stop() noexcept;
  void reap(TapWakeup& wakeup) noexcept;
  void take(const io_uring_cqe& completion, TapWakeup& wakeup) noexcept;
  [[nodiscard]] TapWakeup done(TapWakeup wakeup) const noexcept;

  TapDirection direction_;
  UringPort port_;
  bool tap_armed_ = false;
  std::span<TapPacket> moving_{};  // Of the transfer under way,
  std::uint32_t moved_ = 0;        // and how many of them are done.
};

}  // namespace worker
