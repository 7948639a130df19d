#include "broker/tap_steps.h"

#include <fcntl.h>
#include <net/if.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/uio.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <climits>
#include <utility>

#include "broker/tap_control.h"
#include "broker/text.h"

namespace broker {
namespace {

using common::Fd;
using common::FdRef;

constexpr int kHeaderBytes = 12;  // virtio 1.2, 5.1.6: with num_buffers, always since VERSION_1.

// --- what every queue is told --------------------------------------------------------------------

Answer<void> prepare_queue(FdRef queue, const std::string& name) {
  int header = kHeaderBytes;
  int little_endian = 1;
  // Without a limit, as QEMU has it: one receiver on the host that does not read its socket must
  // not stop all that the guest sends.
  int send_buffer = INT_MAX;
  if (::ioctl(queue.number, TUNSETVNETHDRSZ, &header) != 0) {
    return tap_error(name, "takes no header of 12 bytes: " + errno_text(errno) +
                               "; Bulkhead needs Linux 4.8 or newer");
  }
  // Refused by kernels that have no other order.
  if (::ioctl(queue.number, TUNSETVNETLE, &little_endian) != 0 && errno != EINVAL) {
    return tap_error(name, "cannot be set to little-endian headers: " + errno_text(errno));
  }
  (void)::ioctl(queue.number, TUNSETSNDBUF, &send_buffer);
  const int flags = ::fcntl(queue.number, F_GETFL);
  if (flags < 0 || ::fcntl(queue.number, F_SETFL, flags | O_NONBLOCK) != 0) {
    return tap_error(name, "cannot be made non-blocking: " + errno_text(errno));
  }
  return {};
}

// What this kernel's taps can leave to the guest, tried one by one.
std::uint32_t probe_offloads(const Tap& tap) {
  constexpr std::array<unsigned, 6> kEach = {
      TUN_F_CSUM,
      TUN_F_CSUM | TUN_F_TSO4,
      TUN_F_CSUM | TUN_F_TSO6,
      TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN,
      TUN_F_CSUM | TUN_F_UFO,
      TUN_F_CSUM | kTunUso4 | kTunUso6,
  };
  std::uint32_t possible = 0;
  for (const unsigned each : kEach) {
    if (set_offloads(tap, each)) possible |= each;
  }
  (void)set_offloads(tap, 0);
  return possible;
}

}  // namespace

// One byte is too short for a packet: what is refused is that, or the flag.
bool takes_nowait(FdRef queue) {
  std::byte nothing{};
  const iovec part{&nothing, sizeof(nothing)};
  return ::pwritev2(queue.number, &part, 1, -1, RWF_NOWAIT) >= 0 || errno != EOPNOTSUPP;
}

void wait_before_next_attempt() noexcept {
  constexpr int kRetryMs = 20;
  ::poll(nullptr, 0, kRetryMs);
}

std::unexpected<std::string> tap_error(const std::string& name, const std::string& text) {
  return common::fail("tap " + in_quotes(name) + " " + text);
}

Answer<std::optional<Link>> look_up_link(const std::string& name) {
  auto link = find_link(name);
  if (link) return *std::move(link);
  return tap_error(name, "cannot be looked at: " + errno_text(link.error().os_errno));
}

MacAddress address_of(FdRef queue) {
  ifreq request{};
  MacAddress mac{};
  if (::ioctl(queue.number, SIOCGIFHWADDR, &request) == 0) {
    std::copy_n(reinterpret_cast<const std::uint8_t*>(request.ifr_hwaddr.sa_data), mac.size(),
                mac.begin());
  }
  return mac;
}

Answer<Tap> finish_tap(Tap tap) {
  for (const Fd& queue : tap.queues) TRY(prepare_queue(queue.ref(), tap.name));
  tap.offloads = probe_offloads(tap);
  tap.nowait = takes_nowait(tap.queues.front().ref());
  for (std::size_t i = 0; i < tap.queues.size(); ++i) {
    if (const auto detached = attach_queue(tap, i, false); !detached) {
      return tap_error(tap.name, "lets no queue go: " + errno_text(detached.error().os_errno));
    }
  }
  clear_receive_filter(tap);
  set_carrier(tap, false);
  return tap;
}

void describe_tap(Tap& tap, const Link& link) {
  tap.name = link.name;
  tap.index = link.index;
  tap.up = link.up;
  tap.mtu = link.mtu;
  tap.mac = link.mac;
}

void identify_tap(Tap& tap) {
  struct stat status {};
  if (::fstat(tap.queues.front().ref().number, &status) != 0) return;
  tap.device = status.st_rdev;
  tap.inode = tap.macvtap ? status.st_ino : static_cast<ino_t>(tap.index);
}

}  // namespace broker
