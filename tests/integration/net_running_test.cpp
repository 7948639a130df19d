// A network card while things change: its tap goes down, away, or gets another name; pairs come and
// go; the guest resets; the VMM goes. And the control virtqueue, as crosvm hands it to us.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <net/if.h>
#include <signal.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "common/virtqueue_wire.h"
#include "tests/fakes/process.h"
#include "tests/integration/net_host.h"

namespace integration {
namespace {

namespace net = common::net;
using fakes::ip;
using fakes::make_frame;
using fakes::make_unfinished;
using fakes::NetPacket;
using fakes::Unfinished;
using testing::HasSubstr;

// What comes if it comes at all: the card has answered something since it was sent.
constexpr int kNothingMs = 50;

constexpr std::uint8_t class_of(net::ControlClass class_) {
  return static_cast<std::uint8_t>(class_);
}

class NetRunning : public NetTest {
 protected:
  [[nodiscard]] static auto tried_frame() { return make_frame(300, 77); }
  // Whoever sends at once after the interface came up may be too early for the kernel: again until
  // one arrives.
  void expect_receives_at_last() {
    const auto frame = tried_frame();
    for (int i = 0; i < 200; ++i) {
      (void)port().try_send({.header = {}, .frame = frame});
      if (const auto got = client().receive_queue().receive(kNothingMs)) {
        EXPECT_EQ(got->frame, frame);
        return;
      }
    }
    ADD_FAILURE() << "nothing is received any more\n" << host().broker().log();
  }
  // The next packet that is none of those which expect_receives_at_last() has tried with: where the
  // host is slow, more than one of them arrives.
  [[nodiscard]] auto receive_news() {
    auto got = client().receive_queue().receive(kPacketPatienceMs);
    while (got && got->frame == tried_frame()) {
      got = client().receive_queue().receive(kPacketPatienceMs);
    }
    return got;
  }
  // The pairs into which packets of many flows go. All are received.
  std::set<std::size_t> pairs_that_receive(std::size_t pairs) {
    constexpr std::uint32_t kFlows = 64;
    for (std::uint32_t flow = 0; flow < kFlows; ++flow) {
      port().send(make_unfinished(Unfinished::kUdp4Checksum, 200 + flow, flow));
    }
    std::set<std::size_t> seen;
    std::uint32_t count = 0;
    const auto give_up = std::chrono::steady_clock::now() + fakes::kPatience;
    while (count < kFlows && std::chrono::steady_clock::now() < give_up) {
      for (std::size_t pair = 0; pair < pairs; ++pair) {
        while (client().receive_queue(pair).receive(kNothingMs)) {
          seen.insert(pair);
          ++count;
        }
      }
    }
    EXPECT_EQ(count, kFlows);
    return seen;
  }
  std::uint8_t command(net::ControlClass class_, std::uint8_t number,
                       const std::vector<std::uint8_t>& arguments) {
    return client()
        .control_queue()
        .command(class_of(class_), number, std::as_bytes(std::span(arguments)))
        .value_or(0xee);
  }
  std::uint8_t set_pairs(std::uint8_t pairs) {
    return command(net::ControlClass::kMq, net::kMqPairsSet, {pairs, 0});
  }
  std::uint8_t set_offloads(std::uint64_t offloads) {
    std::vector<std::uint8_t> bytes(8);
    for (std::size_t i = 0; i < bytes.size(); ++i) {
      bytes[i] = static_cast<std::uint8_t>(offloads >> (8 * i));
    }
    return command(net::ControlClass::kOffloads, net::kGuestOffloadsSet, bytes);
  }
};
BULKHEAD_FOR_BOTH_ENGINES(NetRunning);

// --- the interface -------------------------------------------------------------------------------

TEST_P(NetRunning, ATapThatGoesDownAndUpServesOn) {
  start();
  expect_works();
  ip({"link", "set", "tap0", "down"});
  EXPECT_NE(host().broker().wait_for_line({"warning tap0: interface tap0 is down"}), "");
  client().transmit_queue().send({.header = {}, .frame = make_frame(100, 1, true)});
  EXPECT_TRUE(client().transmit_queue().wait_sent()) << "dropped, and given back";
  ip({"link", "set", "tap0", "up"});
  EXPECT_NE(host().broker().wait_for_line({"interface tap0 is up again"}), "");
  port_ = std::make_unique<fakes::HostPort>("tap0");
  expect_sends(0, 5);
  expect_receives_at_last();
  EXPECT_LE(host().workers().size(), 2U);  // One may be about to be replaced: the status changed.
}

TEST_P(NetRunning, TheGuestIsToldOfALinkThatIsDown) {
  start();
  EXPECT_EQ(client().config().status.get(), net::kStatusLinkUp);
  ip({"link", "set", "tap0", "down"});
  EXPECT_NE(host().broker().wait_for_line({"interface tap0 is down"}), "");
  client_.reset();
  client_ = host().connect();
  EXPECT_EQ(client().config().status.get(), 0);
}

TEST_P(NetRunning, ATapThatIsDownAtTheStartIsSaidAndServesOnceItIsUp) {
  start({}, {}, {.up = false});
  EXPECT_NE(host().broker().wait_for_line({"interface tap0 is down", "ip link set tap0 up"}), "");
  ip({"link", "set", "tap0", "up"});
  EXPECT_NE(host().broker().wait_for_line({"interface tap0 is up again"}), "");
  port_ = std::make_unique<fakes::HostPort>("tap0");
  expect_sends();
  expect_receives_at_last();
}

TEST_P(NetRunning, ATapThatIsRenamedServesOn) {
  start();
  const auto mac = client().config().mac;
  ip({"link", "set", "tap0", "down"});
  ip({"link", "set", "tap0", "name", "other0"});
  ip({"link", "set", "other0", "up"});
  EXPECT_NE(host().broker().wait_for_line({"interface tap0 is called other0 now"}), "");
  EXPECT_NE(host().broker().wait_for_line({"interface other0 is up again"}), "");
  port_ = std::make_unique<fakes::HostPort>("other0");
  expect_sends();
  expect_receives_at_last();
  client_.reset();
  client_ = host().connect();
  EXPECT_EQ(client().config().mac, mac) << "the guest's card is the same";
}

TEST_P(NetRunning, ATapThatVanishesIsSaidAndNothingElseIsDisturbed) {
  add_tap();
  add_tap({}, "tap1");
  host().serve_all({"tap0", "tap1"});
  auto victim = host().connect({}, "tap0");
  client_ = host().connect({}, "tap1");
  port_ = std::make_unique<fakes::HostPort>("tap1");
  ip({"link", "delete", "tap0"});
  EXPECT_NE(host().broker().wait_for_line({"error tap0: interface tap0 is gone"}), "");
  victim->transmit_queue().send({.header = {}, .frame = make_frame(100, 1, true)});
  expect_works();
  EXPECT_TRUE(host().broker().running());
  victim.reset();
  victim = host().connect({}, "tap0");
  (void)victim->config();
  expect_works();
  host().broker().signal(SIGTERM);
  EXPECT_EQ(host().broker().wait_exit(), 0);
}

TEST_P(NetRunning, AFullRingOfTheGuestsStopsReceivingAndCostsNothing) {
  start({.offer_buffers = false});
  for (std::uint32_t i = 0; i < 50; ++i) port().send(make_frame(200 + i, i));
  client().vhost().barrier();
  EXPECT_FALSE(client().receive_queue().driver().has_used());
  client().receive_queue().offer_buffers();
  for (std::uint32_t i = 0; i < 50; ++i) {
    const auto got = client().receive_queue().receive(kPacketPatienceMs);
    ASSERT_TRUE(got.has_value()) << i;
    EXPECT_EQ(got->frame, make_frame(200 + i, i));
  }
}

// No event says that a flag of an interface has changed but netlink's, which is what we test.
bool becomes_running(const std::string& interface, bool wanted) {
  const auto give_up = std::chrono::steady_clock::now() + fakes::kPatience;
  while (std::chrono::steady_clock::now() < give_up) {
    if (fakes::has_carrier(interface) == wanted) return true;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  return false;
}

TEST_P(NetRunning, TheHostSeesACableWhileAVmmIsThere) {
  start();
  EXPECT_TRUE(becomes_running("tap0", true));
  client_.reset();
  EXPECT_TRUE(becomes_running("tap0", false));
  client_ = host().connect({.pairs = 2});
  EXPECT_TRUE(becomes_running("tap0", true));
  client().restart_all();
  EXPECT_TRUE(fakes::has_carrier("tap0")) << "a reset of the guest pulls no cable";
}

// --- rings and pairs -----------------------------------------------------------------------------

TEST_P(NetRunning, PairsThatDoNotRunGetNoPackets) {
  start({.pairs = 4});
  EXPECT_GT(pairs_that_receive(4).size(), 1U) << "flows are spread";
  for (std::uint32_t pair = 1; pair < 4; ++pair) client().enable_pair(pair, false);
  EXPECT_EQ(pairs_that_receive(4), std::set<std::size_t>{0});
  client().enable_pair(2, true);
  EXPECT_EQ(pairs_that_receive(4), (std::set<std::size_t>{0, 2}));
}

TEST_P(NetRunning, EveryPairSends) {
  start({.pairs = 3});
  for (std::uint32_t pair = 0; pair < 3; ++pair) expect_sends(pair, pair);
}

TEST_P(NetRunning, AGuestThatResetsGetsItsNetworkAgain) {
  start({.pairs = 2});
  for (std::uint32_t i = 0; i < 3; ++i) {
    expect_sends(1, i);
    EXPECT_FALSE(pairs_that_receive(2).empty());
    client().restart_all();
  }
  expect_sends(0, 9);
}

TEST_P(NetRunning, TheNextVmmGetsNoOldPackets) {
  start({.offer_buffers = false});
  port().send(make_frame(400, 1));
  client_.reset();
  EXPECT_NE(host().broker().wait_for_line({"closed by the VMM"}), "");
  client_ = host().connect();
  expect_receives_at_last();
}

TEST_P(NetRunning, ACallDescriptorMayChangeWhileItRuns) {
  start();
  for (std::uint32_t i = 0; i < 10; ++i) {
    for (std::uint32_t queue : {0U, 1U}) {
      auto& driver = queue == 0 ? client().receive_queue() : client().transmit_queue();
      client().vhost().set_vring_fd(fakes::VhostRequest::kSetVringCall, queue,
                                    driver.doorbell().replace());
      driver.doorbell().drop_old();
    }
    expect_receives(0, i);
    expect_sends(0, i);
    EXPECT_TRUE(client().transmit_queue().wait_sent());
  }
}

TEST_P(NetRunning, SigtermWhileATapIsBusyEndsInTime) {
  start();
  for (std::uint32_t i = 0; i < 30; ++i) {
    client().transmit_queue().send({.header = {}, .frame = make_frame(1000, i, true)});
  }
  host().broker().signal(SIGTERM);
  EXPECT_EQ(host().broker().wait_exit(), 0);
}

TEST_P(NetRunning, AVmmThatIsKilledLeavesNoProcess) {
  start({.pairs = 2});
  const auto workers = host().workers();
  EXPECT_EQ(workers.size(), 4U);
  client().vhost().disconnect();
  for (const pid_t worker : workers) EXPECT_TRUE(fakes::wait_gone(worker));
  client_ = host().connect();
  expect_receives_at_last();
}

TEST_P(NetRunning, SendRarpTellsTheNetworkWhereTheGuestIs) {
  start();
  const std::array<std::uint8_t, 8> mac = {0x52, 0x54, 0, 0xaa, 0xbb, 0xcc, 0, 0};
  client().vhost().request(fakes::VhostRequest::kSendRarp, fakes::bytes_of(mac));
  const auto got = port().receive(kPacketPatienceMs);
  ASSERT_TRUE(got.has_value());
  ASSERT_EQ(got->frame.size(), 60U);
  const auto byte = [&](std::size_t at) { return std::to_integer<int>(got->frame[at]); };
  EXPECT_EQ(byte(0), 0xff);
  EXPECT_EQ(byte(6), 0x52);
  EXPECT_EQ(byte(11), 0xcc);
  EXPECT_EQ(byte(12) << 8 | byte(13), 0x8035);
  EXPECT_EQ(byte(21), 3) << "request reverse";
  EXPECT_EQ(byte(27), 0xcc);
  EXPECT_EQ(byte(37), 0xcc);
}

TEST_P(NetRunning, AnMtuOfTheVmmsWithinOursIsTaken) {
  start({.handshake = false});
  client().negotiate_protocol();
  client().choose_features();
  EXPECT_EQ(client().vhost().request_for_ack(fakes::VhostRequest::kNetSetMtu,
                                             fakes::bytes_of(std::uint64_t{1400})),
            0U);
  EXPECT_NE(client().vhost().request_for_ack(fakes::VhostRequest::kNetSetMtu,
                                             fakes::bytes_of(std::uint64_t{9000})),
            0U);
  client().start_all();
  expect_works();
}

// --- the control virtqueue -----------------------------------------------------------------------

TEST_P(NetRunning, TheControlQueueChoosesPairs) {
  start({.pairs = 2, .control = true}, {.options = {"--num-queues=2"}});
  EXPECT_EQ(pairs_that_receive(2), std::set<std::size_t>{0}) << "one, until the driver says";
  EXPECT_EQ(set_pairs(2), net::kControlOk);
  EXPECT_EQ(pairs_that_receive(2), (std::set<std::size_t>{0, 1}));
  expect_sends(1);
  EXPECT_EQ(set_pairs(1), net::kControlOk);
  EXPECT_EQ(pairs_that_receive(2), std::set<std::size_t>{0});
  EXPECT_EQ(set_pairs(0), net::kControlError);
  EXPECT_EQ(set_pairs(3), net::kControlError);
  EXPECT_EQ(pairs_that_receive(2), std::set<std::size_t>{0});
}

TEST_P(NetRunning, TheControlQueueFollowsTheFirstPairWithoutMultiqueue) {
  start({.control = true, .features = ~net::kFeatureMq});
  EXPECT_EQ(set_pairs(1), net::kControlError) << "not negotiated";
  expect_works();
}

TEST_P(NetRunning, TheControlQueueChoosesOffloads) {
  start({.control = true, .features = ~net::kFeatureMq});
  port().send(make_unfinished(Unfinished::kTcp4Checksum, 900, 1));
  auto got = client().receive_queue().receive(kPacketPatienceMs);
  ASSERT_TRUE(got.has_value());
  EXPECT_EQ(got->header.flags & net::kHeaderNeedsCsum, net::kHeaderNeedsCsum);
  EXPECT_EQ(set_offloads(0), net::kControlOk);
  port().send(make_unfinished(Unfinished::kTcp4Checksum, 900, 1));
  got = client().receive_queue().receive(kPacketPatienceMs);
  ASSERT_TRUE(got.has_value());
  EXPECT_EQ(got->header.flags & net::kHeaderNeedsCsum, 0);
  EXPECT_EQ(set_offloads(net::kFeatureGuestCsum | net::kFeatureGuestTso4), net::kControlOk);
  EXPECT_EQ(set_offloads(1ULL << 60), net::kControlError);
}

TEST_P(NetRunning, TheControlQueueChoosesWhatIsReceived) {
  start({.control = true, .features = ~net::kFeatureMq});
  std::vector<std::uint8_t> table(8 + 6 + 6);
  table[0] = 1;  // One unicast address, the frames' own; one multicast address.
  std::copy(fakes::kGuestMac.begin(), fakes::kGuestMac.end(), table.begin() + 4);
  table[10] = 1;
  table[14] = 0x01;
  EXPECT_EQ(command(net::ControlClass::kMac, net::kMacTableSet, table), net::kControlOk);
  expect_receives(0, 1);
  EXPECT_EQ(command(net::ControlClass::kMac, net::kMacTableSet, std::vector<std::uint8_t>(8)),
            net::kControlOk);
  port().send(make_frame(300, 4));  // For an address that the guest does not have.
  EXPECT_EQ(command(net::ControlClass::kRx, net::kRxPromisc, {1}), net::kControlOk);
  expect_receives(0, 5);
  EXPECT_EQ(command(net::ControlClass::kRx, net::kRxPromisc, {}), net::kControlError);
  EXPECT_EQ(command(net::ControlClass::kVlan, 9, {1}), net::kControlError);
}

TEST_P(NetRunning, AResetForgetsWhatTheControlQueueHasChosen) {
  start({.control = true, .features = ~net::kFeatureMq});
  EXPECT_EQ(set_offloads(0), net::kControlOk);
  client_.reset();
  client_ = host().connect();
  expect_receives_at_last();
  port().send(make_unfinished(Unfinished::kTcp4Checksum, 900, 1));
  const auto got = receive_news();
  ASSERT_TRUE(got.has_value());
  EXPECT_EQ(got->header.flags & net::kHeaderNeedsCsum, net::kHeaderNeedsCsum);
}

}  // namespace
}  // namespace integration
