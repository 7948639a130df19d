// worker/tap_uring.h: packets by io_uring: two system calls and no descriptor.
//
// A batch is one io_uring_enter, whose requests all say RWF_NOWAIT and so are complete when it
// returns. Kick and tap are polled and never read for it: the transmit worker needs no operation
// that reads. The bell travels with the next batch or sleep. The broker reaches a sealed worker
// with messages into the ring (kRingStop, kRingCallSwapped). Trusts: the broker and the kernel.
#pragma once

#include <cstdint>
#include <memory>

#include "common/fd.h"
#include "common/ipc/worker_messages.h"
#include "common/result.h"
#include "worker/tap_engine.h"
#include "worker/uring.h"

namespace worker {

class TapUring final : public TapEngine {
 public:
  struct Parts {
    TapDirection direction = TapDirection::kReceive;
    common::FdRef ring;  // As policy::make_restricted_ring() made it, still disabled.
    common::ipc::UringLayout layout;
    common::FdRef tap;
    common::FdRef kick;  // Invalid: the front-end wants its ring polled.
    common::FdRef call;  // Invalid: no interrupts until the broker swaps one in.
  };
  // Afterwards no descriptor of `parts` is needed: the ring holds the files, and this task the
  // ring.
  [[nodiscard]] static common::Result<std::unique_ptr<TapEngine>> create(
      const Parts& parts) noexcept;

  [[nodiscard]] TapWakeup transfer(std::span<TapPacket> packets) noexcept override;
  void ring_call() noexcept override;
  [[nodiscard]] TapWakeup wait(Until until) noexcept override;
  void watch_tap() noexcept override;
  [[nodiscard]] bool ready() noexcept override;
  [[nodiscard]] std::uint64_t system_calls() const noexcept override {
    return ring_.system_calls();
  }

 private:
  TapUring(Uring ring, TapDirection direction, bool has_kick, bool has_call) noexcept;

  [[nodiscard]] io_uring_sqe* claim(std::uint8_t opcode, std::uint32_t slot) noexcept;
  void prepare(const TapPacket& packet, std::uint32_t index) noexcept;
  void arm_kick() noexcept;
  void arm_tap() noexcept;
  [[nodiscard]] bool enter(bool sleep) noexcept;
  void reap(TapWakeup& wakeup) noexcept;
  void take(const io_uring_cqe& completion, TapWakeup& wakeup) noexcept;
  void finish_call(std::uint64_t user_data, std::int32_t result) noexcept;
  [[nodiscard]] TapWakeup done(TapWakeup wakeup) const noexcept;

  Uring ring_;
  TapDirection direction_;
  bool has_kick_ = false;
  bool has_call_ = false;
  bool tap_armed_ = false;
  bool stopping_ = false;
  bool broken_ = false;

  // The bell. At most one WRITE to the file that is in kSlotCall now is outstanding: a front-end
  // that fills its eventfd's counter would make more of them wait for ever.
  bool call_queued_ = false;   // Claimed, not submitted: whatever is published now is before it.
  bool call_pending_ = false;  // Submitted, not completed.
  bool call_again_ = false;    // Wanted while one was pending, which may have been too early.
  std::uint32_t call_generation_ = 0;  // Counts the files that were in the slot.
  std::uint64_t call_value_ = 1;

  std::span<TapPacket> moving_{};  // Of the transfer under way,
  std::uint32_t moved_ = 0;        // and how many of them are done.
};

}  // namespace worker
