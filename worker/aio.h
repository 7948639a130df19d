// worker/aio.h: Linux AIO: queue depth for O_DIRECT disks on hosts without io_uring.
//
// Requests are gathered and submitted together; completions are read from the ring that the kernel
// maps into this process, which costs no system call. Trusts: its caller and the kernel.
#pragma once

#include <linux/aio_abi.h>

#include <array>
#include <cstdint>
#include <memory>

#include "common/fd.h"
#include "common/result.h"
#include "worker/completion_fifo.h"
#include "worker/engine.h"

namespace worker {

class Aio {
 public:
  // `notify`: an eventfd that becomes readable with each completion. `depth`: how many requests are
  // in flight at most; fewer where the host's limit for all processes (fs.aio-max-nr) is near.
  [[nodiscard]] static common::Result<std::unique_ptr<Aio>> create(common::FdRef notify,
                                                                   std::uint32_t depth) noexcept;

  // kRead, kWrite, kSync. Submitted with submit().
  void queue(const IoRequest& request, common::FdRef file) noexcept;

  // Submits what is queued. What the kernel refuses is completed with its error; what it has no
  // room for stays queued until something in flight completes. False where AIO does not work.
  [[nodiscard]] bool submit(CompletionFifo& done) noexcept;

  void reap(CompletionFifo& done) noexcept;

  [[nodiscard]] bool queued() const noexcept { return first_queued_ != end_queued_; }
  [[nodiscard]] bool busy() const noexcept { return queued() || in_flight_ != 0; }
  [[nodiscard]] bool completed() const noexcept;
  [[nodiscard]] std::uint64_t system_calls() const noexcept { return system_calls_; }

 private:
  // What the kernel keeps at the address that io_setup() returns. Its layout is part of the
  // kernel's interface: `magic` and `incompat_features` say that it is this one.
  struct Ring {
    std::uint32_t id;
    std::uint32_t entries;
    std::uint32_t head;  // Ours.
    std::uint32_t tail;  // The kernel's.
    std::uint32_t magic;
    std::uint32_t compat_features;
    std::uint32_t incompat_features;
    std::uint32_t header_bytes;
  };

  Aio(aio_context_t context, common::FdRef notify) noexcept
      : context_(context), ring_(reinterpret_cast<Ring*>(context)), notify_(notify) {}

  aio_context_t context_;
  Ring* ring_;
  common::FdRef notify_;
  std::uint32_t in_flight_ = 0;
  std::uint32_t first_queued_ = 0;  // Both run on and start again at 0 when all is submitted.
  std::uint32_t end_queued_ = 0;
  std::uint64_t system_calls_ = 0;
  // As many as the caller may start, so queue() never has to refuse. Only its used front becomes
  // memory.
  std::array<iocb, kRequestsMax> queue_;
};

}  // namespace worker
