// common/device_kind.h: the device types that exist, as processes tell each other.
#pragma once

#include <cstdint>

namespace common {

enum class DeviceKind : std::uint32_t { kBlk = 1, kNet = 2 };

// How a worker moves data. kIoUring: two system calls and no descriptor once sealed. kFallback: for
// hosts that switch io_uring off; positional reads and writes, Linux AIO where the disk is direct.
enum class EngineKind : std::uint32_t { kIoUring = 1, kFallback = 2 };

// A disk's default number of virtqueues, and the most that it gets.
inline constexpr std::uint32_t kBlkQueuesMax = 64;
// A network card's most pairs of receive and transmit virtqueues.
inline constexpr std::uint32_t kNetPairsMax = 64;
// The most virtqueues that any device has: those pairs, and a control virtqueue.
inline constexpr std::uint32_t kQueuesMax = 2 * kNetPairsMax + 1;

}  // namespace common
