// broker/tap_control.h: what is done to a tap while it serves: attach and detach queues, choose
// offloads, show the carrier. None of it needs a capability: the open descriptor is enough.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "broker/open_tap.h"
#include "common/fd.h"
#include "common/result.h"

namespace broker {

// A detached queue gets no packets, and what it had is dropped. Nothing happens where the tap has
// only one queue or the queue is that way already.
[[nodiscard]] common::Result<void> attach_queue(const Tap& tap, std::size_t pair, bool attached);

// TUN_F_*: what the guest takes unfinished; for the whole interface.
[[nodiscard]] common::Result<void> set_offloads(const Tap& tap, std::uint32_t offloads);

// Whether the interface's other users see a cable; while no queue is attached. Not for macvtaps,
// which have their parent's.
void set_carrier(const Tap& tap, bool on) noexcept;

// Sends a queue only what is for one of these addresses. A tap's only, and only to spare the guest
// the rest: the first ones are compared exactly, the others roughly.
void set_receive_filter(const Tap& tap, std::span<const MacAddress> macs,
                        bool all_multicast) noexcept;
void clear_receive_filter(const Tap& tap) noexcept;

// What waits in a queue is thrown away, unread: it was meant for a guest that is gone.
void discard_packets(common::FdRef queue) noexcept;

}  // namespace broker
