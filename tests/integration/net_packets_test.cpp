// Packets through a network card, compared byte by byte at both ends.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <string>
#include <vector>

#include "common/virtqueue_wire.h"
#include "policy/sanitizer.h"
#include "tests/integration/net_host.h"

namespace integration {
namespace {

namespace net = common::net;
using fakes::HostPort;
using fakes::make_frame;
using fakes::make_unfinished;
using fakes::NetClient;
using fakes::NetPacket;
using fakes::NetQueueDriver;
using fakes::Unfinished;

constexpr std::size_t kFrameMin = 14;
constexpr std::size_t kFrameMax = 65549;  // 64 KiB less one in an IP packet, and Ethernet's 14.
constexpr unsigned kTapMtuMax = 65521;    // The kernel's limit for a tap.
constexpr std::size_t kPlainFrameMax = kTapMtuMax + kFrameMin;
// So many are under way at once: less than a tap's queue or a ring takes.
constexpr std::size_t kBatch = 32;

// Big buffers, as a driver without merged ones has to offer for large packets.
constexpr NetQueueDriver::Shape kBigBuffers{.slots = 48, .slot_bytes = 65600};
constexpr NetQueueDriver::Shape kSmallBuffers{.slots = 250, .slot_bytes = 1536};

class NetPackets : public NetTest {
 protected:
  void send_sizes(std::size_t first, std::size_t last) {
    for (std::size_t begin = first; begin <= last; begin += kBatch) {
      const std::size_t end = std::min(begin + kBatch, last + 1);
      for (std::size_t size = begin; size < end; ++size) {
        client().transmit_queue().add(
            {.header = {}, .frame = make_frame(size, static_cast<std::uint32_t>(size), true)});
      }
      client().transmit_queue().publish();
      for (std::size_t size = begin; size < end; ++size) {
        const auto got = port().receive(kPacketPatienceMs);
        ASSERT_TRUE(got.has_value()) << size << " bytes";
        ASSERT_EQ(got->frame.size(), size);
        ASSERT_TRUE(got->frame == make_frame(size, static_cast<std::uint32_t>(size), true)) << size;
      }
    }
    EXPECT_TRUE(client().transmit_queue().wait_sent());
  }

  // `batch` times the largest packet must fit into the buffers that are offered.
  void receive_sizes(std::size_t first, std::size_t last, std::size_t batch = kBatch) {
    for (std::size_t begin = first; begin <= last; begin += batch) {
      const std::size_t end = std::min(begin + batch, last + 1);
      for (std::size_t size = begin; size < end; ++size) {
        port().send(make_frame(size, static_cast<std::uint32_t>(size)));
      }
      for (std::size_t size = begin; size < end; ++size) {
        const auto got = client().receive_queue().receive(kPacketPatienceMs);
        ASSERT_TRUE(got.has_value()) << size << " bytes";
        ASSERT_EQ(got->frame.size(), size);
        ASSERT_TRUE(got->frame == make_frame(size, static_cast<std::uint32_t>(size))) << size;
        ASSERT_EQ(got->header.flags, 0);
        ASSERT_EQ(got->header.gso_type, 0);
      }
    }
  }

  // All sizes from 9001 on; where a sanitizer watches each byte, those at both ends.
  template <typename Run>
  static void with_large_sizes(std::size_t last, Run run) {
    if (!policy::kSanitizerBuild) return run(9001, last);
    run(9001, 12'000);
    run(last - 1500, last);
  }

  void expect_unfinished_sent(Unfinished kind, std::size_t bytes) {
    const NetPacket packet = make_unfinished(kind, bytes, 7, true);
    client().transmit_queue().send(packet);
    const auto got = port().receive(kPacketPatienceMs);
    ASSERT_TRUE(got.has_value()) << host().broker().log();
    EXPECT_EQ(got->header.gso_type, packet.header.gso_type);
    EXPECT_EQ(got->header.gso_size.get(), packet.header.gso_size.get());
    EXPECT_EQ(got->header.flags & net::kHeaderNeedsCsum, net::kHeaderNeedsCsum);
    EXPECT_EQ(got->header.csum_start.get(), packet.header.csum_start.get());
    EXPECT_EQ(got->header.csum_offset.get(), packet.header.csum_offset.get());
    EXPECT_TRUE(got->frame == packet.frame);
  }

  void expect_unfinished_received(Unfinished kind, std::size_t bytes) {
    const NetPacket packet = make_unfinished(kind, bytes, 9);
    port().send(packet);
    const auto got = client().receive_queue().receive(kPacketPatienceMs);
    ASSERT_TRUE(got.has_value()) << host().broker().log();
    EXPECT_EQ(got->header.gso_type, packet.header.gso_type);
    EXPECT_EQ(got->header.gso_size.get(), packet.header.gso_size.get());
    EXPECT_EQ(got->header.flags & net::kHeaderNeedsCsum, net::kHeaderNeedsCsum);
    EXPECT_EQ(got->header.csum_start.get(), packet.header.csum_start.get());
    EXPECT_EQ(got->header.csum_offset.get(), packet.header.csum_offset.get());
    EXPECT_TRUE(got->frame == packet.frame);
  }

  // The kernel finishes for a driver what it does not take unfinished: segments of `segments`.
  void expect_received_in_segments(Unfinished kind, std::size_t bytes, std::size_t segments) {
    port().send(make_unfinished(kind, bytes, 11));
    for (std::size_t i = 0; i < segments; ++i) {
      const auto got = client().receive_queue().receive(kPacketPatienceMs);
      ASSERT_TRUE(got.has_value()) << "segment " << i;
      EXPECT_EQ(got->header.gso_type, 0);
      EXPECT_LT(got->frame.size(), 1500U);
    }
  }
};
BULKHEAD_FOR_BOTH_ENGINES(NetPackets);

TEST_P(NetPackets, OnePacketGoesEachWay) {
  start();
  expect_works();
}

// --- every size ----------------------------------------------------------------------------------

TEST_P(NetPackets, EverySizeUpTo9000IsSent) {
  start({}, {}, {.mtu = kTapMtuMax});
  send_sizes(kFrameMin, 9000);
}

TEST_P(NetPackets, EverySizeUpTo9000IsReceivedIntoMergedBuffers) {
  start({.receive = kSmallBuffers}, {}, {.mtu = kTapMtuMax});
  receive_sizes(kFrameMin, 9000);
}

TEST_P(NetPackets, EverySizeUpTo9000IsReceivedIntoBigBuffers) {
  start({.receive = kBigBuffers, .features = ~net::kFeatureMergeableBuffers}, {},
        {.mtu = kTapMtuMax});
  receive_sizes(kFrameMin, 9000);
}

TEST_P(NetPackets, EverySizeUpTo65549IsSent) {
  start({.features = ~net::kFeatureMtu});
  with_large_sizes(kFrameMax,
                   [this](std::size_t first, std::size_t last) { send_sizes(first, last); });
}

TEST_P(NetPackets, EverySizeThatATapTakesIsReceivedIntoMergedBuffers) {
  start({.receive = kSmallBuffers}, {}, {.mtu = kTapMtuMax});
  with_large_sizes(kPlainFrameMax,
                   [this](std::size_t first, std::size_t last) { receive_sizes(first, last, 5); });
}

TEST_P(NetPackets, EverySizeThatATapTakesIsReceivedIntoBigBuffers) {
  start({.receive = kBigBuffers, .features = ~net::kFeatureMergeableBuffers}, {},
        {.mtu = kTapMtuMax});
  with_large_sizes(kPlainFrameMax,
                   [this](std::size_t first, std::size_t last) { receive_sizes(first, last, 16); });
}

// 5.1.6.2.1: a driver that knows the MTU must not send more in one piece.
TEST_P(NetPackets, APacketAboveTheMtuIsDroppedWhereTheDriverKnowsIt) {
  start();
  client().transmit_queue().send({.header = {}, .frame = make_frame(1600, 1, true)});
  expect_works();
  EXPECT_TRUE(client().transmit_queue().wait_sent());
}

// --- offloads ------------------------------------------------------------------------------------

constexpr std::array kAllUnfinished = {Unfinished::kTcp4Checksum,    Unfinished::kTcp6Checksum,
                                       Unfinished::kUdp4Checksum,    Unfinished::kTcp4Segments,
                                       Unfinished::kTcp4EcnSegments, Unfinished::kTcp6Segments,
                                       Unfinished::kUdp4Segments,    Unfinished::kUdp6Segments};
constexpr bool has_segments(Unfinished kind) { return kind >= Unfinished::kTcp4Segments; }

TEST_P(NetPackets, UnfinishedPacketsOfEachKindAreSent) {
  start();
  for (const Unfinished kind : kAllUnfinished) {
    SCOPED_TRACE(static_cast<int>(kind));
    for (const std::size_t bytes : {1500U, 9000U, 33333U, 65000U}) {
      if (has_segments(kind) || bytes == 1500) expect_unfinished_sent(kind, bytes);
    }
  }
}

TEST_P(NetPackets, UnfinishedPacketsOfEachKindAreReceived) {
  start({.receive = kSmallBuffers});
  for (const Unfinished kind : kAllUnfinished) {
    SCOPED_TRACE(static_cast<int>(kind));
    for (const std::size_t bytes : {1500U, 9000U, 33333U, 65000U}) {
      if (has_segments(kind) || bytes == 1500) expect_unfinished_received(kind, bytes);
    }
  }
}

TEST_P(NetPackets, UnfinishedPacketsAreReceivedIntoBigBuffers) {
  start({.receive = kBigBuffers, .features = ~net::kFeatureMergeableBuffers});
  for (const Unfinished kind : kAllUnfinished) {
    SCOPED_TRACE(static_cast<int>(kind));
    expect_unfinished_received(kind, has_segments(kind) ? 65000 : 1500);
  }
}

TEST_P(NetPackets, ADriverWithoutOffloadsGetsFinishedPackets) {
  start({.features = ~(net::kGuestOffloads | net::kFeatureCtrlGuestOffloads)});
  for (const Unfinished kind :
       {Unfinished::kTcp4Checksum, Unfinished::kTcp6Checksum, Unfinished::kUdp4Checksum}) {
    const NetPacket packet = make_unfinished(kind, 1000, 3);
    port().send(packet);
    const auto got = client().receive_queue().receive(kPacketPatienceMs);
    ASSERT_TRUE(got.has_value());
    EXPECT_EQ(got->header.flags & net::kHeaderNeedsCsum, 0);
    EXPECT_TRUE(got->frame == finish_checksum(packet));
  }
  expect_received_in_segments(Unfinished::kTcp4Segments, 14 + 40 + 3 * 1400, 3);
  expect_received_in_segments(Unfinished::kTcp6Segments, 14 + 60 + 2 * 1400, 2);
  expect_received_in_segments(Unfinished::kUdp4Segments, 14 + 28 + 3 * 1400, 3);
}

TEST_P(NetPackets, ADriverGetsUnfinishedOnlyWhatItTakes) {
  start({.receive = kSmallBuffers,
         .features = ~(net::kGuestOffloads & ~(net::kFeatureGuestCsum | net::kFeatureGuestTso4))});
  expect_unfinished_received(Unfinished::kTcp4Checksum, 1400);
  expect_unfinished_received(Unfinished::kTcp4Segments, 20000);
  expect_received_in_segments(Unfinished::kTcp6Segments, 14 + 60 + 2 * 1400, 2);
  expect_received_in_segments(Unfinished::kUdp4Segments, 14 + 28 + 2 * 1400, 2);
}

// Each option that takes offloads away takes them from what is offered.
TEST_P(NetPackets, OffloadsThatAreSwitchedOffAreNotOffered) {
  start({}, {.options = {"--offload-csum=off", "--mrg-rxbuf=off"}});
  EXPECT_EQ(client().offered() &
                (net::kFeatureCsum | net::kFeatureGuestCsum | net::kFeatureHostTso4 |
                 net::kFeatureGuestTso4 | net::kFeatureHostUso | net::kFeatureMergeableBuffers),
            0U);
  expect_works();
  expect_received_in_segments(Unfinished::kTcp4Segments, 14 + 40 + 3 * 1400, 3);
}

TEST_P(NetPackets, TheNextDriverStartsWithItsOwnOffloads) {
  start();
  expect_unfinished_received(Unfinished::kTcp4Checksum, 1000);
  client_.reset();
  client_ = host().connect({.features = ~net::kGuestOffloads});
  const NetPacket packet = make_unfinished(Unfinished::kTcp4Checksum, 1000, 3);
  port().send(packet);
  const auto got = client().receive_queue().receive(kPacketPatienceMs);
  ASSERT_TRUE(got.has_value());
  EXPECT_TRUE(got->frame == finish_checksum(packet));
}

// --- shapes of chains and rings ------------------------------------------------------------------

TEST_P(NetPackets, HeaderAndFrameMayBeCutAnywhere) {
  start();
  const auto frame = make_frame(1200, 5, true);
  for (const std::vector<std::uint32_t>& cuts :
       {std::vector<std::uint32_t>{12},
        {1},
        {11},
        {13},
        {5, 9, 20},
        {12, 26},
        {12, 700, 1211},
        {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}}) {
    client().transmit_queue().send({.header = {}, .frame = frame}, cuts);
    const auto got = port().receive(kPacketPatienceMs);
    ASSERT_TRUE(got.has_value());
    EXPECT_EQ(got->frame, frame);
  }
}

TEST_P(NetPackets, APacketMayBeInHundredsOfPieces) {
  start();
  const auto frame = make_frame(1500, 6, true);
  std::vector<std::uint32_t> cuts;
  for (std::uint32_t i = 1; i <= 900; ++i) cuts.push_back(i);
  client().transmit_queue().send({.header = {}, .frame = frame}, cuts);
  const auto got = port().receive(kPacketPatienceMs);
  ASSERT_TRUE(got.has_value());
  EXPECT_EQ(got->frame, frame);
}

TEST_P(NetPackets, ReceiveBuffersMayBeInPieces) {
  start({.receive = {.slots = 32, .slot_bytes = 4096, .buffer_pieces = 256}}, {}, {.mtu = 9000});
  receive_sizes(14, 300);
  receive_sizes(8990, 9014, 4);
}

TEST_P(NetPackets, RingsWithoutIndirectDescriptorsAndEventsWork) {
  start({.features = ~(common::kFeatureIndirectDesc | common::kFeatureEventIdx)});
  receive_sizes(100, 600);
  send_sizes(100, 600);
  const std::vector<std::uint32_t> cuts = {12, 500};
  client().transmit_queue().send({.header = {}, .frame = make_frame(800, 1, true)}, cuts);
  EXPECT_TRUE(port().receive(kPacketPatienceMs).has_value());
}

TEST_P(NetPackets, ADriverOfTheOldKindHasAShorterHeader) {
  start({.receive = {.slots = 32, .slot_bytes = 65600},
         .features = ~(common::kFeatureVersion1 | net::kFeatureMergeableBuffers)});
  receive_sizes(14, 200);
  send_sizes(14, 200);
}

TEST_P(NetPackets, TheLargestRingWorksAllAround) {
  start({.receive = {.size = 1024, .slots = 1024}, .transmit = {.size = 1024, .slots = 512}});
  for (int round = 0; round < 4; ++round) {
    send_sizes(64, 900);
    receive_sizes(64, 900);
  }
}

}  // namespace
}  // namespace integration
