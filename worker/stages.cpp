#include "worker/stages.h"

#include <bit>
#include <cstdint>

#include "common/ipc/channel.h"
#include "common/shared_region.h"
#include "worker/heap_lock.h"

namespace worker {
namespace {

using common::Fd;
using common::StatusPage;
using common::ipc::JailOrder;
using common::ipc::WorkerExit;
using common::ipc::WorkerFault;
using common::ipc::WorkerFd;

// Which step failed: WorkerFault::kJail's number.
enum class JailStep : std::uint64_t { kEnter = 1, kSeal = 2 };

[[noreturn]] void fail_jail(const JailOrder& order, JailStep step, const common::Error& error,
                            StatusPage& page) noexcept {
  common::LayerResults layers{};
  for (std::size_t i = 0; i < layers.size(); ++i) {
    layers[i] = std::bit_cast<common::LayerResult>(page.layers[i].load(std::memory_order_relaxed));
  }
  StartFailure failure{WorkerExit::kHostFault,
                       WorkerFault::kJail,
                       {static_cast<std::uint64_t>(step), 0},
                       error.os_errno};
  common::Layer missing{};
  if (policy::below_demand(order, layers, missing)) {
    failure.fault = WorkerFault::kPosture;
    failure.details[0] = static_cast<std::uint64_t>(missing);
  }
  fail(failure, page);
}

void seal_or_fail(const JailOrder& order, const policy::JailLimits& limits,
                  std::span<const int> keep, StatusPage& page) noexcept {
  if (const auto sealed = policy::seal(order, limits, keep, page); !sealed) {
    fail_jail(order, JailStep::kSeal, sealed.error(), page);
  }
}

}  // namespace

void fail(const StartFailure& failure, StatusPage& page) noexcept {
  report(failure, page);
  leave(failure.exit);
}

Entered enter_stage() noexcept {
  start_lasting_heap();
  const common::FdRef status = at(WorkerFd::kStatusPage);
  auto mapped = common::SharedRegion::map(status, 0, common::kStatusPageBytes,
                                          common::SharedRegion::Access::kReadWrite);
  if (!mapped) leave(WorkerExit::kHostFault);
  // Never destroyed: it is needed until the process is no more.
  auto* const kept = new common::SharedRegion(*std::move(mapped));
  auto& page = *reinterpret_cast<StatusPage*>(kept->bytes().data());
  Fd(status.number).reset();
  page.version.store(common::kStatusPageVersion, std::memory_order_relaxed);
  const common::FdRef control = at(WorkerFd::kControl);

  const JailOrder order = expect(receive_jail_order(control), page);
  if (const auto entered = policy::enter_jail(order, {}, page); !entered) {
    fail_jail(order, JailStep::kEnter, entered.error(), page);
  }
  if (order.probe != 0) {
    policy::seal_mappings(page);
    seal_or_fail(order, {}, {}, page);
    leave(WorkerExit::kStopped);
  }
  return {page, control, order};
}

void seal_stage(const Entered& entered, const Guest& guest, const policy::JailLimits& limits,
                std::span<const int> keep) noexcept {
  policy::seal_mappings(entered.page, guest.mapped);
  lock_heap();
  // The socket goes with the seal. If that fails, this process ends and the broker tells.
  (void)common::ipc::send(entered.control, common::ipc::Serving{});
  seal_or_fail(entered.order, limits, keep, entered.page);
}

}  // namespace worker
