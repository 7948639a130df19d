// worker/net_receive.h: serves one receive virtqueue: from the tap into the guest's buffers.
#pragma once

#include <memory>

#include "common/ipc/worker_messages.h"
#include "worker/net_virtqueue.h"

namespace worker {

class NetReceive {
 public:
  // Allocates everything that serving will ever need. Null and a fault on the status page where the
  // ring does not lie in guest memory or is misaligned. Looks at no byte of the guest's.
  [[nodiscard]] static std::unique_ptr<NetReceive> create(const NetQueueParts& parts) noexcept;
  ~NetReceive();

  // Serves until the broker says stop, the guest breaks the ring, or the host fails.
  [[nodiscard]] common::ipc::WorkerExit run() noexcept;

 private:
  struct State;
  template <typename Ring>
  struct Serving;
  template <typename Ring>
  [[nodiscard]] static std::unique_ptr<State> make(const NetQueueParts& parts) noexcept;
  explicit NetReceive(std::unique_ptr<State> state) noexcept;
  std::unique_ptr<State> state_;
};

}  // namespace worker
