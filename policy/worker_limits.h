// policy/worker_limits.h: numbers that the profiles of several workers compare arguments against.
#pragma once

#include <linux/io_uring.h>

#include <cstdint>

#include "policy/profile.h"

namespace policy {

// The registered index of the ring: the first REGISTER_RING_FDS of a process gets 0.
inline constexpr std::uint64_t kRegisteredRing = 0;

inline constexpr std::uint64_t kEnterFlags =
    IORING_ENTER_GETEVENTS | IORING_ENTER_EXT_ARG | IORING_ENTER_REGISTERED_RING;

// An eventfd's counter, and nothing longer.
inline constexpr ArgLimit kEventfdBytes = arg_is(2, sizeof(std::uint64_t));
inline constexpr std::uint64_t kSegmentsMax = 1024;  // IOV_MAX

// ppoll: stop, kick and one more at most.
inline constexpr ArgLimit kPolledMax = arg_at_most(1, 3);

}  // namespace policy
