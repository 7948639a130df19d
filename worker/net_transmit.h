// worker/net_transmit.h: serves one transmit virtqueue: from the guest's pages into the tap.
#pragma once

#include <memory>

#include "common/ipc/worker_messages.h"
#include "worker/net_virtqueue.h"

namespace worker {

class NetTransmit {
 public:
  // Allocates everything that serving will ever need. Null and a fault on the status page where the
  // ring does not lie in guest memory or is misaligned. Looks at no byte of the guest's.
  [[nodiscard]] static std::unique_ptr<NetTransmit> create(const NetQueueParts& parts) noexcept;
  ~NetTransmit();

  // Serves until the broker says stop, the guest breaks the ring, or the host fails.
  [[nodiscard]] common::ipc::WorkerExit run() noexcept;

 private:
  struct State;
  template <typename Ring>
  struct Serving;
  template <typename Ring>
  [[nodiscard]] static std::unique_ptr<State> make(const NetQueueParts& parts) noexcept;
  explicit NetTransmit(std::unique_ptr<State> state) noexcept;
  std::unique_ptr<State> state_;
};

}  // namespace worker
