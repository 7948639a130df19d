// worker/uring_engine.h: the engine of two system calls and no descriptor.
//
// Data, kick and call all travel through one io_uring over registered files (worker/uring_port.h);
// a turn is one io_uring_enter that submits and sleeps. Trusts: the broker and the kernel.
#pragma once

#include <cstdint>
#include <memory>

#include "common/result.h"
#include "worker/completion_fifo.h"
#include "worker/engine.h"
#include "worker/uring_port.h"

namespace worker {

class UringEngine final : public Engine {
 public:
  using Parts = UringPort::Parts;
  [[nodiscard]] static common::Result<std::unique_ptr<Engine>> create(const Parts& parts) noexcept;

  void start(const IoRequest& request) noexcept override;
  void ring_call() noexcept override { port_.ring_call(); }
  [[nodiscard]] Wakeup turn(bool may_sleep) noexcept override;
  [[nodiscard]] bool ready() const noexcept override;
  [[nodiscard]] bool next_completion(Completion& completion) noexcept override {
    return done_.pop(completion);
  }
  [[nodiscard]] std::uint64_t system_calls() const noexcept override {
    return port_.system_calls();
  }

 private:
  explicit UringEngine(UringPort port) noexcept;

  void prepare_transfer(const IoRequest& request) noexcept;
  void prepare_fallocate(const IoRequest& request) noexcept;
  void arm_kick() noexcept;
  void arm_stop() noexcept;
  void reap(Wakeup& wakeup) noexcept;
  void finish_kick(std::int32_t result, Wakeup& wakeup) noexcept;

  UringPort port_;
  std::uint32_t in_flight_ = 0;
  std::uint64_t kick_value_ = 0;  // Written by the kernel; the number of kicks means nothing.
  std::uint64_t stop_value_ = 0;  // The same.
  CompletionFifo done_;
};

}  // namespace worker
