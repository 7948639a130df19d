#include "broker/open_tap.h"

#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <fstream>
#include <optional>
#include <utility>

#include "broker/link.h"
#include "broker/setting_values.h"
#include "broker/tap_steps.h"
#include "broker/text.h"
#include "common/device_kind.h"

namespace broker {
namespace {

using common::fail;
using common::Fd;
using common::FdRef;

constexpr const char* kTunPath = "/dev/net/tun";
// --- by name -------------------------------------------------------------------------------------

std::string make_it(const std::string& name) {
  return "ip tuntap add dev " + clean_text(name) + " mode tap multi_queue";
}

std::string what_it_is(const Link& link) {
  if (link.kind == "macvtap" || link.kind == "ipvtap") {
    return "is a " + link.kind + "; give --macvtap=" + clean_text(link.name) + " instead";
  }
  if (link.layer3) {
    return "is a tun, which carries no Ethernet frames; make it with mode tap: " +
           make_it(link.name);
  }
  const std::string kind = link.kind.empty() ? "another kind of interface" : "a " + link.kind;
  return "is no tap but " + kind + "; give the name of a tap, or make one: " + make_it("tap0");
}

std::string open_failed(int os_errno) {
  switch (os_errno) {
    case ENOENT:
    case ENODEV:
    case ENXIO:
      return "cannot be opened: there is no /dev/net/tun; load the module (modprobe tun), or give "
             "the container that device";
    case EACCES:
    case EPERM:
      return "cannot be opened: this user may not open /dev/net/tun; change its permissions, or "
             "pass the open tap with --tap-fd";
    default:
      return std::string("cannot be opened: ") + kTunPath + ": " + errno_text(os_errno);
  }
}

std::string attach_failed(int os_errno, const DeviceConfig& config) {
  switch (os_errno) {
    case EBUSY:
      return "is in use: another process has it open; stop that, or give another tap";
    case EPERM:
      return "may not be opened by this user; make it theirs (" + make_it(config.tap_name) +
             " user NAME), give Bulkhead CAP_NET_ADMIN, or pass the open tap with --tap-fd";
    case E2BIG:
      return "has no queue left: other processes hold them; stop those, or give fewer "
             "--num-queues";
    case EMFILE:
      return "needs more descriptors than this process may have; raise that limit (ulimit -n, "
             "LimitNOFILE=), or give fewer --num-queues";
    default:
      return "cannot be opened: " + errno_text(os_errno);
  }
}

// One more queue of the tap, made if there is none. The errno where it could not be had.
common::Result<Fd, int> open_queue(const std::string& name, short flags) {
  Fd queue(::open(kTunPath, O_RDWR | O_CLOEXEC | O_NONBLOCK));
  if (!queue.valid()) return fail(errno);
  ifreq request{};
  std::copy_n(name.begin(), std::min<std::size_t>(name.size(), IFNAMSIZ - 1), request.ifr_name);
  request.ifr_flags = flags;
  if (::ioctl(queue.ref().number, TUNSETIFF, &request) != 0) return fail(errno);
  return queue;
}

// The first queue decides whether there can be others.
common::Result<Fd, int> open_first(Tap& tap, const DeviceConfig& config) {
  std::array<short, 2> attempts = {kTapFlags | IFF_MULTI_QUEUE, kTapFlags};
  if (config.num_queues == 1U && config.tap_create) std::swap(attempts[0], attempts[1]);
  for (int attempt = 0;; ++attempt) {
    int os_errno = EINVAL;  // It was made the other way.
    for (std::size_t i = 0; i < attempts.size() && os_errno == EINVAL; ++i) {
      auto queue = open_queue(config.tap_name, attempts[i]);
      tap.multiqueue = (attempts[i] & IFF_MULTI_QUEUE) != 0;
      if (queue) return queue;
      os_errno = queue.error();
    }
    if (os_errno != EBUSY || attempt + 1 >= kTapAttempts) return fail(os_errno);
    wait_before_next_attempt();
  }
}

// What is there under that name; a tap that is missing is somebody's typing error, unless it is to
// be made.
Answer<void> check_link(const std::optional<Link>& link, const DeviceConfig& config) {
  const std::string& name = config.tap_name;
  if (!link) {
    if (config.tap_create) return {};
    return tap_error(name, "does not exist; check --tap-name, make it (" + make_it(name) +
                               "), or give --tap-create");
  }
  // A tap's driver calls itself "tun" whatever it carries.
  if (link->kind != "tun" || link->layer3) return tap_error(name, what_it_is(*link));
  return {};
}

// The kernel lets several processes share a multiqueue tap, and each would get some of the packets.
Answer<void> refuse_sharing(const Tap& tap) {
  for (int attempt = 0;; ++attempt) {
    TRY_LET(const auto link, look_up_link(tap.name));
    const int ours = static_cast<int>(tap.queues.size());
    if (!link || !link->queues || *link->queues <= ours) return {};
    if (attempt + 1 >= kTapAttempts) {
      return tap_error(tap.name, "is in use: another process has " +
                                     std::to_string(*link->queues - ours) +
                                     " of its queues open; stop that, or give another tap");
    }
    wait_before_next_attempt();
  }
}

Answer<void> set_up(const std::string& name) {
  const Fd socket(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  ifreq request{};
  std::copy_n(name.begin(), std::min<std::size_t>(name.size(), IFNAMSIZ - 1), request.ifr_name);
  request.ifr_flags = IFF_UP;
  if (socket.valid() && ::ioctl(socket.ref().number, SIOCSIFFLAGS, &request) == 0) return {};
  return tap_error(name, "was made, and cannot be set up: " + errno_text(errno));
}

// Descriptors of ours, or queues of the tap.
bool is_exhausted(int os_errno) { return os_errno == EMFILE || os_errno == E2BIG; }

Answer<Tap> open_by_name(const DeviceConfig& config) {
  const std::string& name = config.tap_name;
  TRY_LET(const auto before, look_up_link(name));
  TRY(check_link(before, config));
  if (::access(kTunPath, R_OK | W_OK) != 0) return tap_error(name, open_failed(errno));
  Tap tap;
  auto first = open_first(tap, config);
  if (!first) return tap_error(name, attach_failed(first.error(), config));
  tap.queues.push_back(*std::move(first));
  const std::uint32_t pairs = config.num_queues.value_or(tap.multiqueue ? common::kNetPairsMax : 1);
  if (pairs > 1 && !tap.multiqueue) {
    return tap_error(name, "has one queue, and --num-queues asks for " + std::to_string(pairs) +
                               "; make it with multi_queue (" + make_it(name) +
                               "), or give --num-queues=1");
  }
  while (tap.queues.size() < pairs) {
    auto queue = open_queue(name, kTapFlags | IFF_MULTI_QUEUE);
    const bool as_many_as_can_be = !config.num_queues;
    if (!queue && as_many_as_can_be && is_exhausted(queue.error())) break;
    if (!queue) return tap_error(name, attach_failed(queue.error(), config));
    tap.queues.push_back(*std::move(queue));
  }
  if (!before) TRY(set_up(name));
  TRY_LET(const auto link, look_up_link(name));
  if (link) describe_tap(tap, *link);
  identify_tap(tap);
  TRY(refuse_sharing(tap));
  return finish_tap(std::move(tap));
}

// --- inherited -----------------------------------------------------------------------------------

std::string number_text(FdRef fd) { return "descriptor " + std::to_string(fd.number); }

// What TUNGETIFF says of one that was handed to us.
Answer<ifreq> ask_queue(FdRef fd) {
  struct stat status {};
  if (::fstat(fd.number, &status) != 0) {
    return fail("--tap-fd: " + number_text(fd) +
                " is not open; pass the open tap under that number");
  }
  ifreq request{};
  if (!S_ISCHR(status.st_mode) ||
      (::ioctl(fd.number, TUNGETIFF, &request) != 0 && errno != EBADFD)) {
    return fail("--tap-fd: " + number_text(fd) +
                " is no tap; open /dev/net/tun (or a macvtap's /dev/tapN) and pass that");
  }
  if (request.ifr_name[0] == '\0') {
    return fail("--tap-fd: " + number_text(fd) +
                " is /dev/net/tun without an interface; attach it with TUNSETIFF before it is "
                "passed");
  }
  request.ifr_name[IFNAMSIZ - 1] = '\0';
  return request;
}

Answer<void> check_flags(FdRef fd, const ifreq& asked) {
  const auto flags = static_cast<unsigned short>(asked.ifr_flags);
  const std::string which =
      "--tap-fd: " + number_text(fd) + " (" + clean_text(asked.ifr_name) + ") ";
  if ((flags & IFF_TAP) == 0) {
    return fail(which + "is a tun, which carries no Ethernet frames; open it with IFF_TAP");
  }
  if ((flags & IFF_VNET_HDR) == 0 || (flags & IFF_NO_PI) == 0) {
    return fail(which +
                "has no header for offloads; open it with IFF_TAP | IFF_NO_PI | IFF_VNET_HDR");
  }
  return {};
}

bool is_macvtap(FdRef queue) {
  constexpr unsigned kMiscMajor = 10;  // /dev/net/tun; macvtaps get a number of their own.
  struct stat status {};
  return ::fstat(queue.number, &status) == 0 && major(status.st_rdev) != kMiscMajor;
}

// The interface may be in another network namespace, where ours may have one of the same name: the
// address tells them apart.
Answer<void> describe_inherited(Tap& tap) {
  tap.mac = address_of(tap.queues.front().ref());
  TRY_LET(const auto link, look_up_link(tap.name));
  if (link && link->mac == tap.mac) describe_tap(tap, *link);
  identify_tap(tap);
  return {};
}

Answer<Tap> open_by_descriptor(const DeviceConfig& config) {
  Tap tap;
  tap.multiqueue = true;
  for (const int number : config.tap_fds) {
    TRY_LET(const ifreq asked, ask_queue(FdRef{number}));
    TRY(check_flags(FdRef{number}, asked));
    if (!tap.name.empty() && tap.name != asked.ifr_name) {
      return fail("--tap-fd: " + number_text(FdRef{number}) + " is of " +
                  in_quotes(asked.ifr_name) + ", the first of " + in_quotes(tap.name) +
                  "; pass queues of one tap");
    }
    tap.name = asked.ifr_name;
    tap.multiqueue = tap.multiqueue && (asked.ifr_flags & IFF_MULTI_QUEUE) != 0;
    Fd queue(::fcntl(number, F_DUPFD_CLOEXEC, 3));
    if (!queue.valid()) return tap_error(tap.name, "cannot be kept: " + errno_text(errno));
    tap.queues.push_back(std::move(queue));
    ::close(number);
  }
  if (tap.queues.size() > 1 && !tap.multiqueue) {
    return tap_error(tap.name,
                     "has one queue, and --tap-fd names several; open it with "
                     "IFF_MULTI_QUEUE, once for each pair");
  }
  tap.macvtap = is_macvtap(tap.queues.front().ref());
  TRY(describe_inherited(tap));
  return finish_tap(std::move(tap));
}

// --- address -------------------------------------------------------------------------------------

// FNV-1a, then a finaliser that spreads it over all bits.
std::uint64_t hash_of(const std::string& text) {
  std::uint64_t hash = 0xcbf2'9ce4'8422'2325ULL;
  for (const char character : text) {
    hash = (hash ^ static_cast<std::uint8_t>(character)) * 0x0000'0100'0000'01b3ULL;
  }
  hash = (hash ^ (hash >> 31)) * 0x94d0'49bb'1331'11ebULL;
  return hash ^ (hash >> 32);
}

}  // namespace

Answer<Tap> open_tap(const DeviceConfig& config) {
  if (!config.tap_fds.empty()) return open_by_descriptor(config);
  if (!config.macvtap.empty()) return open_macvtap(config);
  return open_by_name(config);
}

MacAddress make_mac(const std::string& device, const std::string& interface) {
  std::string host;
  std::ifstream("/etc/machine-id") >> host;  // Two hosts of one network both have a tap0.
  const std::uint64_t hash = hash_of(host + "/" + device + "/" + interface);
  MacAddress mac{0x52, 0x54};  // Locally administered, and one card's, as QEMU's are.
  for (std::size_t i = 2; i < mac.size(); ++i) mac[i] = static_cast<std::uint8_t>(hash >> (8 * i));
  return mac;
}

}  // namespace broker
