// What a network worker is told and what it keeps before it is sealed; and what role a virtqueue
// has.
#include "worker/net_start.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <span>
#include <utility>

#include "common/ipc/channel.h"
#include "common/sys.h"
#include "policy/worker_net.h"
#include "worker/net_control.h"

namespace worker_test {
namespace {

namespace net = common::net;
using common::EngineKind;
using common::Fd;
using common::ipc::net_role;
using common::ipc::NetRole;
using common::ipc::NetStart;
using common::ipc::WorkerFault;

NetStart start_of(NetRole role, EngineKind engine) {
  NetStart start{};
  start.kind = NetStart::kKind;
  start.role = static_cast<std::uint32_t>(role);
  start.engine = static_cast<std::uint32_t>(engine);
  return start;
}

worker::Started<worker::NetOrders> orders_of(const NetStart& start) {
  const auto pair = *common::make_packet_pair();
  EXPECT_TRUE(common::ipc::send(pair.first.ref(), start));
  common::ipc::UringLayout layout{};
  layout.kind = common::ipc::UringLayout::kKind;
  layout.sq_entries = 64;
  EXPECT_TRUE(common::ipc::send(pair.first.ref(), layout));
  return worker::receive_net_orders(pair.second.ref());
}

TEST(NetRole, EvenQueuesReceiveAndOddOnesTransmit) {
  constexpr std::uint64_t kMq = net::kFeatureMq | net::kFeatureCtrlVq;
  EXPECT_EQ(net_role(0, 4, kMq), NetRole::kReceive);
  EXPECT_EQ(net_role(1, 4, kMq), NetRole::kTransmit);
  EXPECT_EQ(net_role(6, 4, kMq), NetRole::kReceive);
  EXPECT_EQ(net_role(7, 4, kMq), NetRole::kTransmit);
}

TEST(NetRole, TheControlQueueFollowsTheLastPair) {
  EXPECT_EQ(net_role(8, 4, net::kFeatureMq | net::kFeatureCtrlVq), NetRole::kControl);
  EXPECT_EQ(net_role(2, 1, net::kFeatureCtrlVq), NetRole::kControl);
}

TEST(NetRole, TheControlQueueFollowsTheFirstPairWithoutMq) {
  EXPECT_EQ(net_role(2, 4, net::kFeatureCtrlVq), NetRole::kControl);
}

TEST(NetRole, ThereIsNoControlQueueWithoutItsFeature) {
  EXPECT_EQ(net_role(2, 1, 0), NetRole::kReceive);
}

TEST(NetOrders, TakesTheLayoutOnlyWithARing) {
  const auto ring = orders_of(start_of(NetRole::kTransmit, EngineKind::kIoUring));
  ASSERT_TRUE(ring);
  EXPECT_EQ(ring->role(), NetRole::kTransmit);
  EXPECT_EQ(ring->layout.sq_entries, 64U);
  const auto fallback = orders_of(start_of(NetRole::kReceive, EngineKind::kFallback));
  ASSERT_TRUE(fallback);
  EXPECT_EQ(fallback->layout.sq_entries, 0U);
}

TEST(NetOrders, RefusesARoleThatThereIsNot) {
  const auto orders = orders_of(start_of(static_cast<NetRole>(3), EngineKind::kFallback));
  ASSERT_FALSE(orders);
  EXPECT_EQ(orders.error().fault, WorkerFault::kBadMessage);
}

TEST(NetOrders, RefusesAControlQueueWithARing) {
  EXPECT_FALSE(orders_of(start_of(NetRole::kControl, EngineKind::kIoUring)));
}

TEST(NetOrders, RefusesTheOrdersOfADisk) {
  const auto pair = *common::make_packet_pair();
  common::ipc::BlkStart start{};
  start.kind = common::ipc::BlkStart::kKind;
  ASSERT_TRUE(common::ipc::send(pair.first.ref(), start));
  EXPECT_FALSE(worker::receive_net_orders(pair.second.ref()));
}

TEST(NetLimits, NoFileCanBeWrittenAndNoDescriptorMade) {
  worker::NetOrders orders;
  orders.device = start_of(NetRole::kReceive, EngineKind::kIoUring);
  EXPECT_EQ(worker::limits_for(orders).file_size_bytes, 0U);
  EXPECT_EQ(worker::limits_for(orders).descriptors, 0U);
  orders.device = start_of(NetRole::kReceive, EngineKind::kFallback);
  EXPECT_EQ(worker::limits_for(orders).descriptors, 10U);
  EXPECT_EQ(worker::limits_for(orders).processes, 1U);
}

// --- in a process of their own, since the numbers of descriptors are what they are about
// ----------

// The other end of what is at the tap's number.
Fd take_places() {
  std::array<int, 2> ends{};
  if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK, 0, ends.data()) != 0) return {};
  Fd tap(ends[0]);
  Fd peer(ends[1]);
  Fd stop = *common::make_eventfd();
  Fd high_tap = *common::duplicate(tap.ref(), 40);
  Fd high_stop = *common::duplicate(stop.ref(), 40);
  Fd high_peer = *common::duplicate(peer.ref(), 40);
  for (Fd* const fd : {&tap, &peer, &stop}) fd->reset();
  for (int number = 3; number < 16; ++number) ::close(number);
  if (::dup3(high_tap.ref().number, 5, O_CLOEXEC) != 5) return {};
  if (::dup3(high_stop.ref().number, 6, O_CLOEXEC) != 6) return {};
  return high_peer;
}

int place_descriptors(NetRole role, bool crossed) {
  const Fd peer = take_places();
  if (!peer.valid()) return 1;
  worker::Guest guest;
  guest.kick = *common::duplicate(common::make_eventfd()->ref(), crossed ? 9 : 20);
  guest.call = *common::duplicate(common::make_eventfd()->ref(), crossed ? 8 : 21);
  const std::uint64_t one = 1;
  if (::write(guest.kick.ref().number, &one, sizeof(one)) != 8) return 2;
  worker::NetOrders orders;
  orders.device = start_of(role, EngineKind::kFallback);
  auto machine = worker::make_tap_engine(orders, guest);
  if (!machine) return 3;
  const std::span<const int> wanted(policy::kWorkerNetFds);
  if (!std::equal(machine->keep.begin(), machine->keep.end(), wanted.begin(), wanted.end())) {
    return 4;
  }
  if (!machine->engine->wait(worker::TapEngine::Until::kKick).kicked) return 5;
  std::uint64_t value = 0;
  machine->engine->ring_call();
  return ::read(9, &value, sizeof(value)) == 8 && value == 1 ? 0 : 6;
}

TEST(NetPlacementDeathTest, DescriptorsAreWhereThePolicySays) {
  EXPECT_EXIT(_exit(place_descriptors(NetRole::kReceive, false)), testing::ExitedWithCode(0), "");
  EXPECT_EXIT(_exit(place_descriptors(NetRole::kTransmit, false)), testing::ExitedWithCode(0), "");
}

TEST(NetPlacementDeathTest, EvenWhereTheyCameCrossed) {
  EXPECT_EXIT(_exit(place_descriptors(NetRole::kControl, true)), testing::ExitedWithCode(0), "");
}

// What a control worker hears from the broker; 10 for "done", 20 for "no".
int ask(const common::ipc::NetControlDone* answer, bool hang_up,
        const common::ipc::NetControlDone* before = nullptr) {
  Fd peer = take_places();
  worker::Guest guest;
  worker::NetOrders orders;
  orders.device = start_of(NetRole::kControl, EngineKind::kFallback);
  auto machine = worker::make_tap_engine(orders, guest);
  if (!machine) return 1;
  if (before != nullptr && !common::ipc::send(peer.ref(), *before)) return 2;
  if (answer != nullptr && !common::ipc::send(peer.ref(), *answer)) return 2;
  if (hang_up) peer.reset();
  worker::BrokerControlLink link(common::FdRef{5}, *machine->engine);
  common::ipc::NetControl order{};
  order.kind = common::ipc::NetControl::kKind;
  const bool done = link.ask(order);
  if (!hang_up) {
    common::ipc::Packet packet;
    if (!common::ipc::receive_packet(peer.ref(), packet, false)) return 3;
    if (!packet.as<common::ipc::NetControl>()) return 4;
  }
  return done ? 10 : 20;
}

TEST(NetControlLinkDeathTest, TellsWhatTheBrokerAnswers) {
  common::ipc::NetControlDone done{};
  done.kind = common::ipc::NetControlDone::kKind;
  done.turn = 1;
  done.accepted = 1;
  EXPECT_EXIT(_exit(ask(&done, false)), testing::ExitedWithCode(10), "");
  done.accepted = 0;
  EXPECT_EXIT(_exit(ask(&done, false)), testing::ExitedWithCode(20), "");
}

TEST(NetControlLinkDeathTest, PassesOverASecondAnswerToWhatItAskedBefore) {
  common::ipc::NetControlDone before{};
  before.kind = common::ipc::NetControlDone::kKind;
  common::ipc::NetControlDone done = before;
  done.turn = 1;
  done.accepted = 1;
  EXPECT_EXIT(_exit(ask(&done, false, &before)), testing::ExitedWithCode(10), "");
}

TEST(NetControlLinkDeathTest, TakesNonsenseForANo) {
  common::ipc::NetControlDone nonsense{};
  nonsense.kind = 7;
  nonsense.accepted = 1;
  EXPECT_EXIT(_exit(ask(&nonsense, false)), testing::ExitedWithCode(20), "");
}

TEST(NetControlLinkDeathTest, OutlivesABrokerThatIsGone) {
  EXPECT_EXIT(_exit(ask(nullptr, true)), testing::ExitedWithCode(20), "");
}

}  // namespace
}  // namespace worker_test
