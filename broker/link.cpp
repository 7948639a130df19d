#include "broker/link.h"

#include <arpa/inet.h>
#include <linux/filter.h>
#include <linux/if_link.h>
#include <linux/if_tun.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstddef>
#include <cstring>
#include <span>
#include <utility>
#include <vector>

namespace broker {
namespace {

using common::fail_errno;
using common::Fd;
using common::FdRef;
using common::Result;

// One message about one interface, all attributes included, is some 2 KiB.
constexpr std::size_t kMessageBytes = 16384;

// --- reading a message ---------------------------------------------------------------------------

using Attributes = std::span<const std::byte>;

// The payload of the first attribute of that type; empty where there is none.
Attributes find_attribute(Attributes list, unsigned type) {
  while (list.size() >= sizeof(rtattr)) {
    rtattr head{};
    std::memcpy(&head, list.data(), sizeof(head));
    if (head.rta_len < sizeof(rtattr) || head.rta_len > list.size()) return {};
    if ((head.rta_type & NLA_TYPE_MASK) == type) {
      return list.subspan(sizeof(rtattr), head.rta_len - sizeof(rtattr));
    }
    list = list.subspan(std::min<std::size_t>(RTA_ALIGN(head.rta_len), list.size()));
  }
  return {};
}

template <typename T>
std::optional<T> number_in(Attributes list, unsigned type) {
  const Attributes found = find_attribute(list, type);
  if (found.size() < sizeof(T)) return std::nullopt;
  T number{};
  std::memcpy(&number, found.data(), sizeof(number));
  return number;
}

std::string text_in(Attributes list, unsigned type) {
  const Attributes found = find_attribute(list, type);
  const auto* text = reinterpret_cast<const char*>(found.data());
  return {text, text == nullptr ? 0 : ::strnlen(text, found.size())};
}

void read_tun(Link& link, Attributes info) {
  const Attributes data = find_attribute(info, IFLA_INFO_DATA);
  link.layer3 = number_in<std::uint8_t>(data, IFLA_TUN_TYPE).value_or(IFF_TAP) == IFF_TUN;
  const auto attached = number_in<std::uint32_t>(data, IFLA_TUN_NUM_QUEUES);
  if (!attached) return;
  const auto detached = number_in<std::uint32_t>(data, IFLA_TUN_NUM_DISABLED_QUEUES);
  link.queues = static_cast<int>(*attached + detached.value_or(0));
}

std::optional<Link> read_link(std::span<const std::byte> message) {
  nlmsghdr head{};
  ifinfomsg body{};
  if (message.size() < NLMSG_LENGTH(sizeof(body))) return std::nullopt;
  std::memcpy(&head, message.data(), sizeof(head));
  if (head.nlmsg_type != RTM_NEWLINK && head.nlmsg_type != RTM_DELLINK) return std::nullopt;
  std::memcpy(&body, message.data() + NLMSG_HDRLEN, sizeof(body));
  const std::size_t end = std::min<std::size_t>(head.nlmsg_len, message.size());
  const std::size_t begin = NLMSG_SPACE(sizeof(body));
  const Attributes list = end > begin ? message.subspan(begin, end - begin) : Attributes{};

  Link link;
  link.index = body.ifi_index;
  link.up = (body.ifi_flags & IFF_UP) != 0;
  link.deleted = head.nlmsg_type == RTM_DELLINK;
  link.name = text_in(list, IFLA_IFNAME);
  link.mtu = number_in<std::uint32_t>(list, IFLA_MTU).value_or(0);
  link.mac = number_in<MacAddress>(list, IFLA_ADDRESS).value_or(MacAddress{});
  const Attributes info = find_attribute(list, IFLA_LINKINFO);
  link.kind = text_in(info, IFLA_INFO_KIND);
  if (link.kind == "tun") read_tun(link, info);
  return link;
}

// --- the socket ----------------------------------------------------------------------------------

Result<Fd> open_socket(unsigned groups) {
  Fd fd(::socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_ROUTE));
  if (!fd.valid()) return fail_errno("netlink socket", errno);
  sockaddr_nl address{};
  address.nl_family = AF_NETLINK;
  address.nl_groups = groups;
  if (::bind(fd.ref().number, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0) {
    return fail_errno("bind netlink socket", errno);
  }
  return fd;
}

Result<void> ask_for(FdRef socket, const std::string& name) {
  struct {
    nlmsghdr head;
    ifinfomsg body;
    rtattr attribute;
    std::array<char, IFNAMSIZ> name;
  } request{};
  request.head.nlmsg_len = sizeof(request);
  request.head.nlmsg_type = RTM_GETLINK;
  request.head.nlmsg_flags = NLM_F_REQUEST;
  request.attribute.rta_type = IFLA_IFNAME;
  request.attribute.rta_len = sizeof(request.attribute) + sizeof(request.name);
  std::copy_n(name.begin(), std::min(name.size(), request.name.size() - 1), request.name.begin());
  if (::send(socket.number, &request, sizeof(request), 0) < 0) {
    return fail_errno("ask for an interface", errno);
  }
  return {};
}

// Of messages about other interfaces nothing is left but the time the kernel takes to drop them.
Result<void> hear_only_of(FdRef socket, int index) {
  // The interface's number is in the ifinfomsg after the header; BPF loads are big-endian.
  constexpr std::uint32_t kIndexOffset = NLMSG_HDRLEN + offsetof(ifinfomsg, ifi_index);
  std::array<sock_filter, 4> program = {{
      {BPF_LD | BPF_W | BPF_ABS, 0, 0, kIndexOffset},
      {BPF_JMP | BPF_JEQ | BPF_K, 0, 1, htonl(static_cast<std::uint32_t>(index))},
      {BPF_RET | BPF_K, 0, 0, 0xffff'ffff},
      {BPF_RET | BPF_K, 0, 0, 0},
  }};
  const sock_fprog filter{static_cast<unsigned short>(program.size()), program.data()};
  if (::setsockopt(socket.number, SOL_SOCKET, SO_ATTACH_FILTER, &filter, sizeof(filter)) != 0) {
    return fail_errno("filter of a netlink socket", errno);
  }
  return {};
}

void read_changes(FdRef socket, const LinkWatch::Changed& changed) {
  std::vector<std::byte> buffer(kMessageBytes);
  while (true) {
    const ssize_t got = ::recv(socket.number, buffer.data(), buffer.size(), 0);
    if (got < 0 && (errno == EINTR || errno == ENOBUFS)) continue;  // Lost some: the last is kept.
    if (got <= 0) return;
    const auto link = read_link(std::span(buffer).first(static_cast<std::size_t>(got)));
    if (link) changed(*link);
  }
}

}  // namespace

Result<std::optional<Link>> find_link(const std::string& name) {
  TRY_LET(const Fd socket, open_socket(0));
  TRY(ask_for(socket.ref(), name));
  // The kernel has answered before send() returned.
  std::vector<std::byte> buffer(kMessageBytes);
  const ssize_t got = ::recv(socket.ref().number, buffer.data(), buffer.size(), 0);
  if (got < 0) return fail_errno("hear of an interface", errno);
  const auto message = std::span(buffer).first(static_cast<std::size_t>(got));
  if (auto link = read_link(message)) return link;
  nlmsgerr refusal{};
  if (message.size() < NLMSG_LENGTH(sizeof(refusal))) return fail_errno("a short answer", EPROTO);
  std::memcpy(&refusal, message.data() + NLMSG_HDRLEN, sizeof(refusal));
  if (refusal.error == -ENODEV) return std::optional<Link>{};
  return fail_errno("look at an interface", -refusal.error);
}

Result<LinkWatch> LinkWatch::start(EventLoop& loop, int index, Changed changed) {
  LinkWatch watch;
  TRY_LET(watch.socket_, open_socket(RTMGRP_LINK));
  TRY(hear_only_of(watch.socket_.ref(), index));
  TRY_LET(watch.watch_, loop.watch(watch.socket_.ref(), EPOLLIN,
                                   [socket = watch.socket_.ref(), changed = std::move(changed)](
                                       std::uint32_t) { read_changes(socket, changed); }));
  return watch;
}

}  // namespace broker
