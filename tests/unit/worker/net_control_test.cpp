// The control virtqueue: what each command becomes, and what a guest that makes them up is told.
#include "worker/net_control.h"

#include <gtest/gtest.h>

#include <array>
#include <cstring>
#include <vector>

#include "tests/fakes/net_rig.h"

namespace {

namespace net = common::net;
using common::Counter;
using common::ipc::NetCommand;
using common::ipc::WorkerExit;
using common::ipc::WorkerFault;
using fakes::Buffer;
using fakes::NetRig;
using Bytes = std::vector<std::uint8_t>;

constexpr std::uint64_t kEverything =
    net::kFeatureCtrlVq | net::kFeatureCtrlRx | net::kFeatureCtrlRxExtra | net::kFeatureCtrlVlan |
    net::kFeatureCtrlMacAddr | net::kFeatureGuestAnnounce | net::kFeatureMq |
    net::kFeatureCtrlGuestOffloads | net::kFeatureGuestCsum | net::kFeatureGuestTso4;

// The broker, which does as it is told to answer.
class Broker final : public worker::ControlLink {
 public:
  [[nodiscard]] bool ask(const common::ipc::NetControl& order) noexcept override {
    orders.push_back(order);
    return accepts;
  }
  std::vector<common::ipc::NetControl> orders;
  bool accepts = true;
};

struct Control : testing::Test {
  Control() : rig(worker::TapDirection::kReceive) {
    rig.features = kEverything;
    rig.device.pairs = 4;
  }

  // Class, command and data, and a byte for the answer.
  void add(const Bytes& command, std::uint32_t answer_bytes = 1) {
    const auto at = rig.ram.alloc(command.size() + 16);
    for (std::size_t i = 0; i < command.size(); ++i) rig.ram.put({at.value + i}, command[i]);
    answer = {at.value + command.size()};
    rig.ram.put(answer, std::uint8_t{0xaa});
    std::vector<Buffer> buffers = {{at, static_cast<std::uint32_t>(command.size()), false}};
    if (answer_bytes != 0) buffers.push_back({answer, answer_bytes, true});
    ASSERT_TRUE(rig.ring.add(buffers));
  }
  WorkerExit serve() {
    (void)rig.ring.publish();
    return worker::NetControl::create(rig.parts(), broker)->run();
  }
  // What the guest is told: 0 for done.
  std::uint8_t say(const Bytes& command) {
    add(command);
    EXPECT_EQ(serve(), WorkerExit::kStopped);
    return rig.ram.get<std::uint8_t>(answer);
  }
  // Every feature but these.
  std::uint8_t say_without(std::uint64_t features, const Bytes& command) {
    rig.features = kEverything & ~features;
    return say(command);
  }

  NetRig rig;
  Broker broker;
  common::GuestAddr answer{};
};

TEST_F(Control, AsksForTheNumberOfPairs) {
  EXPECT_EQ(say({4, 0, 3, 0}), 0);
  ASSERT_EQ(broker.orders.size(), 1U);
  EXPECT_EQ(broker.orders[0].command, static_cast<std::uint32_t>(NetCommand::kPairs));
  EXPECT_EQ(broker.orders[0].value, 3U);
}

TEST_F(Control, TellsTheGuestWhenTheBrokerRefuses) {
  broker.accepts = false;
  EXPECT_EQ(say({4, 0, 3, 0}), 1);
  EXPECT_EQ(rig.count(Counter::kControlRefused), 1U);
}

TEST_F(Control, RefusesNoPairs) { EXPECT_EQ(say({4, 0, 0, 0}), 1); }
TEST_F(Control, RefusesMorePairsThanThereAre) { EXPECT_EQ(say({4, 0, 5, 0}), 1); }
TEST_F(Control, RefusesPairsWithoutMq) { EXPECT_EQ(say_without(net::kFeatureMq, {4, 0, 2, 0}), 1); }
TEST_F(Control, RefusesANumberOfPairsOfTheWrongLength) { EXPECT_EQ(say({4, 0, 2}), 1); }
TEST_F(Control, RefusesHashesItDidNotOffer) { EXPECT_EQ(say({4, 1, 2, 0}), 1); }

TEST_F(Control, AsksForTheOffloads) {
  EXPECT_EQ(say({5, 0, 0x82, 0, 0, 0, 0, 0, 0, 0}), 0);
  ASSERT_EQ(broker.orders.size(), 1U);
  EXPECT_EQ(broker.orders[0].command, static_cast<std::uint32_t>(NetCommand::kOffloads));
  EXPECT_EQ(broker.orders[0].value, net::kFeatureGuestCsum | net::kFeatureGuestTso4);
}

TEST_F(Control, RefusesOffloadsThatWereNotNegotiated) {
  EXPECT_EQ(say({5, 0, 0, 1, 0, 0, 0, 0, 0, 0}), 1);
  EXPECT_TRUE(broker.orders.empty());
}
TEST_F(Control, RefusesWhatIsNoOffload) { EXPECT_EQ(say({5, 0, 0, 0x80, 0, 0, 0, 0, 0, 0}), 1); }
TEST_F(Control, RefusesOffloadsWithoutTheirFeature) {
  EXPECT_EQ(say_without(net::kFeatureCtrlGuestOffloads, {5, 0, 0, 0, 0, 0, 0, 0, 0, 0}), 1);
}

TEST_F(Control, AddsUpTheModesOfReceiving) {
  add({0, 0, 1});
  add({0, 1, 1});
  add({0, 5, 1});
  add({0, 0, 0});
  EXPECT_EQ(serve(), WorkerExit::kStopped);
  ASSERT_EQ(broker.orders.size(), 4U);
  EXPECT_EQ(broker.orders[2].value, 0b100011U);
  EXPECT_EQ(broker.orders[3].value, 0b100010U);
}

TEST_F(Control, RefusesAModeThatDoesNotExist) { EXPECT_EQ(say({0, 6, 1}), 1); }
TEST_F(Control, RefusesAModeThatIsNeitherOnNorOff) { EXPECT_EQ(say({0, 0, 2}), 1); }
TEST_F(Control, RefusesAModeWithoutItsFeature) {
  EXPECT_EQ(say_without(net::kFeatureCtrlRx, {0, 1, 1}), 1);
}
TEST_F(Control, RefusesAnExtraModeWithoutItsFeature) {
  EXPECT_EQ(say_without(net::kFeatureCtrlRxExtra, {0, 2, 1}), 1);
}

TEST_F(Control, PassesOnTheTablesOfAddresses) {
  EXPECT_EQ(say({1, 0, 1, 0, 0, 0, 2, 1, 1, 1, 1, 1, 1, 0, 0, 0, 1, 2, 3, 4, 5, 6}), 0);
  ASSERT_EQ(broker.orders.size(), 1U);
  EXPECT_EQ(broker.orders[0].unicasts, 1U);
  EXPECT_EQ(broker.orders[0].multicasts, 1U);
  EXPECT_EQ(broker.orders[0].macs[0], (net::Mac{2, 1, 1, 1, 1, 1}));
  EXPECT_EQ(broker.orders[0].macs[1], (net::Mac{1, 2, 3, 4, 5, 6}));
}

TEST_F(Control, TakesTooManyAddressesForAllOfThem) {
  Bytes command = {1, 0, 70, 0, 0, 0};
  command.resize(command.size() + 70 * 6, 2);
  command.insert(command.end(), {0, 0, 0, 0});
  EXPECT_EQ(say(command), 0);
  ASSERT_EQ(broker.orders.size(), 1U);
  EXPECT_EQ(broker.orders[0].unicasts, 0U);
  EXPECT_EQ(broker.orders[0].value, (1U << net::kRxAllUni) | (1U << net::kRxAllMulti));
}

TEST_F(Control, RefusesATableLongerThanItsCommand) {
  EXPECT_EQ(say({1, 0, 2, 0, 0, 0, 2, 1, 1, 1, 1, 1}), 1);
  EXPECT_EQ(say({1, 0, 0xff, 0xff, 0xff, 0xff, 2, 1, 1, 1, 1, 1, 0, 0, 0, 0}), 1);
}
TEST_F(Control, RefusesATableWithSomethingBehindIt) {
  EXPECT_EQ(say({1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9}), 1);
}
TEST_F(Control, RefusesATableThatIsMissing) { EXPECT_EQ(say({1, 0, 0, 0, 0, 0}), 1); }

TEST_F(Control, PassesOnTheAddressOfTheCard) {
  EXPECT_EQ(say({1, 1, 2, 3, 4, 5, 6, 7}), 0);
  ASSERT_EQ(broker.orders.size(), 1U);
  EXPECT_EQ(broker.orders[0].own_mac, (net::Mac{2, 3, 4, 5, 6, 7}));
}
TEST_F(Control, RefusesAGroupAddressForTheCard) { EXPECT_EQ(say({1, 1, 1, 3, 4, 5, 6, 7}), 1); }
TEST_F(Control, RefusesAnAddressWithoutItsFeature) {
  EXPECT_EQ(say_without(net::kFeatureCtrlMacAddr, {1, 1, 2, 3, 4, 5, 6, 7}), 1);
}

TEST_F(Control, TakesAnAnnouncementAsMade) {
  EXPECT_EQ(say({3, 0}), 0);
  EXPECT_TRUE(broker.orders.empty());
}

TEST_F(Control, RefusesWhatItDoesNotKnow) {
  EXPECT_EQ(say({2, 0, 1, 0}), 1);
  EXPECT_EQ(say({6, 0}), 1);
  EXPECT_EQ(say({255, 255}), 1);
}
TEST_F(Control, RefusesACommandThatIsCutOff) { EXPECT_EQ(say({4}), 1); }
TEST_F(Control, RefusesACommandLongerThanAnyCanBe) { EXPECT_EQ(say(Bytes(5000, 0)), 1); }

TEST_F(Control, DoesNothingWhereItCouldNotAnswer) {
  add({4, 0, 2, 0}, 0);
  EXPECT_EQ(serve(), WorkerExit::kStopped);
  EXPECT_TRUE(broker.orders.empty());
  EXPECT_EQ(rig.ring.next_used()->written, 0U);
}

TEST_F(Control, WritesOneByteIntoARoomyAnswer) {
  add({4, 0, 2, 0}, 8);
  EXPECT_EQ(serve(), WorkerExit::kStopped);
  EXPECT_EQ(rig.ring.next_used()->written, 1U);
}

TEST_F(Control, StopsForABrokenRing) {
  rig.ring.offer(5000);
  EXPECT_EQ(serve(), WorkerExit::kGuestFault);
  EXPECT_EQ(rig.fault(), WorkerFault::kHeadOutsideTable);
}

}  // namespace
