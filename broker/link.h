// broker/link.h: what the kernel says of a network interface, by rtnetlink, now and whenever it
// changes. Needs no right; sees the interfaces of the broker's own network namespace only.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>

#include "broker/config.h"
#include "broker/event_loop.h"
#include "common/fd.h"
#include "common/result.h"

namespace broker {

struct Link {
  int index = 0;
  std::string name;
  std::string kind;  // IFLA_INFO_KIND: "tun", "macvtap", "veth"; empty where it has none.
  MacAddress mac{};
  std::uint32_t mtu = 0;
  bool up = false;            // Set up by its administrator (IFF_UP).
  bool layer3 = false;        // A tun that carries IP packets, not frames.
  bool deleted = false;       // Only in changes: there is no such interface any more.
  std::optional<int> queues;  // Open queues of a multiqueue tap, attached or not.
};

// Nothing where there is no interface of that name.
[[nodiscard]] common::Result<std::optional<Link>> find_link(const std::string& name);

// Calls `changed` for each change of one interface, until it goes away. The broker is not woken for
// others: the kernel sorts them out.
class LinkWatch {
 public:
  using Changed = std::function<void(const Link&)>;

  [[nodiscard]] static common::Result<LinkWatch> start(EventLoop& loop, int index, Changed changed);

 private:
  common::Fd socket_;
  EventLoop::Registration watch_;
};

}  // namespace broker
