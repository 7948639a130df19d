// worker/rate_map.h: maps the memory by which the broker limits rates (common/rate_page.h), before
// anything hostile is read.
//
// The settings are mapped read-only, the buckets for writing; the descriptors are closed at once,
// and a sealed worker can neither map nor protect anything anew.
#pragma once

#include <array>
#include <cstdint>

#include "common/shared_region.h"
#include "worker/rate_limiter.h"
#include "worker/start.h"

namespace worker {

struct RateMap {
  std::array<common::SharedRegion, 4> regions;
  RateMemories memories;
};

// `count` of WorkerFd::kRates and kGroupRates. What is mapped is added to what `guest` has to seal.
[[nodiscard]] Started<RateMap> map_rates(std::uint32_t count, Guest& guest) noexcept;

}  // namespace worker
