#include "tests/bench/tap_side.h"

#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "common/virtio_net_wire.h"
#include "tests/fakes/failure.h"

namespace bench {

fakes::NetPacket bench_packet(std::uint32_t bytes, bool segments, bool from_guest) {
  if (segments) return make_unfinished(fakes::Unfinished::kTcp4Segments, bytes, 1, from_guest);
  return {.header = {}, .frame = fakes::make_frame(bytes, 1, from_guest)};
}

std::vector<std::byte> with_header(const fakes::NetPacket& packet) {
  std::vector<std::byte> all(common::net::kHeaderBytes + packet.frame.size());
  std::memcpy(all.data(), &packet.header, common::net::kHeaderBytes);
  std::memcpy(all.data() + common::net::kHeaderBytes, packet.frame.data(), packet.frame.size());
  return all;
}

RawTap::RawTap(const std::string& tap)
    : queue_(::open("/dev/net/tun", O_RDWR | O_CLOEXEC | O_NONBLOCK)) {
  fakes::require_call(queue_.valid(), "open /dev/net/tun");
  ifreq request{};
  tap.copy(request.ifr_name, IFNAMSIZ - 1);
  const int fd = queue_.ref().number;
  request.ifr_flags = static_cast<short>(IFF_TAP | IFF_NO_PI | IFF_VNET_HDR | IFF_MULTI_QUEUE);
  if (::ioctl(fd, TUNSETIFF, &request) != 0) {
    request.ifr_flags = static_cast<short>(IFF_TAP | IFF_NO_PI | IFF_VNET_HDR);
    fakes::require_call(::ioctl(fd, TUNSETIFF, &request) == 0, "attach to tap " + tap);
  }
  const int header = common::net::kHeaderBytes;
  fakes::require_call(::ioctl(fd, TUNSETVNETHDRSZ, &header) == 0, "TUNSETVNETHDRSZ");
  constexpr unsigned long kAll = TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN;
  fakes::require_call(::ioctl(fd, TUNSETOFFLOAD, kAll) == 0, "TUNSETOFFLOAD");
}

bool RawTap::write(const std::vector<std::byte>& frame) const {
  const ssize_t wrote = ::write(queue_.ref().number, frame.data(), frame.size());
  fakes::require_call(wrote >= 0 || errno == EAGAIN, "write to the tap");
  return wrote >= 0;
}

std::size_t RawTap::read(std::vector<std::byte>& buffer) const {
  const ssize_t got = ::read(queue_.ref().number, buffer.data(), buffer.size());
  fakes::require_call(got >= 0 || errno == EAGAIN, "read from the tap");
  return got < 0 ? 0 : static_cast<std::size_t>(got);
}

std::vector<std::byte> mac_of(const std::string& interface) {
  const common::Fd any(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  ifreq request{};
  interface.copy(request.ifr_name, IFNAMSIZ - 1);
  fakes::require_call(::ioctl(any.ref().number, SIOCGIFHWADDR, &request) == 0,
                      "the address of " + interface);
  std::vector<std::byte> mac(common::net::kMacBytes);
  std::memcpy(mac.data(), request.ifr_hwaddr.sa_data, mac.size());
  return mac;
}

}  // namespace bench
