// The broker of a network card dies, or another one takes its place, while a guest sends and
// receives: no packet is lost, and the card goes on as its guest has set it up.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <future>
#include <set>
#include <string>
#include <vector>

#include "tests/integration/net_takeover.h"

namespace integration {
namespace {

namespace net = common::net;
using testing::SizeIs;

BULKHEAD_FOR_BOTH_ENGINES(NetTakeover);

// --- packets -------------------------------------------------------------------------------------

TEST_P(NetTakeover, BrokerIsKilledAndPacketsGoOn) {
  start_card();
  PacketFlow flow(client(), port());
  flow.expect_progress();
  kill_broker();
  flow.expect_progress();
  start_again();
  flow.expect_progress();
  flow.stop();
  EXPECT_THAT(first("worker"), SizeIs(2));  // The very same ones.
  stop_all();
}

TEST_P(NetTakeover, TakesOverUnderLoadTenTimes) {
  start_card();
  PacketFlow flow(client(), port());
  for (int round = 0; round < 10; ++round) {
    flow.expect_progress(10);
    take_over();
  }
  flow.expect_progress();
  flow.stop();
  EXPECT_THAT(first("worker"), SizeIs(2));
  stop_all();
}

TEST_P(NetTakeover, WhatIsInTheRingsWhenTheBrokerDiesComesThrough) {
  start_card({.offer_buffers = false});
  for (std::uint32_t i = 0; i < 40; ++i) port().send(fakes::make_frame(200 + i, i));
  kill_broker();
  for (std::uint32_t i = 40; i < 50; ++i) port().send(fakes::make_frame(200 + i, i));
  client().receive_queue().offer_buffers(30);
  start_again();
  client().receive_queue().offer_buffers();
  for (std::uint32_t i = 0; i < 50; ++i) {
    const auto got = client().receive_queue().receive(kPacketPatienceMs);
    ASSERT_TRUE(got.has_value()) << i;
    EXPECT_EQ(got->frame, fakes::make_frame(200 + i, i));
  }
  stop_all();
}

TEST_P(NetTakeover, WorkersThatDieAreReplacedOnTheSameQueueOfTheTap) {
  start_card();
  PacketFlow flow(client(), port(), {.may_lose = true});
  flow.expect_progress();
  take_over();
  for (const pid_t pid : first("worker")) EXPECT_EQ(::kill(pid, SIGKILL), 0);
  EXPECT_NE(host().broker().wait_for_line({"queue 0 is served again"}), "");
  EXPECT_NE(host().broker().wait_for_line({"queue 1 is served again"}), "");
  flow.expect_progress();
  flow.stop();
  stop_all();
}

TEST_P(NetTakeover, WorkerThatDiesWithoutABrokerIsReplacedByTheNextOne) {
  start_card();
  kill_broker();
  for (const pid_t pid : first("worker")) {
    EXPECT_EQ(::kill(pid, SIGKILL), 0);
    EXPECT_TRUE(fakes::wait_gone(pid));
  }
  for (std::uint32_t i = 0; i < 10; ++i) port().send(fakes::make_frame(200, i));
  start_again();
  for (std::uint32_t i = 0; i < 10; ++i) {  // The tap had them.
    const auto got = client().receive_queue().receive(kPacketPatienceMs);
    ASSERT_TRUE(got.has_value()) << i;
    EXPECT_EQ(got->frame, fakes::make_frame(200, i));
  }
  expect_sends();
  stop_all();
}

TEST_P(NetTakeover, WorkersAreReplacedUnderLoadOneAfterTheOther) {
  start_card();
  PacketFlow flow(client(), port());
  take_over();
  fakes::BrokerProcess upgrade(
      {.program = BULKHEAD_PROGRAM,
       .arguments = {"upgrade-workers", "--pid=" + std::to_string(host().broker().pid())}});
  EXPECT_EQ(upgrade.wait_exit(), 0) << upgrade.log();
  for (const pid_t pid : first("worker")) EXPECT_TRUE(fakes::wait_gone(pid));
  flow.expect_progress();
  flow.stop();
  EXPECT_THAT(host().workers(), SizeIs(2));
  stop_all();
}

// --- what the guest and its VMM have asked for ---------------------------------------------------

TEST_P(NetTakeover, WhatTheControlQueueHasChosenHoldsAndCanBeChanged) {
  start_card({.pairs = 2, .control = true}, {.options = {"--num-queues=2"}});
  EXPECT_EQ(set_pairs(2), net::kControlOk);
  EXPECT_EQ(
      command(net::ControlClass::kOffloads, net::kGuestOffloadsSet, std::vector<std::uint8_t>(8)),
      net::kControlOk);
  for (int round = 0; round < 2; ++round) {
    kill_broker();
    start_again();
    EXPECT_EQ(pairs_that_receive(2), (std::set<std::size_t>{0, 1}));
  }
  EXPECT_EQ(set_pairs(1), net::kControlOk);
  EXPECT_EQ(pairs_that_receive(2), std::set<std::size_t>{0});
  EXPECT_FALSE(is_sent_unfinished());
  take_over();
  EXPECT_FALSE(is_sent_unfinished());
  EXPECT_EQ(pairs_that_receive(2), std::set<std::size_t>{0});
  stop_all();
}

TEST_P(NetTakeover, CommandWithoutABrokerIsDoneByTheNextOne) {
  start_card({.pairs = 2, .control = true}, {.options = {"--num-queues=2"}});
  kill_broker();
  auto answer = std::async(std::launch::async, [this] { return set_pairs(2); });
  start_again();
  EXPECT_EQ(answer.get(), net::kControlOk);
  EXPECT_EQ(pairs_that_receive(2), (std::set<std::size_t>{0, 1}));
  EXPECT_EQ(set_pairs(3), net::kControlError);
  EXPECT_EQ(set_pairs(1), net::kControlOk);
  stop_all();
}

TEST_P(NetTakeover, ControlWorkerThatDiesIsReplaced) {
  start_card({.control = true, .features = ~net::kFeatureMq});
  take_over();
  const std::vector<pid_t> control = first("tap0/2");
  ASSERT_THAT(control, SizeIs(1));
  EXPECT_EQ(::kill(control[0], SIGKILL), 0);
  EXPECT_NE(host().broker().wait_for_line({"queue 2 is served again"}), "");
  EXPECT_EQ(command(net::ControlClass::kRx, net::kRxPromisc, {1}), net::kControlOk);
  take_over();
  EXPECT_EQ(command(net::ControlClass::kRx, net::kRxPromisc, {1}), net::kControlOk);
  expect_works();
  stop_all();
}

TEST_P(NetTakeover, PairsComeAndGoAfterIt) {
  start_card({.pairs = 4});
  take_over();
  for (std::uint32_t pair = 1; pair < 4; ++pair) client().enable_pair(pair, false);
  EXPECT_EQ(pairs_that_receive(4), std::set<std::size_t>{0});
  client().enable_pair(2, true);
  take_over();
  EXPECT_EQ(pairs_that_receive(4), (std::set<std::size_t>{0, 2}));
  client().enable_pair(3, true);
  expect_sends(3);
  stop_all();
}

TEST_P(NetTakeover, NetworkIsToldWhereTheGuestIs) {
  start_card();
  take_over();
  send_rarp();
  expect_rarp();
  kill_broker();
  send_rarp();
  start_again();
  expect_rarp();
  stop_all();
}

TEST_P(NetTakeover, MtuOfTheVmmsHoldsForWorkersThatAreStartedAfterIt) {
  start_card({.handshake = false});
  client().negotiate_protocol();
  client().choose_features();
  EXPECT_EQ(client().vhost().request_for_ack(fakes::VhostRequest::kNetSetMtu,
                                             fakes::bytes_of(std::uint64_t{1400})),
            0U);
  take_over();
  client().start_all();
  expect_works();
  stop_all();
}

TEST_P(NetTakeover, GuestThatResetsAndTheNextVmmAreServed) {
  start_card({.pairs = 2});
  take_over();
  client().restart_all();
  expect_sends(1);
  client_.reset();
  for (const pid_t pid : first("session")) EXPECT_TRUE(fakes::wait_gone(pid));
  client_ = host().connect();
  expect_sends();
  EXPECT_EQ(pairs_that_receive(1), std::set<std::size_t>{0});
  stop_all();
}

TEST_P(NetTakeover, CallDescriptorMayChangeAfterIt) {
  start_card();
  PacketFlow flow(client(), port());
  take_over();
  flow.stop();
  for (const std::uint32_t queue : {0U, 1U}) {
    auto& driver = queue == 0 ? client().receive_queue() : client().transmit_queue();
    client().vhost().set_vring_fd(fakes::VhostRequest::kSetVringCall, queue,
                                  driver.doorbell().replace());
  }
  expect_works();
  stop_all();
}

}  // namespace
}  // namespace integration
