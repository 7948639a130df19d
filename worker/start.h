// worker/start.h: everything a block worker does before it is sealed, in the order of blk_main.cpp.
//
// Trusts the broker's packets, which are written before anyone else holds the other end of the
// socket. Trusts nothing of the session's: neither numbers nor descriptors.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "common/device_kind.h"
#include "common/fd.h"
#include "common/guest_map.h"
#include "common/ipc/jail_order.h"
#include "common/ipc/worker_messages.h"
#include "common/result.h"
#include "common/status_page.h"
#include "policy/jail.h"
#include "worker/engine.h"

namespace worker {

// Why a worker does not start: how it exits, and what it leaves on its status page.
struct StartFailure {
  common::ipc::WorkerExit exit = common::ipc::WorkerExit::kHostFault;
  common::ipc::WorkerFault fault = common::ipc::WorkerFault::kNone;
  std::array<std::uint64_t, 2> details{};
  int os_errno = 0;
};
template <typename T>
using Started = common::Result<T, StartFailure>;

void report(const StartFailure& failure, common::StatusPage& page) noexcept;

// --- the broker's word ---------------------------------------------------------------------------

[[nodiscard]] Started<common::ipc::JailOrder> receive_jail_order(common::FdRef control) noexcept;

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

// --- the session's word: hostile -----------------------------------------------------------------

struct Guest {
  common::GuestMap map;
  std::vector<std::span<std::byte>> mapped;  // What `map` holds, for mseal.
  common::ipc::RingStart ring{};
  common::Fd kick;  // Invalid where the front-end wants the ring polled.
  common::Fd call;  // Invalid where it wants no interrupts.
};
// Maps memory as it comes, until the ring does. Every number is checked that can be without looking
// at the guest's bytes; where the ring lies is checked by BlkQueue::create().
[[nodiscard]] Started<void> receive_guest(common::FdRef control, Guest& guest) noexcept;

// --- ready to serve ------------------------------------------------------------------------------

// A sealed worker's engine, and the descriptors that it needs (ascending): none with io_uring.
struct Machine {
  std::unique_ptr<Engine> engine;
  std::vector<int> keep;
};
// Takes descriptors from their numbers at exec (WorkerFd) and puts those that stay where
// policy/worker_blk.h wants them.
[[nodiscard]] Started<Machine> make_engine(const Orders& orders, Guest& guest) noexcept;

}  // namespace worker
