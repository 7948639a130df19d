// common/device_kind.h: the device types that exist, as processes tell each other.
#pragma once

#include <cstdint>

namespace common {

enum class DeviceKind : std::uint32_t { kBlk = 1, kNet = 2 };

// How a worker moves data. kIoUring: two system calls and no descriptor once sealed. kFallback: for
// hosts that switch io_uring off; positional reads and writes, Linux AIO where the disk is direct.
enum class EngineKind : std::uint32_t { kIoUring = 1, kFallback = 2 };

// The default number of virtqueues offered, and the most anybody gets.
inline constexpr std::uint32_t kQueuesMax = 64;

}  // namespace common
