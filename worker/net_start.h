// worker/net_start.h: what a network worker does before it is sealed, beside start.h.
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
#include "worker/start.h"
#include "worker/tap_engine.h"

namespace worker {

struct NetOrders {
  common::ipc::NetStart device{};
  common::ipc::UringLayout layout{};  // Only with EngineKind::kIoUring.
  [[nodiscard]] bool uses_ring() const noexcept {
    return device.engine == static_cast<std::uint32_t>(common::EngineKind::kIoUring);
  }
  [[nodiscard]] common::ipc::NetRole role() const noexcept {
    return static_cast<common::ipc::NetRole>(device.role);
  }
};
[[nodiscard]] Started<NetOrders> receive_net_orders(common::FdRef control) noexcept;

// What the sealed worker may still do, as far as resource limits can say it.
[[nodiscard]] policy::JailLimits limits_for(const NetOrders& orders) noexcept;

// A sealed worker's engine, and the descriptors that it needs (ascending): none with io_uring.
struct NetMachine {
  std::unique_ptr<TapEngine> engine;
  std::vector<int> keep;
};
// Takes descriptors from their numbers at exec (WorkerFd) and puts those that stay where
// policy/worker_net.h wants them.
[[nodiscard]] Started<NetMachine> make_tap_engine(const NetOrders& orders, Guest& guest) noexcept;

}  // namespace worker
