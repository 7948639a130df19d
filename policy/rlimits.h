// policy/rlimits.h: what the kernel's resource limits can still take away.
#pragma once

#include <cstdint>

#include "common/result.h"

namespace policy {

struct JailLimits;

// No core dumps, no queues, no real-time priority; SIGXFSZ ignored, so that a write beyond the file
// size limit is an error and not a death.
[[nodiscard]] common::Result<void> set_early_rlimits() noexcept;

// Size of files, number of descriptors, locked memory and, where `own_user_namespace`, processes.
[[nodiscard]] common::Result<void> set_final_rlimits(const JailLimits& limits,
                                                     bool own_user_namespace) noexcept;

}  // namespace policy
