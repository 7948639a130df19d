// Macvtaps: an interface whose frames are read and written through a node of its own in /dev.
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <sys/ioctl.h>

#include <cerrno>
#include <fstream>
#include <string>
#include <utility>

#include "broker/tap_steps.h"
#include "broker/text.h"
#include "common/device_kind.h"

namespace broker {
namespace {

using common::fail;
using common::Fd;
using common::FdRef;

std::uint32_t wanted_pairs(const DeviceConfig& config) {
  return config.num_queues.value_or(common::kNetPairsMax);
}

// "mknod /dev/tap7 c 238 1", for those without udev and devtmpfs.
std::string node_hint(const Link& link, const std::string& path) {
  const std::string base = "/sys/class/net/" + link.name + "/tap" + std::to_string(link.index);
  std::ifstream file(base + "/dev");
  unsigned device_major = 0;
  unsigned device_minor = 0;
  char colon = 0;
  if (!(file >> device_major >> colon >> device_minor)) return "";
  return ": mknod " + path + " c " + std::to_string(device_major) + " " +
         std::to_string(device_minor);
}

Answer<Fd> open_node(const Link& link, const std::string& path) {
  for (int attempt = 0;; ++attempt) {
    Fd queue(::open(path.c_str(), O_RDWR | O_CLOEXEC | O_NONBLOCK));
    if (queue.valid()) return queue;
    const bool may_come = errno == ENOENT || errno == ENXIO || errno == EACCES;
    if (may_come && attempt + 1 < kTapAttempts) {
      wait_before_next_attempt();
      continue;
    }
    switch (errno) {
      case ENOENT:
      case ENXIO:
        return fail("macvtap " + in_quotes(link.name) + " has no node " + path +
                    "; make it, or give the container that device" + node_hint(link, path));
      case EACCES:
      case EPERM:
        return fail("macvtap " + in_quotes(link.name) + ": this user may not open " + path +
                    "; change its owner, or pass it open with --tap-fd");
      case EBUSY:
        return fail("macvtap " + in_quotes(link.name) +
                    " has no queue left: other processes hold them; stop those, or give fewer "
                    "--num-queues");
      default:
        return fail("macvtap " + in_quotes(link.name) + ": " + path + ": " + errno_text(errno));
    }
  }
}

// Interfaces of different namespaces may have one number, and so one node.
Answer<void> check_node(FdRef queue, const Link& link, const std::string& path) {
  ifreq request{};
  const bool asked = ::ioctl(queue.number, TUNGETIFF, &request) == 0;
  if (asked && link.name == request.ifr_name && address_of(queue) == link.mac) return {};
  return fail("macvtap " + in_quotes(link.name) + ": " + path +
              " belongs to an interface of another network namespace; make the right node in a "
              "place of its own and pass it open with --tap-fd");
}

Answer<void> join_queues(FdRef queue, const Link& link) {
  ifreq request{};
  request.ifr_flags = static_cast<short>(kTapFlags | IFF_MULTI_QUEUE);
  if (::ioctl(queue.number, TUNSETIFF, &request) == 0) return {};
  return fail("macvtap " + in_quotes(link.name) +
              " takes no header for offloads: " + errno_text(errno));
}

// Between brokers: the kernel lets anybody open another queue, and gives it some of the packets.
Answer<void> lock_node(FdRef queue, const Link& link) {
  struct flock whole {};
  whole.l_type = F_WRLCK;
  whole.l_whence = SEEK_SET;
  for (int attempt = 0; attempt < kTapAttempts; ++attempt) {
    if (::fcntl(queue.number, F_OFD_SETLK, &whole) == 0) return {};
    if (errno != EAGAIN && errno != EACCES) return {};  // Cannot be locked here: nobody can.
    wait_before_next_attempt();
  }
  return fail("macvtap " + in_quotes(link.name) +
              " is in use: another process holds a lock on it; stop that, or give another");
}

}  // namespace

Answer<Tap> open_macvtap(const DeviceConfig& config) {
  TRY_LET(const auto link, look_up_link(config.macvtap));
  if (!link) {
    return fail("macvtap " + in_quotes(config.macvtap) +
                " does not exist; check --macvtap, or make it: ip link add link eth0 name " +
                clean_text(config.macvtap) + " type macvtap mode bridge");
  }
  if (link->kind != "macvtap" && link->kind != "ipvtap") {
    return fail("macvtap " + in_quotes(config.macvtap) + " is no macvtap" +
                (link->kind == "tun" ? "; give --tap-name=" + clean_text(link->name)
                                     : "; give the name of one"));
  }
  const std::string path = "/dev/tap" + std::to_string(link->index);
  Tap tap;
  tap.macvtap = true;
  tap.multiqueue = true;
  while (tap.queues.size() < wanted_pairs(config)) {
    TRY_LET(Fd queue, open_node(*link, path));
    if (tap.queues.empty()) {
      TRY(check_node(queue.ref(), *link, path));
      TRY(lock_node(queue.ref(), *link));
    }
    TRY(join_queues(queue.ref(), *link));
    tap.queues.push_back(std::move(queue));
  }
  describe_tap(tap, *link);
  identify_tap(tap);
  return finish_tap(std::move(tap));
}

}  // namespace broker
