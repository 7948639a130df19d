// worker/fallback_engine.h: the engine for hosts that switch io_uring off.
//
// Buffered disks: positional reads and writes, each finished when start() returns. Direct disks:
// Linux AIO, so that queue depth survives. Sleeps in ppoll() over kick, stop and AIO's eventfd
// (worker/eventfds.h). Trusts: the broker and the kernel.
#pragma once

#include <cstdint>
#include <memory>

#include "common/fd.h"
#include "common/result.h"
#include "worker/aio.h"
#include "worker/completion_fifo.h"
#include "worker/engine.h"
#include "worker/eventfds.h"

namespace worker {

class FallbackEngine final : public Engine {
 public:
  // All stay open as long as the engine is used.
  struct Parts {
    common::FdRef device;
    common::FdRef device_buffered;  // Invalid: no request will say `buffered`.
    common::FdRef aio;              // An eventfd of our own where the disk is direct, else invalid.
    Eventfds::Parts events;
    std::uint32_t depth = kRequestsMax;
  };
  [[nodiscard]] static common::Result<std::unique_ptr<Engine>> create(const Parts& parts) noexcept;

  void start(const IoRequest& request) noexcept override;
  void ring_call() noexcept override { events_.ring_call(); }
  [[nodiscard]] Wakeup turn(bool may_sleep) noexcept override;
  [[nodiscard]] bool ready() const noexcept override;
  [[nodiscard]] bool next_completion(Completion& completion) noexcept override {
    return done_.pop(completion);
  }
  [[nodiscard]] std::uint64_t system_calls() const noexcept override;

 private:
  FallbackEngine(const Parts& parts, std::unique_ptr<Aio> aio) noexcept;

  [[nodiscard]] std::int32_t perform(const IoRequest& request) noexcept;
  void wait(bool may_sleep, Wakeup& wakeup) noexcept;

  Parts parts_;
  std::unique_ptr<Aio> aio_;
  Eventfds events_;
  std::uint32_t turns_unpolled_ = 0;
  std::uint64_t system_calls_ = 0;
  CompletionFifo done_;
};

}  // namespace worker
