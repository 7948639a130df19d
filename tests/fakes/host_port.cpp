#include "tests/fakes/host_port.h"

#include <arpa/inet.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

#include "tests/fakes/failure.h"

namespace fakes {
namespace {

namespace net = common::net;

constexpr std::uint16_t kExperimental = 0x88b5;
constexpr std::size_t kBufferBytes = 1 << 17;
constexpr int kSocketBytes = 64 << 20;
constexpr std::size_t kEthernet = 14;
constexpr std::size_t kIp4 = 20;
constexpr std::size_t kIp6 = 40;
constexpr std::size_t kTcp = 20;
constexpr std::size_t kUdp = 8;
constexpr std::uint8_t kTcpProtocol = 6;
constexpr std::uint8_t kUdpProtocol = 17;
constexpr std::uint16_t kSegmentBytes = 1400;

void set_option(common::FdRef socket, int level, int name, int value) {
  require_call(::setsockopt(socket.number, level, name, &value, sizeof(value)) == 0, "setsockopt");
}

void put16(std::byte* to, std::size_t value) {
  to[0] = static_cast<std::byte>(value >> 8);
  to[1] = static_cast<std::byte>(value);
}

std::uint32_t sum_of(std::span<const std::byte> bytes, std::uint32_t sum = 0) {
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    sum += std::to_integer<std::uint32_t>(bytes[i]) << (i % 2 == 0 ? 8 : 0);
    sum = (sum & 0xffff) + (sum >> 16);
  }
  return sum;
}

std::uint32_t next_random(std::uint32_t& state) {
  state = state * 1664525U + 1013904223U;
  return state >> 16;
}

std::vector<std::byte> make_pool() {
  std::vector<std::byte> pool(kBufferBytes);
  std::uint32_t state = 1;
  for (std::byte& byte : pool) byte = static_cast<std::byte>(next_random(state));
  return pool;
}

// A stretch of one long random text, which starts where `seed` says: tens of thousands of large
// frames are made and compared.
void fill(std::span<std::byte> bytes, std::uint32_t seed) {
  static const std::vector<std::byte> pool = make_pool();
  const std::size_t start = seed * 2654435761U % (pool.size() - bytes.size());
  std::memcpy(bytes.data(), pool.data() + start, bytes.size());
}

void put_ethernet(std::span<std::byte> frame, std::uint16_t type, bool from_guest) {
  const net::Mac& to = from_guest ? kHostMac : kGuestMac;
  const net::Mac& from = from_guest ? kGuestMac : kHostMac;
  std::memcpy(frame.data(), to.data(), to.size());
  std::memcpy(frame.data() + 6, from.data(), from.size());
  put16(frame.data() + 12, type);
}

// Addresses of documentation (RFC 5737, RFC 3849); the header's own checksum filled in.
void put_ip4(std::span<std::byte> packet, std::uint8_t protocol) {
  const std::array<std::uint8_t, kIp4> head = {0x45, 0, 0,   0, 0, 1,   0x40, 0, 64, protocol,
                                               0,    0, 192, 0, 2, 100, 192,  0, 2,  101};
  std::memcpy(packet.data(), head.data(), head.size());
  put16(packet.data() + 2, packet.size());
  put16(packet.data() + 10, ~sum_of(packet.first(kIp4)) & 0xffff);
}

void put_ip6(std::span<std::byte> packet, std::uint8_t protocol) {
  std::fill_n(packet.begin(), kIp6, std::byte{0});
  packet[0] = std::byte{0x60};
  put16(packet.data() + 4, packet.size() - kIp6);
  packet[6] = static_cast<std::byte>(protocol);
  packet[7] = std::byte{64};
  for (const std::size_t address : {std::size_t{8}, std::size_t{24}}) {
    packet[address] = std::byte{0x20};
    packet[address + 1] = std::byte{0x01};
    packet[address + 2] = std::byte{0x0d};
    packet[address + 3] = std::byte{0xb8};
    packet[address + 15] = static_cast<std::byte>(address);
  }
}

// The pseudo header's sum, which stands in the checksum field of what is not finished.
std::uint32_t pseudo_sum(std::span<const std::byte> addresses, std::size_t bytes,
                         std::uint8_t protocol) {
  std::array<std::byte, 8> rest{};
  put16(rest.data() + 2, bytes);
  put16(rest.data() + 6, protocol);
  return sum_of(rest, sum_of(addresses));
}

struct Form {
  bool six;
  bool tcp;
  net::Gso gso;
  bool ecn;
};

Form form_of(Unfinished kind) {
  switch (kind) {
    case Unfinished::kTcp4Checksum:
      return {false, true, net::Gso::kNone, false};
    case Unfinished::kTcp6Checksum:
      return {true, true, net::Gso::kNone, false};
    case Unfinished::kUdp4Checksum:
      return {false, false, net::Gso::kNone, false};
    case Unfinished::kTcp4Segments:
      return {false, true, net::Gso::kTcp4, false};
    case Unfinished::kTcp4EcnSegments:
      return {false, true, net::Gso::kTcp4, true};
    case Unfinished::kTcp6Segments:
      return {true, true, net::Gso::kTcp6, false};
    case Unfinished::kUdp4Segments:
      return {false, false, net::Gso::kUdpL4, false};
    case Unfinished::kUdp6Segments:
      return {true, false, net::Gso::kUdpL4, false};
  }
  return {};
}

}  // namespace

HostPort::HostPort(const std::string& interface)
    : socket_(::socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0)), buffer_(kBufferBytes) {
  require_call(socket_.valid(), "packet socket");
  const common::FdRef fd = socket_.ref();
  set_option(fd, SOL_PACKET, PACKET_VNET_HDR, 1);
  set_option(fd, SOL_PACKET, PACKET_IGNORE_OUTGOING, 1);
  set_option(fd, SOL_SOCKET, SO_RCVBUFFORCE, kSocketBytes);
  set_option(fd, SOL_SOCKET, SO_SNDBUFFORCE, kSocketBytes);
  sockaddr_ll address{};
  address.sll_family = AF_PACKET;
  address.sll_protocol = htons(ETH_P_ALL);
  address.sll_ifindex = static_cast<int>(::if_nametoindex(interface.c_str()));
  require(address.sll_ifindex != 0, "no interface " + interface);
  require_call(::bind(fd.number, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) == 0,
               "bind to " + interface);
}

bool HostPort::try_send(const NetPacket& packet) {
  net::WireHeader header = packet.header;
  std::array<iovec, 2> parts = {
      {{&header, net::kLegacyHeaderBytes},
       {const_cast<std::byte*>(packet.frame.data()), packet.frame.size()}}};
  return ::writev(socket_.ref().number, parts.data(), parts.size()) >= 0;
}

void HostPort::send(const NetPacket& packet) {
  require_call(try_send(packet), "send " + std::to_string(packet.frame.size()) + " bytes");
}

void HostPort::send(std::span<const std::byte> frame) {
  send(NetPacket{.header = {}, .frame = {frame.begin(), frame.end()}});
}

std::optional<NetPacket> HostPort::receive(int timeout_ms) {
  pollfd waiting{socket_.ref().number, POLLIN, 0};
  int ready = 0;
  do {
    ready = ::poll(&waiting, 1, timeout_ms);
  } while (ready < 0 && errno == EINTR);
  if (ready <= 0) return std::nullopt;
  NetPacket packet;
  std::array<iovec, 2> parts = {
      {{&packet.header, net::kLegacyHeaderBytes}, {buffer_.data(), buffer_.size()}}};
  const ssize_t got = ::readv(socket_.ref().number, parts.data(), parts.size());
  require_call(got >= static_cast<ssize_t>(net::kLegacyHeaderBytes), "receive a packet");
  const auto bytes = static_cast<std::ptrdiff_t>(got) - net::kLegacyHeaderBytes;
  packet.frame.assign(buffer_.begin(), buffer_.begin() + bytes);
  return packet;
}

std::vector<std::byte> make_frame(std::size_t bytes, std::uint32_t seed, bool from_guest) {
  std::vector<std::byte> frame(bytes);
  put_ethernet(frame, kExperimental, from_guest);
  fill(std::span(frame).subspan(kEthernet), seed);
  return frame;
}

NetPacket make_unfinished(Unfinished kind, std::size_t frame_bytes, std::uint32_t seed,
                          bool from_guest) {
  const Form form = form_of(kind);
  const std::size_t ip = form.six ? kIp6 : kIp4;
  const std::size_t transport = form.tcp ? kTcp : kUdp;
  const std::uint8_t protocol = form.tcp ? kTcpProtocol : kUdpProtocol;
  const std::size_t heads = kEthernet + ip + transport;
  require(frame_bytes >= heads, "a frame too short for its headers");
  NetPacket packet;
  packet.frame.resize(frame_bytes);
  const std::span<std::byte> frame(packet.frame);
  put_ethernet(frame, form.six ? ETH_P_IPV6 : ETH_P_IP, from_guest);
  const std::span<std::byte> datagram = frame.subspan(kEthernet);
  form.six ? put_ip6(datagram, protocol) : put_ip4(datagram, protocol);
  const std::span<std::byte> segment = datagram.subspan(ip);
  std::fill_n(segment.begin(), transport, std::byte{0});
  put16(segment.data(), 4000 + seed % 1000);
  put16(segment.data() + 2, 5000);
  if (form.tcp) {
    segment[12] = std::byte{0x50};                               // Five words of header.
    segment[13] = form.ecn ? std::byte{0x90} : std::byte{0x10};  // ACK, CWR.
    put16(segment.data() + 14, 0xffff);
  } else {
    put16(segment.data() + 4, segment.size());
  }
  fill(segment.subspan(transport), seed);
  const std::size_t checksum = form.tcp ? 16 : 6;
  const auto addresses = form.six ? datagram.subspan(8, 32) : datagram.subspan(12, 8);
  put16(segment.data() + checksum, pseudo_sum(addresses, segment.size(), protocol));
  packet.header.flags = net::kHeaderNeedsCsum;
  packet.header.csum_start = common::Le16(static_cast<std::uint16_t>(kEthernet + ip));
  packet.header.csum_offset = common::Le16(static_cast<std::uint16_t>(checksum));
  if (form.gso != net::Gso::kNone) {
    packet.header.gso_type = static_cast<std::uint8_t>(static_cast<std::uint8_t>(form.gso) |
                                                       (form.ecn ? net::kGsoEcn : 0));
    packet.header.hdr_len = common::Le16(static_cast<std::uint16_t>(heads));
    packet.header.gso_size = common::Le16(kSegmentBytes);
  }
  return packet;
}

std::vector<std::byte> finish_checksum(const NetPacket& packet) {
  std::vector<std::byte> frame = packet.frame;
  const std::size_t start = packet.header.csum_start.get();
  const std::uint32_t sum = sum_of(std::span(frame).subspan(start));
  const std::uint32_t value = ~sum & 0xffff;
  put16(frame.data() + start + packet.header.csum_offset.get(), value == 0 ? 0xffff : value);
  return frame;
}

}  // namespace fakes
