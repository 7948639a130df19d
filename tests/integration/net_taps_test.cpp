// Taps by name and by descriptor, macvtaps, and everything that can be wrong with them: each with a
// line that says what to do.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <sys/ioctl.h>

#include <algorithm>
#include <chrono>
#include <string>
#include <thread>
#include <vector>

#include "tests/fakes/failure.h"
#include "tests/fakes/process.h"
#include "tests/integration/net_host.h"

namespace integration {
namespace {

namespace net = common::net;
using fakes::ip;
using testing::HasSubstr;

constexpr short kTapFlags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR;

// A queue of a tap, as a manager opens it for us.
common::Fd open_tap(const std::string& name, int flags) {
  common::Fd fd(::open("/dev/net/tun", O_RDWR | O_CLOEXEC));
  fakes::require_call(fd.valid(), "open /dev/net/tun");
  ifreq request{};
  std::copy(name.begin(), name.end(), request.ifr_name);
  request.ifr_flags = static_cast<short>(flags);
  fakes::require_call(::ioctl(fd.ref().number, TUNSETIFF, &request) == 0, "TUNSETIFF " + name);
  return fd;
}

std::string capabilities_of(pid_t pid) { return fakes::status_field(pid, "CapPrm"); }

constexpr std::uint64_t kNetAdmin = 1ULL << 12;  // CAP_NET_ADMIN

class NetTaps : public NetTest {
 protected:
  std::string failure_of(const std::vector<std::string>& options,
                         const std::vector<common::FdRef>& inherit = {}) {
    std::vector<std::string> arguments = {"net", host().socket_option(), host().engine_option()};
    arguments.insert(arguments.end(), options.begin(), options.end());
    return host().run_to_failure(arguments, inherit);
  }
  // A front-end and the host's end, on a card that listens.
  void use(const std::string& interface) {
    client_ = host().connect();
    port_ = std::make_unique<fakes::HostPort>(interface);
    expect_works();
  }
};
BULKHEAD_FOR_BOTH_ENGINES(NetTaps);

// --- by name -------------------------------------------------------------------------------------

TEST_P(NetTaps, ATapThatIsMissingIsAMistake) {
  EXPECT_THAT(failure_of({"--tap-name=tap7"}),
              HasSubstr("tap 'tap7' does not exist; check --tap-name, make it (ip tuntap add dev "
                        "tap7 mode tap multi_queue), or give --tap-create"));
}

TEST_P(NetTaps, ATapIsMadeWhereThatIsAskedForAndGoesWithUs) {
  host().run(
      {"net", host().socket_option(), "--tap-name=made0", "--tap-create", host().engine_option()});
  host().broker().wait_ready();
  use("made0");
  client_.reset();
  host().broker().signal(SIGTERM);
  EXPECT_EQ(host().broker().wait_exit(), 0);
  // The kernel takes the rings of our workers apart, and the tap with them, in its own time.
  const auto give_up = std::chrono::steady_clock::now() + fakes::kPatience;
  while (::if_nametoindex("made0") != 0 && std::chrono::steady_clock::now() < give_up) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  EXPECT_EQ(::if_nametoindex("made0"), 0U);
}

TEST_P(NetTaps, ATapOfOneQueueServesOnePair) {
  start({}, {}, {.multi_queue = false});
  expect_works();
  EXPECT_EQ(client().offered() & net::kFeatureMq, 0U);
}

TEST_P(NetTaps, ATapOfOneQueueIsRefusedForTwoPairs) {
  add_tap({.multi_queue = false});
  EXPECT_THAT(failure_of({"--tap-name=tap0", "--num-queues=2"}),
              HasSubstr("has one queue, and --num-queues asks for 2; make it with multi_queue"));
}

TEST_P(NetTaps, AnInterfaceThatIsNoTapIsNamed) {
  ip({"link", "add", "v0", "type", "veth", "peer", "name", "v1"});
  EXPECT_THAT(failure_of({"--tap-name=v0"}), HasSubstr("tap 'v0' is no tap but a veth"));
}

TEST_P(NetTaps, TheLoopbackIsNoTap) {
  EXPECT_THAT(failure_of({"--tap-name=lo"}), HasSubstr("is no tap but another kind of interface"));
}

TEST_P(NetTaps, ATunIsNoTap) {
  ip({"tuntap", "add", "dev", "tun0", "mode", "tun"});
  EXPECT_THAT(failure_of({"--tap-name=tun0"}), HasSubstr("carries no Ethernet frames"));
}

TEST_P(NetTaps, ATapInUseIsRefused) {
  add_tap({.multi_queue = false});
  const common::Fd other = open_tap("tap0", kTapFlags);
  EXPECT_THAT(failure_of({"--tap-name=tap0"}), HasSubstr("is in use"));
}

TEST_P(NetTaps, AMultiqueueTapInUseIsRefused) {
  add_tap();
  const common::Fd other = open_tap("tap0", kTapFlags | IFF_MULTI_QUEUE);
  EXPECT_THAT(failure_of({"--tap-name=tap0"}),
              HasSubstr("is in use: another process has 1 of its queues open"));
}

TEST_P(NetTaps, ATapOfAnotherUserIsRefusedWithoutTheRightToIt) {
  ip({"tuntap", "add", "dev", "tap0", "mode", "tap", "user", "1"});
  const std::string socket = "/tmp/bulkhead-tap-test-" + std::to_string(::getpid());
  fakes::BrokerProcess broker({.program = BULKHEAD_PROGRAM,
                               .arguments = {"net", "--socket-path=" + socket, "--tap-name=tap0"},
                               .drop_root = true});
  if (broker.wait_exit() == 126) GTEST_SKIP() << "nobody may not run what was built here";
  EXPECT_THAT(broker.log(), testing::AnyOf(HasSubstr("may not be opened by this user"),
                                           HasSubstr("this user may not open /dev/net/tun"),
                                           HasSubstr("cannot be executed")));
}

TEST_P(NetTaps, MostPairsAreOffered) {
  start({.pairs = 64,
         .receive = {.size = 16, .slots = 4},
         .transmit = {.size = 16, .slots = 2, .slot_bytes = 2048}});
  EXPECT_EQ(client().config().max_virtqueue_pairs.get(), 64);
  EXPECT_EQ(host().workers().size(), 128U);
  for (std::uint32_t pair : {0U, 31U, 63U}) expect_sends(pair, pair);
}

TEST_P(NetTaps, TheGuestsAddressAndMtuAreToldAsConfigured) {
  start({}, {.options = {"--mac=52:54:00:0a:0b:0c", "--mtu=1400"}});
  const net::WireConfig config = client().config();
  EXPECT_EQ(config.mac, (net::Mac{0x52, 0x54, 0, 0x0a, 0x0b, 0x0c}));
  EXPECT_EQ(config.mtu.get(), 1400);
  EXPECT_EQ(config.status.get(), net::kStatusLinkUp);
}

TEST_P(NetTaps, TheInterfacesMtuIsTheGuests) {
  start({}, {}, {.mtu = 9000});
  EXPECT_EQ(client().config().mtu.get(), 9000);
}

TEST_P(NetTaps, TheBrokerNeedsNoRightOverNetworksOnceItServes) {
  start();
  const auto permitted = std::stoull(capabilities_of(host().broker().pid()), nullptr, 16);
  EXPECT_EQ(permitted & kNetAdmin, 0U);
  client().restart_all();
  expect_works();
}

// --- by descriptor -------------------------------------------------------------------------------

TEST_P(NetTaps, InheritedQueuesServeOnePairEach) {
  add_tap();
  {
    const common::Fd first = open_tap("tap0", kTapFlags | IFF_MULTI_QUEUE);
    const common::Fd second = open_tap("tap0", kTapFlags | IFF_MULTI_QUEUE);
    host().run({"net", host().socket_option(), "--tap-fd=3,4", host().engine_option()},
               {first.ref(), second.ref()});
  }
  host().broker().wait_ready();
  EXPECT_NE(host().broker().wait_for_line({"serving tap tap0", "up to 2 pairs"}), "");
  use("tap0");
}

TEST_P(NetTaps, AnInheritedTapMayBeInAnotherNetwork) {
  const auto inner = std::make_unique<fakes::NetNamespace>();
  add_tap();
  const common::Fd queue = open_tap("tap0", kTapFlags | IFF_MULTI_QUEUE);
  port_ = std::make_unique<fakes::HostPort>("tap0");
  {
    const fakes::NetNamespace outer;  // The broker's.
    host().run({"net", host().socket_option(), "--tap-fd=3", host().engine_option()},
               {queue.ref()});
  }
  host().broker().wait_ready();
  EXPECT_NE(host().broker().wait_for_line({"is in another network namespace"}), "");
  client_ = host().connect();
  expect_works();
}

TEST_P(NetTaps, ADescriptorThatIsNotOpenIsNamed) {
  EXPECT_THAT(failure_of({"--tap-fd=9"}), HasSubstr("descriptor 9 is not open"));
}

TEST_P(NetTaps, ADescriptorThatIsNoTapIsNamed) {
  const common::Fd file(::open("/dev/null", O_RDWR | O_CLOEXEC));
  EXPECT_THAT(failure_of({"--tap-fd=3"}, {file.ref()}), HasSubstr("descriptor 3 is no tap"));
  const common::Fd directory(::open("/", O_RDONLY | O_CLOEXEC));
  EXPECT_THAT(failure_of({"--tap-fd=3"}, {directory.ref()}), HasSubstr("descriptor 3 is no tap"));
}

TEST_P(NetTaps, ATunDeviceWithoutAnInterfaceIsNamed) {
  const common::Fd bare(::open("/dev/net/tun", O_RDWR | O_CLOEXEC));
  EXPECT_THAT(failure_of({"--tap-fd=3"}, {bare.ref()}), HasSubstr("without an interface"));
}

TEST_P(NetTaps, AnInheritedTapWithoutHeadersIsNamed) {
  const common::Fd tap = open_tap("tap0", IFF_TAP | IFF_NO_PI);
  EXPECT_THAT(failure_of({"--tap-fd=3"}, {tap.ref()}), HasSubstr("has no header for offloads"));
}

TEST_P(NetTaps, AnInheritedTunIsNamed) {
  const common::Fd tun = open_tap("tun0", IFF_TUN | IFF_NO_PI | IFF_VNET_HDR);
  EXPECT_THAT(failure_of({"--tap-fd=3"}, {tun.ref()}), HasSubstr("carries no Ethernet frames"));
}

TEST_P(NetTaps, QueuesOfTwoTapsAreRefused) {
  const common::Fd first = open_tap("tap0", kTapFlags | IFF_MULTI_QUEUE);
  const common::Fd second = open_tap("tap1", kTapFlags | IFF_MULTI_QUEUE);
  EXPECT_THAT(failure_of({"--tap-fd=3,4"}, {first.ref(), second.ref()}),
              HasSubstr("pass queues of one tap"));
}

// --- macvtap -------------------------------------------------------------------------------------

class NetMacvtap : public NetTaps {
 protected:
  // The guest is on one end of a cable, the host's port on the other.
  void make_macvtap() {
    ip({"link", "add", "far", "type", "veth", "peer", "name", "near"});
    for (const char* end : {"far", "near"}) ip({"link", "set", end, "up"});
    // A number of its own: other namespaces have interfaces of low numbers, and nodes for them.
    static int made = 0;
    const std::string index = std::to_string(100'000 + ::getpid() % 100'000 * 10 + ++made);
    ip({"link", "add", "link", "near", "name", "mv0", "index", index, "type", "macvtap", "mode",
        "passthru"});
    ip({"link", "set", "mv0", "up"});
  }
};
BULKHEAD_FOR_BOTH_ENGINES(NetMacvtap);

TEST_P(NetMacvtap, Serves) {
  make_macvtap();
  host().run(
      {"net", host().socket_option(), "--macvtap=mv0", "--num-queues=2", host().engine_option()});
  host().broker().wait_ready();
  EXPECT_NE(host().broker().wait_for_line({"serving macvtap mv0"}), "");
  client_ = host().connect();
  port_ = std::make_unique<fakes::HostPort>("far");
  EXPECT_EQ(client().offered() & net::kFeatureCtrlMacAddr, 0U);
  expect_works();
}

TEST_P(NetMacvtap, InUseByAnotherBrokerIsRefused) {
  make_macvtap();
  host().run({"net", host().socket_option(), "--macvtap=mv0", host().engine_option()});
  host().broker().wait_ready();
  NetHost second(GetParam().engine);
  EXPECT_THAT(second.run_to_failure({"net", second.socket_option(), "--macvtap=mv0"}),
              HasSubstr("macvtap 'mv0' is in use"));
}

TEST_P(NetMacvtap, AMacvtapThatIsNoneIsNamed) {
  EXPECT_THAT(failure_of({"--macvtap=mv0"}), HasSubstr("macvtap 'mv0' does not exist"));
  add_tap();
  EXPECT_THAT(failure_of({"--macvtap=tap0"}), HasSubstr("is no macvtap; give --tap-name=tap0"));
  make_macvtap();
  EXPECT_THAT(failure_of({"--tap-name=mv0"}), HasSubstr("is a macvtap; give --macvtap=mv0"));
}

}  // namespace
}  // namespace integration
