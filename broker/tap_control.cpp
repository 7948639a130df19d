#include "broker/tap_control.h"

#include <linux/if_tun.h>
#include <net/if.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>

namespace broker {

using common::fail_errno;

common::Result<void> attach_queue(const Tap& tap, std::size_t pair, bool attached) {
  if (!tap.multiqueue) return {};
  ifreq request{};
  request.ifr_flags = static_cast<short>(attached ? IFF_ATTACH_QUEUE : IFF_DETACH_QUEUE);
  // EINVAL: it is so already.
  if (::ioctl(tap.queues.at(pair).ref().number, TUNSETQUEUE, &request) == 0 || errno == EINVAL) {
    return {};
  }
  return fail_errno(attached ? "attach a queue to the tap" : "detach a queue from the tap", errno);
}

common::Result<void> set_offloads(const Tap& tap, std::uint32_t offloads) {
  if (tap.queues.empty()) return {};
  // The argument itself, not a pointer to it.
  if (::ioctl(tap.queues.front().ref().number, TUNSETOFFLOAD, offloads) == 0) return {};
  return fail_errno("choose the tap's offloads", errno);
}

void set_carrier(const Tap& tap, bool on) noexcept {
  if (tap.macvtap || tap.queues.empty()) return;
  int value = on ? 1 : 0;
  const int queue = tap.queues.front().ref().number;
  // Since Linux 5.0; before, the cable is there while the tap is open.
  if (::ioctl(queue, TUNSETCARRIER, &value) == 0 || errno != EPERM) return;
  // There is no cable without an attached queue, but it stays when the queue goes.
  if (!attach_queue(tap, 0, true)) return;
  (void)::ioctl(queue, TUNSETCARRIER, &value);
  (void)attach_queue(tap, 0, false);
}

void set_receive_filter(const Tap& tap, std::span<const MacAddress> macs,
                        bool all_multicast) noexcept {
  constexpr std::size_t kMacsMax = 128;
  struct {  // struct tun_filter, with room.
    std::uint16_t flags;
    std::uint16_t count;
    std::array<MacAddress, kMacsMax> macs;
  } filter{};
  if (tap.macvtap || tap.queues.empty() || macs.size() > kMacsMax) return;
  filter.flags = all_multicast ? TUN_FLT_ALLMULTI : 0;
  filter.count = static_cast<std::uint16_t>(macs.size());
  std::copy(macs.begin(), macs.end(), filter.macs.begin());
  (void)::ioctl(tap.queues.front().ref().number, TUNSETTXFILTER, &filter);
}

void clear_receive_filter(const Tap& tap) noexcept { set_receive_filter(tap, {}, false); }

void discard_packets(common::FdRef queue) noexcept {
  // A tap holds tx_queue_len packets, 1000 unless somebody has changed it.
  constexpr int kPacketsMax = 100'000;
  for (int i = 0; i < kPacketsMax; ++i) {
    // Too small for the header: the packet is dropped (EINVAL), and nothing of it is copied.
    std::byte nothing{};
    if (::read(queue.number, &nothing, sizeof(nothing)) < 0 && errno != EINVAL) return;
  }
}

}  // namespace broker
