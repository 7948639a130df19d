// worker/uring_engine.h: the engine of two system calls and no descriptor.
//
// Data, kick and call all travel through one io_uring over registered files; a turn is one
// io_uring_enter that submits and sleeps. The broker reaches a sealed worker with messages into the
// ring (kRingStop, kRingCallSwapped). Trusts: the broker and the kernel.
#pragma once

#include <cstdint>
#include <memory>

#include "common/fd.h"
#include "common/ipc/worker_messages.h"
#include "common/result.h"
#include "worker/completion_fifo.h"
#include "worker/engine.h"
#include "worker/uring.h"

namespace worker {

class UringEngine final : public Engine {
 public:
  struct Parts {
    common::FdRef ring;  // As policy::make_restricted_ring() made it, still disabled.
    common::ipc::UringLayout layout;
    common::FdRef device;
    common::FdRef device_buffered;  // Invalid: no request will say `buffered`.
    common::FdRef kick;             // Invalid: the front-end wants its ring polled.
    common::FdRef call;             // Invalid: no interrupts until the broker swaps one in.
  };
  // Afterwards no descriptor of `parts` is needed: the ring holds the files, and this task the
  // ring.
  [[nodiscard]] static common::Result<std::unique_ptr<Engine>> create(const Parts& parts) noexcept;

  void start(const IoRequest& request) noexcept override;
  void ring_call() noexcept override;
  [[nodiscard]] Wakeup turn(bool may_sleep) noexcept override;
  [[nodiscard]] bool ready() const noexcept override;
  [[nodiscard]] bool next_completion(Completion& completion) noexcept override {
    return done_.pop(completion);
  }
  [[nodiscard]] std::uint64_t system_calls() const noexcept override {
    return ring_.system_calls();
  }

 private:
  UringEngine(Uring ring, bool has_kick, bool has_call) noexcept;

  [[nodiscard]] io_uring_sqe* claim(std::uint8_t opcode, std::uint32_t slot) noexcept;
  void prepare_transfer(const IoRequest& request) noexcept;
  void prepare_fallocate(const IoRequest& request) noexcept;
  void arm_kick() noexcept;
  [[nodiscard]] bool enter(bool sleep) noexcept;
  void reap(Wakeup& wakeup) noexcept;
  void finish_kick(std::int32_t result, Wakeup& wakeup) noexcept;
  void finish_call(std::uint64_t user_data, std::int32_t result) noexcept;

  Uring ring_;
  bool has_kick_ = false;
  bool has_call_ = false;
  bool stopping_ = false;
  bool broken_ = false;

  // The bell. At most one WRITE to the file that is in kSlotCall now is outstanding: a front-end
  // that fills its eventfd's counter would make more of them wait for ever.
  bool call_queued_ = false;   // Claimed, not submitted: whatever is published now is before it.
  bool call_pending_ = false;  // Submitted, not completed.
  bool call_again_ = false;    // Wanted while one was pending, which may have been too early.
  std::uint32_t call_generation_ = 0;  // Counts the files that were in the slot.

  std::uint32_t in_flight_ = 0;
  std::uint64_t kick_value_ = 0;  // Written by the kernel; the number of kicks means nothing.
  std::uint64_t call_value_ = 1;
  CompletionFifo done_;
};

}  // namespace worker
