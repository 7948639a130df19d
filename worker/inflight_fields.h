// worker/inflight_fields.h: how both kinds of in-flight region are read, and which of their fields
// are wrong.
#pragma once

#include <cstdint>

#include "common/result.h"
#include "worker/ring_fault.h"

namespace worker {

// kInflightBroken's first number. The first seven are a split ring's.
enum class InflightField : std::uint64_t {
  kFeatures = 0,
  kVersion = 1,
  kEntries = 2,
  kUsedIndex = 3,
  kBatchList = 4,
  kFlag = 5,
  kHead = 6,
  kFreeList = 7,
  kChain = 8,
  kChainLength = 9,
  kLast = 10,
  kWrapCounter = 11,
};

[[nodiscard]] inline auto broken(InflightField field, std::uint64_t value) noexcept {
  return common::fail(RingFault{common::ipc::WorkerFault::kInflightBroken,
                                static_cast<std::uint64_t>(field), value});
}

// One fetch: the front-end may write at the same time.
template <typename T>
[[nodiscard]] T load(const T& field) noexcept {
  return __atomic_load_n(&field, __ATOMIC_RELAXED);
}

}  // namespace worker
