// broker/open_tap.h: from a name, or from inherited descriptors, to the open queues of a tap or
// macvtap: checked, set up, and attached to nothing yet.
//
// Whoever holds a queue's descriptor can change the interface by ioctl (its MAC, carrier, filters),
// so every ioctl is the broker's, here and in tap_control.h, and workers have none.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <vector>

#include "broker/config.h"
#include "common/fd.h"

namespace broker {

// Linux 6.2; older headers do not have them.
inline constexpr std::uint32_t kTunUso4 = 0x20;
inline constexpr std::uint32_t kTunUso6 = 0x40;

struct NetCardState;

struct Tap {
  // One for each pair: read by its receive worker, written by its transmit worker. O_NONBLOCK; a
  // packet is preceded by a little-endian virtio_net_hdr of 12 bytes.
  std::vector<common::Fd> queues;
  std::string name;  // What the kernel called it when it was opened.
  int index = 0;     // 0: it is in another network namespace, so it cannot be watched.
  bool up = true;    // Set up by its administrator, as far as we can see.
  bool macvtap = false;
  bool multiqueue = false;  // Its queues can be attached and detached.
  std::uint32_t mtu = 1500;
  MacAddress mac{};            // The interface's own.
  std::uint32_t offloads = 0;  // TUN_F_*: what may be passed to the guest unfinished.
  bool left = false;           // By an earlier broker, whose guest it serves: see adopt_tap().
  bool nowait = false;         // RWF_NOWAIT works, which workers with io_uring need (Linux 6.4).
  dev_t device = 0;            // Identity: the macvtap's node, or tun's and the interface's index.
  ino_t inode = 0;
};

// By config.tap_name, tap_fds or macvtap; config.num_queues pairs, or as many as can be had. All
// queues are detached, where they can be, and nothing is offloaded.
[[nodiscard]] Answer<Tap> open_tap(const DeviceConfig& config);

// One that an earlier broker has left: all of its queues, in order. They are as they were; fails
// where `config` says another tap.
[[nodiscard]] Answer<Tap> adopt_tap(const DeviceConfig& config, std::vector<common::Fd> queues,
                                    const NetCardState& state);

// The guest's end of a tap has an address of its own: made from the names of host, device and
// interface, so it is the same after every start.
[[nodiscard]] MacAddress make_mac(const std::string& device, const std::string& interface);

}  // namespace broker
