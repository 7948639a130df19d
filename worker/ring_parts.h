// worker/ring_parts.h: what both kinds of ring need of guest memory and of the CPU.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "common/addresses.h"
#include "common/guest_memory.h"
#include "common/ipc/worker_messages.h"
#include "common/result.h"
#include "worker/ring_fault.h"

namespace worker {

// Orders a store of ours before a later load of ours, as the guest's driver sees them. Not
// atomic_thread_fence(): ThreadSanitizer does not know it, and GCC refuses it there.
inline void full_fence() noexcept { __sync_synchronize(); }

// Which of the three parts it is, as kRingUnmapped counts them. A packed ring has the driver's and
// the device's event area (virtio 1.2, 2.8.10) for the other two.
enum class RingPart : std::uint64_t { kDesc = 0, kAvail = 1, kUsed = 2 };

[[nodiscard]] inline common::Result<common::GuestWindow, RingFault> map_part(
    const common::GuestMemory& memory, RingPart part, std::uint64_t addr, std::uint64_t bytes,
    std::uint64_t alignment) noexcept {
  const auto window = memory.window(common::GuestAddr{addr}, bytes, alignment);
  if (!window) {
    return common::fail(
        RingFault{common::ipc::WorkerFault::kRingUnmapped, static_cast<std::uint64_t>(part), addr});
  }
  return *window;
}

// The geometry of the in-flight region is the session's word. `bytes_for`: what a region of so many
// entries has.
[[nodiscard]] inline bool inflight_is_sane(const common::ipc::RingStart& start,
                                           std::span<const std::byte> inflight,
                                           std::uint64_t (*bytes_for)(std::uint64_t)) noexcept {
  return inflight.empty() ||
         (start.inflight_entries >= start.queue_size && start.inflight_entries <= UINT16_MAX &&
          inflight.size() >= bytes_for(start.inflight_entries));
}

}  // namespace worker
