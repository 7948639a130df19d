// worker/start.h: what every worker does before it is sealed. A device type's own part of it:
// blk_start.h, net_start.h.
//
// Trusts the broker's packets, which are written before anyone else holds the other end of the
// socket. Trusts nothing of the session's: neither numbers nor descriptors.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "common/fd.h"
#include "common/guest_map.h"
#include "common/ipc/channel.h"
#include "common/ipc/jail_order.h"
#include "common/ipc/worker_messages.h"
#include "common/result.h"
#include "common/shared_region.h"
#include "common/status_page.h"

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

[[nodiscard]] inline auto refuse(common::ipc::WorkerFault fault, std::uint64_t first = 0,
                                 std::uint64_t second = 0, int os_errno = 0) noexcept {
  return common::fail(
      StartFailure{common::ipc::WorkerExit::kStartRefused, fault, {first, second}, os_errno});
}
[[nodiscard]] inline auto refuse_packet(const common::ipc::Packet& packet) noexcept {
  return refuse(common::ipc::WorkerFault::kBadMessage, packet.kind(), packet.size);
}
[[nodiscard]] inline auto host_fault(common::ipc::WorkerFault fault, std::uint64_t first,
                                     int os_errno) noexcept {
  return common::fail(
      StartFailure{common::ipc::WorkerExit::kHostFault, fault, {first, 0}, os_errno});
}

void report(const StartFailure& failure, common::StatusPage& page) noexcept;

// --- the broker's word ---------------------------------------------------------------------------

[[nodiscard]] Started<common::ipc::JailOrder> receive_jail_order(common::FdRef control) noexcept;

// The next packet, which must be there, and as a T.
[[nodiscard]] Started<void> next_packet(common::FdRef control,
                                        common::ipc::Packet& packet) noexcept;
template <common::ipc::Message T>
[[nodiscard]] Started<T> next_message(common::FdRef control) noexcept {
  common::ipc::Packet packet;
  TRY(next_packet(control, packet));
  const std::optional<T> message = packet.as<T>();
  if (!message) return refuse_packet(packet);
  return *message;
}

// --- the session's word: hostile -----------------------------------------------------------------

struct Guest {
  common::GuestMap map;
  common::SharedRegion inflight;             // Empty where the session has none.
  common::SharedRegion log;                  // Empty where nobody migrates.
  std::vector<std::span<std::byte>> mapped;  // What these hold, for mseal.
  common::ipc::RingStart ring{};
  common::Fd kick;  // Invalid where the front-end wants the ring polled.
  common::Fd call;  // Invalid where it wants no interrupts.
};
// Maps memory as it comes, until the ring does. Every number is checked that can be without looking
// at the guest's bytes; where the ring lies is checked when the queue is made.
[[nodiscard]] Started<void> receive_guest(common::FdRef control, Guest& guest) noexcept;

// --- ready to serve ------------------------------------------------------------------------------

[[nodiscard]] constexpr common::FdRef at(common::ipc::WorkerFd number) noexcept {
  return common::FdRef{static_cast<int>(number)};
}

// What has been received may sit by chance on a number that is meant for another: first all of them
// are lifted, then each is put where the policy's rules compare against it. Not valid: stays so.
[[nodiscard]] Started<void> lift(common::Fd& fd) noexcept;
[[nodiscard]] Started<common::FdRef> put(common::Fd fd, int number) noexcept;

// Which step of make_engine() failed: WorkerFault::kEngine's number.
enum class EngineStep : std::uint64_t {
  kNone = 0,
  kRing = 1,
  kAio = 2,
  kDescriptors = 3,
  kRates = 4,
};

}  // namespace worker
