#include "worker/ring_fault.h"

#include <atomic>

#include "worker/probes.h"

namespace worker {

void store_fault(common::StatusPage& status, const RingFault& fault) noexcept {
  probes::fault(static_cast<std::uint32_t>(fault.code), fault.first, fault.second);
  status.fault_detail[0].store(fault.first, std::memory_order_relaxed);
  status.fault_detail[1].store(fault.second, std::memory_order_relaxed);
  status.fault.store(static_cast<std::uint32_t>(fault.code), std::memory_order_release);
}

}  // namespace worker
