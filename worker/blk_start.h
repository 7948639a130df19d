// worker/blk_start.h: what a block worker does before it is sealed, beside start.h.
//
// Trusts the broker's packets, which are written before anyone else holds the other end of the
// socket.
#pragma once

#include <memory>
#include <vector>

#include "common/device_kind.h"
#include "common/fd.h"
#include "common/ipc/worker_messages.h"
#include "policy/jail.h"
#include "worker/engine.h"
#include "worker/start.h"

namespace worker {

struct Orders {
  common::ipc::BlkStart device{};
  common::ipc::UringLayout layout{};  // Only with EngineKind::kIoUring.
  [[nodiscard]] bool uses_ring() const noexcept {
    return device.engine == static_cast<std::uint32_t>(common::EngineKind::kIoUring);
  }
};
[[nodiscard]] Started<Orders> receive_orders(common::FdRef control) noexcept;

// What the sealed worker may still do, as far as resource limits can say it.
[[nodiscard]] policy::JailLimits limits_for(const Orders& orders) noexcept;

// A sealed worker's engine, and the descriptors that it needs (ascending): none with io_uring.
struct Machine {
  std::unique_ptr<Engine> engine;
  std::vector<int> keep;
};
// Takes descriptors from their numbers at exec (WorkerFd) and puts those that stay where
// policy/worker_blk.h wants them.
[[nodiscard]] Started<Machine> make_engine(const Orders& orders, Guest& guest) noexcept;

}  // namespace worker
