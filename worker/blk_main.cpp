// worker/blk_main.cpp: the process that serves one virtqueue of one block device of one guest.
//
// May:        move bytes between that guest's memory and one disk that the broker opened for it,
// and
//             ring that guest's bell.
// Must never: open, map, fork, exec, connect, or hold anything of another guest.
// Trusts:     the broker. Trusts neither the guest nor the session: both may be hostile.
//
// Stages, each of which gives something up:
//   1. enter:  the broker's packets only. Root, ids, capabilities, file system are gone after it.
//   2. set up: the session's packets: guest memory is mapped, the engine made, every request slot
//              allocated. No byte of the guest's is looked at: we could still do damage.
//   3. seal:   no descriptors (or the few of the fallback engine), no new memory, a handful of
//              system calls. There is no way back.
//   4. serve:  only now is a byte of the guest's believed enough to be checked.
#include <bit>
#include <cstdint>
#include <memory>
#include <span>
#include <utility>

#include "common/fd.h"
#include "common/ipc/channel.h"
#include "common/ipc/worker_messages.h"
#include "common/shared_region.h"
#include "common/status_page.h"
#include "policy/jail.h"
#include "worker/blk_queue.h"
#include "worker/heap_lock.h"
#include "worker/leave.h"
#include "worker/start.h"

namespace {

using common::Fd;
using common::StatusPage;
using common::ipc::JailOrder;
using common::ipc::WorkerExit;
using common::ipc::WorkerFault;
using common::ipc::WorkerFd;

// Which step failed: WorkerFault::kJail's number.
enum class JailStep : std::uint64_t { kEnter = 1, kSeal = 2 };

[[noreturn]] void fail(const worker::StartFailure& failure, StatusPage& page) noexcept {
  worker::report(failure, page);
  worker::leave(failure.exit);
}

[[noreturn]] void fail_jail(const JailOrder& order, JailStep step, const common::Error& error,
                            StatusPage& page) noexcept {
  common::LayerResults layers{};
  for (std::size_t i = 0; i < layers.size(); ++i) {
    layers[i] = std::bit_cast<common::LayerResult>(page.layers[i].load(std::memory_order_relaxed));
  }
  worker::StartFailure failure{WorkerExit::kHostFault,
                               WorkerFault::kJail,
                               {static_cast<std::uint64_t>(step), 0},
                               error.os_errno};
  common::Layer missing{};
  if (order.strict != 0 && policy::below_strict(layers, missing)) {
    failure.fault = WorkerFault::kPosture;
    failure.details[0] = static_cast<std::uint64_t>(missing);
  }
  fail(failure, page);
}

template <typename T>
T expect(worker::Started<T> started, StatusPage& page) noexcept {
  if (!started) fail(started.error(), page);
  if constexpr (!std::is_void_v<T>) return *std::move(started);
}

void seal_or_fail(const JailOrder& order, const policy::JailLimits& limits,
                  std::span<const int> keep, StatusPage& page) noexcept {
  if (const auto sealed = policy::seal(order, limits, keep, page); !sealed) {
    fail_jail(order, JailStep::kSeal, sealed.error(), page);
  }
}

// Stage 2. What it made is never destroyed: the process ends with it.
struct Worker {
  worker::Orders orders;
  worker::Guest guest;
  worker::Machine machine;
  std::unique_ptr<worker::BlkQueue> queue;
};

void set_up(common::FdRef control, Worker& made, StatusPage& page) noexcept {
  made.orders = expect(worker::receive_orders(control), page);
  expect(worker::receive_guest(control, made.guest), page);
  made.machine = expect(worker::make_engine(made.orders, made.guest), page);
  made.queue = worker::BlkQueue::create({.memory = made.guest.map.memory(),
                                         .device = made.orders.device,
                                         .ring = made.guest.ring,
                                         .engine = made.machine.engine.get(),
                                         .status = &page});
  if (!made.queue) worker::leave(WorkerExit::kStartRefused);
}

}  // namespace

int main() {
  worker::start_lasting_heap();
  // Unmapped never: whatever ends this process wants to say why.
  const common::FdRef status{static_cast<int>(WorkerFd::kStatusPage)};
  const auto mapped = common::SharedRegion::map(status, 0, common::kStatusPageBytes,
                                                common::SharedRegion::Access::kReadWrite);
  if (!mapped) worker::leave(WorkerExit::kHostFault);
  auto& page = *reinterpret_cast<StatusPage*>(mapped->bytes().data());
  Fd(status.number).reset();
  page.version.store(common::kStatusPageVersion, std::memory_order_relaxed);
  const common::FdRef control{static_cast<int>(WorkerFd::kControl)};

  const JailOrder order = expect(worker::receive_jail_order(control), page);
  if (const auto entered = policy::enter_jail(order, {}, page); !entered) {
    fail_jail(order, JailStep::kEnter, entered.error(), page);
  }
  if (order.probe != 0) {
    policy::seal_mappings(page);
    seal_or_fail(order, {}, {}, page);
    worker::leave(WorkerExit::kStopped);
  }

  Worker made;
  set_up(control, made, page);
  policy::seal_mappings(page, made.guest.mapped);
  worker::lock_heap();

  // The socket goes with the seal. If that fails, this process ends and the broker tells.
  (void)common::ipc::send(control, common::ipc::Serving{});
  seal_or_fail(order, worker::limits_for(made.orders), made.machine.keep, page);

  const WorkerExit outcome = made.queue->run();
  page.stage.store(common::Stage::kEnding, std::memory_order_relaxed);
  worker::leave(outcome);
}
