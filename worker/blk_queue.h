// worker/blk_queue.h: serves one virtqueue of a block device: the loop, and the life of a request.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "common/guest_memory.h"
#include "common/ipc/worker_messages.h"
#include "common/status_page.h"
#include "worker/engine.h"
#include "worker/rate_limiter.h"

namespace worker {

// Everything run() needs. The broker's word (`device`) and the session's (`ring`), the latter
// checked by start.cpp as far as it can be without the guest's bytes.
struct BlkQueueParts {
  common::GuestMemory memory;
  common::ipc::BlkStart device;
  common::ipc::RingStart ring;
  Engine* engine = nullptr;              // Borrowed; outlives the queue.
  common::StatusPage* status = nullptr;  // Borrowed; outlives the queue.
  std::span<std::byte> inflight{};       // What `ring` says of it; empty where it has none.
  std::span<std::byte> log{};            // Likewise.
  RateMemories rates{};                  // The operator's limits.
};

class BlkQueue {
 public:
  // Allocates everything that serving will ever need; nothing is allocated after it. Null and
  // a fault on the status page where the ring does not lie in guest memory or is misaligned
  // (virtio 1.2, 2.7). Looks at no byte of the guest's.
  [[nodiscard]] static std::unique_ptr<BlkQueue> create(const BlkQueueParts& parts) noexcept;
  ~BlkQueue();

  // Serves until the broker says stop (then drains), the guest breaks the ring (then answers what
  // it has taken, and returns kGuestFault), or the host fails. Faults are on the status page.
  [[nodiscard]] common::ipc::WorkerExit run() noexcept;

 private:
  struct State;
  template <typename Ring>
  struct Serving;
  template <typename Ring>
  [[nodiscard]] static std::unique_ptr<State> make(const BlkQueueParts& parts) noexcept;
  explicit BlkQueue(std::unique_ptr<State> state) noexcept;
  std::unique_ptr<State> state_;
};

}  // namespace worker
