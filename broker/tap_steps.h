// broker/tap_steps.h: what every way to an open tap has in common: by name, by descriptor, or as a
// macvtap (open_tap.cpp, open_macvtap.cpp).
#pragma once

#include <linux/if_tun.h>

#include <optional>
#include <string>

#include "broker/config.h"
#include "broker/link.h"
#include "broker/open_tap.h"
#include "common/fd.h"

namespace broker {

inline constexpr short kTapFlags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR;

// A broker that was killed a moment ago holds its queues until the kernel has taken its workers'
// rings apart, and udev takes its time to set up a device node.
inline constexpr int kTapAttempts = 26;
void wait_before_next_attempt() noexcept;

// Whether RWF_NOWAIT works, which is the driver's: also for a queue of no interface yet.
[[nodiscard]] bool takes_nowait(common::FdRef queue);

// "tap 'tap0' …".
[[nodiscard]] std::unexpected<std::string> tap_error(const std::string& name,
                                                     const std::string& text);

[[nodiscard]] Answer<std::optional<Link>> look_up_link(const std::string& name);

// The interface's own address, by one of its queues.
[[nodiscard]] MacAddress address_of(common::FdRef queue);

void describe_tap(Tap& tap, const Link& link);
void identify_tap(Tap& tap);

// Its queues are open: all are set up, what the kernel can is found out, and they are made quiet.
[[nodiscard]] Answer<Tap> finish_tap(Tap tap);

[[nodiscard]] Answer<Tap> open_macvtap(const DeviceConfig& config);

}  // namespace broker
