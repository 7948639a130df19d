// worker/ring_fault.h: the guest broke the virtqueue: what it did, for the status page.
#pragma once

#include <cstdint>

#include "common/ipc/worker_messages.h"
#include "common/status_page.h"

namespace worker {

// `first` and `second` are what WorkerFault's comment names for this code.
struct RingFault {
  common::ipc::WorkerFault code = common::ipc::WorkerFault::kNone;
  std::uint64_t first = 0;
  std::uint64_t second = 0;
};

void store_fault(common::StatusPage& status, const RingFault& fault) noexcept;

}  // namespace worker
