#include "worker/blk_start.h"

#include <utility>

#include "common/checked.h"
#include "common/sys.h"
#include "policy/worker_blk.h"
#include "worker/fallback_engine.h"
#include "worker/uring_engine.h"

namespace worker {
namespace {

using common::Fd;
using common::FdRef;
using common::ipc::WorkerFault;
using common::ipc::WorkerFd;
using policy::FallbackFd;

constexpr int number_of(FallbackFd fd) noexcept { return static_cast<int>(fd); }

Started<Machine> make_uring(const Orders& orders, Guest& guest) noexcept {
  // The call eventfd keeps its flags: they are the front-end's too, and one that waits in a
  // blocking read() must not find EAGAIN there. Made without EFD_NONBLOCK it costs a kernel
  // thread's wake-up for each interrupt (README.md); every VMM we know makes it with.
  auto engine = UringEngine::create(
      {.ring = at(WorkerFd::kEngine),
       .layout = orders.layout,
       .device = at(WorkerFd::kDevice),
       .device_buffered = orders.device.has_buffered != 0 ? at(WorkerFd::kDeviceBuffered) : FdRef{},
       .kick = guest.kick.ref(),
       .call = guest.call.ref(),
       .stop = at(WorkerFd::kStop)});
  if (!engine) {
    return host_fault(WorkerFault::kEngine, std::to_underlying(EngineStep::kRing),
                      engine.error().os_errno);
  }
  return Machine{*std::move(engine), {}};
}

Started<Machine> make_fallback(const Orders& orders, Guest& guest) noexcept {
  static_assert(static_cast<int>(WorkerFd::kDevice) == static_cast<int>(FallbackFd::kDisk));
  static_assert(static_cast<int>(WorkerFd::kEngine) == static_cast<int>(FallbackFd::kStop));
  static_assert(static_cast<int>(WorkerFd::kDeviceBuffered) ==
                static_cast<int>(FallbackFd::kDiskBuffered));
  const bool direct = orders.device.direct != 0;
  Fd aio;
  if (direct) {
    auto made = common::make_eventfd();
    if (!made) {
      return host_fault(WorkerFault::kEngine, std::to_underlying(EngineStep::kAio),
                        made.error().os_errno);
    }
    aio = *std::move(made);
  }
  for (Fd* const fd : {&guest.kick, &guest.call, &aio}) TRY(lift(*fd));

  FallbackEngine::Parts parts;
  parts.device = at(WorkerFd::kDevice);
  parts.events.stop = at(WorkerFd::kEngine);
  if (orders.device.has_buffered != 0) parts.device_buffered = at(WorkerFd::kDeviceBuffered);
  TRY_LET(parts.events.kick, put(std::move(guest.kick), number_of(FallbackFd::kKick)));
  TRY_LET(parts.events.call, put(std::move(guest.call), number_of(FallbackFd::kCall)));
  TRY_LET(parts.aio, put(std::move(aio), number_of(FallbackFd::kAio)));
  parts.depth = guest.ring.queue_size;

  auto engine = FallbackEngine::create(parts);
  if (!engine) {
    return host_fault(WorkerFault::kEngine, std::to_underlying(EngineStep::kAio),
                      engine.error().os_errno);
  }
  Machine machine{*std::move(engine), {}};
  for (const FdRef fd : {parts.device, parts.events.stop, parts.device_buffered, parts.events.kick,
                         parts.events.call, parts.aio}) {
    if (fd.valid()) machine.keep.push_back(fd.number);
  }
  return machine;
}

}  // namespace

Started<Orders> receive_orders(FdRef control) noexcept {
  Orders orders;
  TRY_LET(orders.device, next_message<common::ipc::BlkStart>(control));
  if (orders.uses_ring()) {
    TRY_LET(orders.layout, next_message<common::ipc::UringLayout>(control));
  }
  return orders;
}

policy::JailLimits limits_for(const Orders& orders) noexcept {
  const auto& device = orders.device;
  const auto capacity = common::checked_mul(device.capacity_sectors, common::kSectorBytes);
  policy::JailLimits limits;
  // The image cannot grow, whoever has taken this process over. An eventfd is no file for this
  // limit.
  limits.file_size_bytes = device.read_only != 0 ? 0 : capacity.value_or(0);
  // Beside this thread: those that io_uring does blocking work in.
  limits.processes = orders.uses_ring() ? 1 + common::ipc::kRingThreads + 1 : 1;
  limits.descriptors = orders.uses_ring() ? 0 : static_cast<std::uint64_t>(FallbackFd::kAio) + 1;
  return limits;
}

Started<Machine> make_engine(const Orders& orders, Guest& guest) noexcept {
  return orders.uses_ring() ? make_uring(orders, guest) : make_fallback(orders, guest);
}

}  // namespace worker
