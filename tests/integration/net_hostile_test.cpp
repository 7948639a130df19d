// What a hostile or broken guest can write into the rings of a network card: bad packets are
// dropped, counted and given back; a broken ring stops that queue; nothing else is disturbed.
#include <gtest/gtest.h>

#include <array>
#include <string>
#include <vector>

#include "common/virtqueue_wire.h"
#include "tests/integration/net_host.h"

namespace integration {
namespace {

namespace net = common::net;
using common::Le16;
using fakes::make_frame;
using fakes::make_unfinished;
using fakes::NetClient;
using fakes::NetPacket;
using fakes::NetPiece;
using fakes::NetQueueDriver;
using fakes::Unfinished;

class NetHostile : public NetTest {
 protected:
  void start_counting(const NetClient::Options& options = {}) {
    start(options, {.options = {"--stats-interval=1"}});
  }
  // The device gives it back and sends nothing: the next packet that comes out is a good one.
  void expect_dropped(const NetPacket& packet) {
    client().transmit_queue().send(packet);
    EXPECT_TRUE(client().transmit_queue().wait_sent());
    expect_sends();
  }
  NetPacket with(void (*change)(net::WireHeader&)) {
    NetPacket packet = make_unfinished(Unfinished::kTcp4Segments, 4000, 1, true);
    change(packet.header);
    return packet;
  }
  void offer_raw(NetQueueDriver& queue, const std::vector<NetPiece>& pieces) {
    queue.prepare(*queue.free_slot(), pieces);
    queue.publish();
  }
  void expect_stopped(std::size_t pair, NetQueueDriver& queue, const std::string& words) {
    EXPECT_TRUE(queue.error_signalled());
    EXPECT_NE(host().broker().wait_for_line({"warning tap0: worker tap0/", words}), "")
        << host().broker().log();
    // The other pair goes on, and so does the broker for the next VMM.
    expect_sends(1 - pair);
    client_.reset();
    client_ = host().connect();
    expect_sends();
  }
};
BULKHEAD_FOR_BOTH_ENGINES(NetHostile);

TEST_P(NetHostile, HeadersThatLieAreDroppedAndCounted) {
  start_counting();
  expect_dropped(with([](net::WireHeader& header) { header.gso_type = 2; }));
  expect_dropped(with([](net::WireHeader& header) { header.gso_type = 0x7f; }));
  expect_dropped(with([](net::WireHeader& header) { header.gso_type = 0xff; }));
  expect_dropped(with([](net::WireHeader& header) { header.gso_size = Le16(0); }));
  expect_dropped(with([](net::WireHeader& header) { header.csum_start = Le16(3999); }));
  expect_dropped(with([](net::WireHeader& header) { header.csum_start = Le16(0xffff); }));
  expect_dropped(with([](net::WireHeader& header) { header.csum_offset = Le16(0xffff); }));
  EXPECT_NE(host().broker().wait_for_line({"with a wrong header", "dropped: "}), "");
  expect_works();
}

TEST_P(NetHostile, WhatIsOnlyAHintMayLie) {
  start();
  for (const std::uint16_t length : std::initializer_list<std::uint16_t>{0, 1, 13, 65535}) {
    NetPacket packet = make_unfinished(Unfinished::kTcp4Segments, 4000, 1, true);
    packet.header.hdr_len = Le16(length);
    packet.header.num_buffers = Le16(0xffff);
    client().transmit_queue().send(packet);
    const auto got = port().receive(kPacketPatienceMs);
    ASSERT_TRUE(got.has_value()) << length << host().broker().log();
    EXPECT_EQ(got->frame, packet.frame);
  }
}

TEST_P(NetHostile, OffloadsThatWereNotNegotiatedAreDropped) {
  start({.features = ~(net::kFeatureCsum | net::kFeatureHostTso4 | net::kFeatureHostTso6 |
                       net::kFeatureHostEcn | net::kFeatureHostUso | net::kFeatureHostUfo)});
  expect_dropped(make_unfinished(Unfinished::kTcp4Checksum, 1000, 1, true));
  expect_dropped(make_unfinished(Unfinished::kTcp4Segments, 4000, 1, true));
  expect_dropped(make_unfinished(Unfinished::kUdp4Segments, 4000, 1, true));
  expect_works();
}

TEST_P(NetHostile, ChainsShorterThanAPacketAreDropped) {
  start();
  auto& queue = client().transmit_queue();
  for (const std::uint32_t bytes : {1U, 11U, 12U, 13U, 25U}) {
    offer_raw(queue, {{0, bytes, false}});
    EXPECT_TRUE(queue.wait_sent()) << bytes;
    expect_sends(0, bytes);
  }
}

TEST_P(NetHostile, PacketsLongerThanAnyAreDropped) {
  start({.transmit = {.slot_bytes = 1 << 20}, .features = ~net::kFeatureMtu});
  auto& queue = client().transmit_queue();
  for (const std::uint32_t bytes : {65567U, 70000U, 1U << 20}) {
    offer_raw(queue, {{0, bytes, false}});
    EXPECT_TRUE(queue.wait_sent()) << bytes;
    expect_sends(0, bytes);
  }
}

TEST_P(NetHostile, EmptyDescriptorsDoNoHarm) {
  start();
  auto& queue = client().transmit_queue();
  offer_raw(queue, {{0, 0, false}});
  offer_raw(queue, {{0, 0, false}, {0, 12, false}, {12, 0, false}, {12, 0, false}});
  expect_sends();
}

TEST_P(NetHostile, APacketThatDoesNotFitIntoItsBufferIsDropped) {
  start({.receive = {.slots = 8, .slot_bytes = 256}, .features = ~net::kFeatureMergeableBuffers});
  port().send(make_frame(1000, 1));
  port().send(make_frame(200, 2));
  const auto got = client().receive_queue().receive(kPacketPatienceMs);
  ASSERT_TRUE(got.has_value()) << host().broker().log();
  EXPECT_EQ(got->frame, make_frame(200, 2));
}

TEST_P(NetHostile, ATransmitChainThatIsToBeWrittenStopsTheQueue) {
  start({.pairs = 2});
  auto& queue = client().transmit_queue(0);
  offer_raw(queue, {{0, 100, true}});
  expect_stopped(0, queue, "cannot be received into, or not sent from");
}

TEST_P(NetHostile, AReceiveBufferThatIsToBeReadStopsTheQueue) {
  start({.pairs = 2, .offer_buffers = false});
  auto& queue = client().receive_queue(0);
  offer_raw(queue, {{0, 2000, false}});
  port().send(make_frame(100, 1));
  expect_stopped(0, queue, "cannot be received into, or not sent from");
}

TEST_P(NetHostile, AReceiveBufferShorterThanTheHeaderStopsTheQueue) {
  start({.pairs = 2, .offer_buffers = false});
  auto& queue = client().receive_queue(0);
  offer_raw(queue, {{0, 11, true}});
  port().send(make_frame(100, 1));
  expect_stopped(0, queue, "shorter than the packet header");
}

TEST_P(NetHostile, AnAvailIndexThatJumpsStopsTheQueue) {
  start({.pairs = 2});
  auto& queue = client().transmit_queue(0);
  queue.driver().store_avail_idx(5000);
  queue.kick();
  expect_stopped(0, queue, "avail index jumped");
}

TEST_P(NetHostile, AHeadOutsideTheTableStopsTheQueue) {
  start({.pairs = 2});
  auto& queue = client().transmit_queue(0);
  queue.driver().store_avail_entry(0, 60000);
  queue.driver().store_avail_idx(1);
  queue.kick();
  expect_stopped(0, queue, "outside the descriptor table");
}

TEST_P(NetHostile, AChainThatLoopsStopsTheQueue) {
  start({.pairs = 2});
  auto& queue = client().transmit_queue(0);
  queue.driver().set_desc(0, queue.data_addr(0), 100, common::kDescNext, 1);
  queue.driver().set_desc(1, queue.data_addr(0), 100, common::kDescNext, 0);
  queue.driver().offer(0);
  queue.publish();
  expect_stopped(0, queue, "loops or is too long");
}

TEST_P(NetHostile, ABufferOutsideTheMemoryStopsTheQueue) {
  start({.pairs = 2});
  auto& queue = client().transmit_queue(0);
  queue.driver().set_desc(0, 0x10, 100, 0, 0);
  queue.driver().offer(0);
  queue.publish();
  expect_stopped(0, queue, "outside its memory");
}

TEST_P(NetHostile, ControlCommandsThatAreNoneAreRefusedAndTheCardServesOn) {
  start({.control = true, .features = ~net::kFeatureMq});
  auto& control = client().control_queue();
  constexpr std::array<std::uint8_t, 8> kNumbers = {0, 1, 2, 3, 4, 5, 9, 255};
  const std::array<std::byte, 64> noise{};
  for (const std::uint8_t class_ : kNumbers) {
    for (const std::uint8_t number : kNumbers) {
      EXPECT_TRUE(control.command(class_, number, {}).has_value());
      EXPECT_TRUE(control.command(class_, number, std::span(noise).first(1)).has_value());
      EXPECT_TRUE(control.command(class_, number, noise).has_value());
    }
  }
  EXPECT_EQ(control.command(255, 0, {}), net::kControlError);
  EXPECT_TRUE(host().broker().running());
  expect_sends();
}

// A guest that changes its mind all the time costs us a bounded number of ioctls a second.
TEST_P(NetHostile, AFloodOfControlCommandsIsAnsweredSlowly) {
  start({.pairs = 2, .control = true});
  for (int i = 0; i < 215; ++i) {
    const std::array<std::byte, 2> pairs = {static_cast<std::byte>(1 + i % 2), std::byte{0}};
    ASSERT_EQ(client().control_queue().command(4, 0, pairs), net::kControlOk) << i;
  }
  expect_sends();
}

}  // namespace
}  // namespace integration
