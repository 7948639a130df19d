// The broker of a network card dies, or another one takes its place: every kind of tap goes on, and
// what has become of it meanwhile is known.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <sys/ioctl.h>

#include <algorithm>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include "tests/fakes/blk_client.h"
#include "tests/fakes/failure.h"
#include "tests/integration/net_takeover.h"
#include "tests/integration/verified_load.h"

namespace integration {
namespace {

using fakes::ip;
using testing::HasSubstr;
using testing::SizeIs;

class NetTakeoverTaps : public NetTakeover {};
BULKHEAD_FOR_BOTH_ENGINES(NetTakeoverTaps);

TEST_P(NetTakeoverTaps, TapOfOneQueueGoesOn) {
  start_card({}, {}, {.multi_queue = false});
  PacketFlow flow(client(), port());
  flow.expect_progress();
  kill_broker();
  start_again();
  take_over();
  flow.expect_progress();
  flow.stop();
  stop_all();
}

TEST_P(NetTakeoverTaps, TapOfSixtyFourPairsGoesOn) {
  start_card({.pairs = 64,
              .receive = {.size = 16, .slots = 4},
              .transmit = {.size = 16, .slots = 2, .slot_bytes = 2048}});
  kill_broker();
  start_again();
  for (std::uint32_t pair : {0U, 31U, 63U}) expect_sends(pair, pair);
  stop_all();
}

TEST_P(NetTakeoverTaps, TapThatIsRenamedOrTakenDownWithoutABrokerIsKnownAgain) {
  start_card();
  const auto mac = client().config().mac;
  kill_broker();
  ip({"link", "set", "tap0", "down"});
  ip({"link", "set", "tap0", "name", "other0"});
  start_again();
  EXPECT_NE(host().broker().wait_for_line({"interface other0 is down"}), "");
  ip({"link", "set", "other0", "up"});
  EXPECT_NE(host().broker().wait_for_line({"interface other0 is up again"}), "");
  port_ = std::make_unique<fakes::HostPort>("other0");
  expect_sends();
  EXPECT_EQ(client().config().mac, mac) << "the guest's card is the same";
  stop_all();
}

TEST_P(NetTakeoverTaps, TapThatVanishesWithoutABrokerIsSaid) {
  start_card();
  kill_broker();
  ip({"link", "delete", "tap0"});
  host().run(arguments_);
  host().broker().wait_ready();
  EXPECT_NE(host().broker().wait_for_line({"interface tap0 is gone"}), "");
  stop_all();
}

TEST_P(NetTakeoverTaps, VmmThatHangsUpWithoutABrokerLetsGoOfTheTap) {
  start_card();
  kill_broker();
  client_.reset();
  for (const pid_t pid : born_) EXPECT_TRUE(fakes::wait_gone(pid)) << fakes::command_line_of(pid);
  born_.clear();
  host().run(arguments_);
  host().broker().wait_ready();
  client_ = host().connect();
  expect_sends();
  stop_all();
}

TEST_P(NetTakeoverTaps, AnotherTapIsRefusedAndTheOldBrokerGoesOn) {
  start_card();
  add_tap({}, "tap1");
  std::vector<std::string> other = arguments_;
  std::replace(other.begin(), other.end(), std::string("--tap-name=tap0"),
               std::string("--tap-name=tap1"));
  other.insert(other.begin(), "takeover");
  other.push_back("--name=tap0");
  fakes::BrokerProcess next({.program = BULKHEAD_PROGRAM, .arguments = other});
  EXPECT_EQ(next.wait_exit(), 1);
  EXPECT_THAT(next.log(), HasSubstr("what is served is --tap-name=tap0, and not --tap-name=tap1"));
  expect_works();
  stop_all();
}

// A queue of a tap, as a manager opens it for us.
common::Fd open_tap_queue(const std::string& name) {
  common::Fd fd(::open("/dev/net/tun", O_RDWR | O_CLOEXEC));
  fakes::require_call(fd.valid(), "open /dev/net/tun");
  ifreq request{};
  std::copy(name.begin(), name.end(), request.ifr_name);
  request.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR | IFF_MULTI_QUEUE;
  fakes::require_call(::ioctl(fd.ref().number, TUNSETIFF, &request) == 0, "TUNSETIFF " + name);
  return fd;
}

TEST_P(NetTakeoverTaps, TapByDescriptorGoesOnWithoutItsDescriptorsAndWithThem) {
  add_tap();
  const common::Fd first = open_tap_queue("tap0");
  const common::Fd second = open_tap_queue("tap0");
  start_as({"net", host().socket_option(), "--tap-fd=3,4", host().engine_option()}, "tap0",
           {first.ref(), second.ref()});
  PacketFlow flow(client(), port());
  kill_broker();
  start_again();
  flow.expect_progress();
  kill_broker();
  host().run(arguments_, {first.ref(), second.ref()});
  host().broker().wait_ready();
  expect_adopted();
  flow.expect_progress();
  flow.stop();
  stop_all();
}

TEST_P(NetTakeoverTaps, MacvtapGoesOn) {
  ip({"link", "add", "far", "type", "veth", "peer", "name", "near"});
  for (const char* end : {"far", "near"}) ip({"link", "set", end, "up"});
  static int made = 0;  // Other namespaces have interfaces of low numbers, and nodes for them.
  const std::string index = std::to_string(2'000'000 + ::getpid() % 100'000 * 10 + ++made);
  ip({"link", "add", "link", "near", "name", "mv0", "index", index, "type", "macvtap", "mode",
      "passthru"});
  ip({"link", "set", "mv0", "up"});
  start_as(
      {"net", host().socket_option(), "--macvtap=mv0", "--num-queues=2", host().engine_option()},
      "far");
  kill_broker();
  expect_works();
  start_again();
  expect_works();
  take_over();
  expect_works();
  stop_all();
}

// --- disks beside it -----------------------------------------------------------------------------

TEST_P(NetTakeoverTaps, DiskAndCardOfOneBrokerGoOnTogether) {
  fakes::TempDir images{BULKHEAD_TEST_IMAGES};
  add_tap();
  make_image(images.file("vda.img"), 4 << 20);
  const std::string path = images.file("bulkhead.toml");
  std::ofstream(path) << "[[device]]\ntype = \"blk\"\nname = \"vda\"\nsocket_path = \""
                      << host().socket("vda") << "\"\nblk_file = \"" << images.file("vda.img")
                      << "\"\nengine = \"" << GetParam().engine
                      << "\"\n[[device]]\ntype = \"net\"\nname = \"tap0\"\nsocket_path = \""
                      << host().socket() << "\"\ntap_name = \"tap0\"\nengine = \""
                      << GetParam().engine << "\"\n";
  start_as({"serve", "--config=" + path}, "tap0");
  fakes::BlkClient disk(host().socket("vda"), {});
  note_children();
  VerifiedLoad load(disk.queue(), {.depth = 4});
  PacketFlow flow(client(), port());
  for (int round = 0; round < 3; ++round) {
    take_over();
    load.expect_progress();
    flow.expect_progress(10);
    kill_broker();
    start_again();
    load.expect_progress();
    flow.expect_progress(10);
  }
  load.stop();
  flow.stop();
  EXPECT_THAT(first("worker"), SizeIs(3));
  stop_all();
}

}  // namespace
}  // namespace integration
