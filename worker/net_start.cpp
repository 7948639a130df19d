#include "worker/net_start.h"

#include <csignal>
#include <utility>

#include "policy/worker_net.h"
#include "worker/tap_fallback.h"
#include "worker/tap_uring.h"

namespace worker {
namespace {

using common::Fd;
using common::FdRef;
using common::ipc::NetRole;
using common::ipc::NetStart;
using common::ipc::WorkerFault;
using common::ipc::WorkerFd;
using policy::NetFd;

// A control worker waits for the broker's answers, as a receiving one for packets.
constexpr TapDirection direction_of(NetRole role) noexcept {
  return role == NetRole::kTransmit ? TapDirection::kTransmit : TapDirection::kReceive;
}

Started<NetMachine> make_uring(const NetOrders& orders, Guest& guest) noexcept {
  auto engine = TapUring::create(direction_of(orders.role()), {.ring = at(WorkerFd::kEngine),
                                                               .layout = orders.layout,
                                                               .device = at(WorkerFd::kDevice),
                                                               .kick = guest.kick.ref(),
                                                               .call = guest.call.ref(),
                                                               .stop = at(WorkerFd::kStop)});
  if (!engine) {
    return host_fault(WorkerFault::kEngine, std::to_underlying(EngineStep::kRing),
                      engine.error().os_errno);
  }
  return NetMachine{*std::move(engine), {}};
}

Started<NetMachine> make_fallback(const NetOrders& orders, Guest& guest) noexcept {
  static_assert(static_cast<int>(WorkerFd::kDevice) == static_cast<int>(NetFd::kTap));
  static_assert(static_cast<int>(WorkerFd::kEngine) == static_cast<int>(NetFd::kStop));
  for (Fd* const fd : {&guest.kick, &guest.call}) TRY(lift(*fd));
  TapFallback::Parts parts;
  parts.direction = direction_of(orders.role());
  parts.tap = at(WorkerFd::kDevice);
  parts.events.stop = at(WorkerFd::kEngine);
  TRY_LET(parts.events.kick, put(std::move(guest.kick), static_cast<int>(NetFd::kKick)));
  TRY_LET(parts.events.call, put(std::move(guest.call), static_cast<int>(NetFd::kCall)));
  NetMachine machine{TapFallback::create(parts), {}};
  for (const FdRef fd : {parts.tap, parts.events.stop, parts.events.kick, parts.events.call}) {
    if (fd.valid()) machine.keep.push_back(fd.number);
  }
  return machine;
}

bool is_sane(const NetStart& start) noexcept {
  const bool known_role = start.role <= std::to_underlying(NetRole::kControl);
  const bool no_ring = start.role == std::to_underlying(NetRole::kControl);
  return known_role &&
         !(no_ring && start.engine == std::to_underlying(common::EngineKind::kIoUring));
}

}  // namespace

Started<NetOrders> receive_net_orders(FdRef control) noexcept {
  NetOrders orders;
  TRY_LET(orders.device, next_message<NetStart>(control));
  if (!is_sane(orders.device)) {
    return refuse(WorkerFault::kBadMessage, NetStart::kKind, sizeof(NetStart));
  }
  if (orders.uses_ring()) {
    TRY_LET(orders.layout, next_message<common::ipc::UringLayout>(control));
  }
  return orders;
}

policy::JailLimits limits_for(const NetOrders& orders) noexcept {
  policy::JailLimits limits;
  // Nothing of ours waits in a kernel thread but the bell of a front-end whose eventfd blocks.
  limits.processes = orders.uses_ring() ? 1 + common::ipc::kRingThreads + 1 : 1;
  limits.descriptors = orders.uses_ring() ? 0 : static_cast<std::uint64_t>(NetFd::kCall) + 1;
  return limits;
}

Started<NetMachine> make_tap_engine(const NetOrders& orders, Guest& guest) noexcept {
  // A socket to a broker that is gone is no reason to die of a signal.
  if (::signal(SIGPIPE, SIG_IGN) == SIG_ERR) {
    return host_fault(WorkerFault::kEngine, std::to_underlying(EngineStep::kNone), errno);
  }
  return orders.uses_ring() ? make_uring(orders, guest) : make_fallback(orders, guest);
}

}  // namespace worker
