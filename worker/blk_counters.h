// worker/blk_counters.h: where requests are counted on the status page.
#pragma once

#include <cstdint>

#include "common/latency.h"
#include "common/status_page.h"
#include "common/virtio_blk_wire.h"
#include "worker/blk_request.h"

namespace worker {

[[nodiscard]] inline common::Counter counter_of(std::uint32_t type) noexcept {
  using common::Counter;
  using common::blk::RequestType;
  switch (static_cast<RequestType>(type)) {
    case RequestType::kIn:
      return Counter::kReadRequests;
    case RequestType::kOut:
      return Counter::kWriteRequests;
    case RequestType::kFlush:
      return Counter::kFlushRequests;
    case RequestType::kGetId:
      return Counter::kGetIdRequests;
    case RequestType::kDiscard:
      return Counter::kDiscardRequests;
    case RequestType::kWriteZeroes:
      return Counter::kWriteZeroesRequests;
  }
  return Counter::kOtherRequests;
}

// A histogram for each kind of work; no request that is measured is an answer only.
static_assert(static_cast<int>(ParsedRequest::Work::kRead) ==
                  static_cast<int>(common::LatencyKind::kRead) &&
              static_cast<int>(ParsedRequest::Work::kWrite) ==
                  static_cast<int>(common::LatencyKind::kWrite) &&
              static_cast<int>(ParsedRequest::Work::kFlush) ==
                  static_cast<int>(common::LatencyKind::kFlush) &&
              static_cast<int>(ParsedRequest::Work::kDiscard) ==
                  static_cast<int>(common::LatencyKind::kDiscard) &&
              static_cast<int>(ParsedRequest::Work::kWriteZeroes) ==
                  static_cast<int>(common::LatencyKind::kWriteZeroes));

}  // namespace worker
