#include "broker/net_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <linux/if_tun.h>

#include <cstring>

#include "common/virtqueue_wire.h"
#include "policy/worker_net.h"

namespace broker {
namespace {

namespace ipc = common::ipc;
namespace net = common::net;
using common::EngineKind;
using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr std::uint32_t kAllOffloads =
    TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN | TUN_F_UFO | kTunUso4 | kTunUso6;
constexpr std::uint64_t kTcpBits = net::kFeatureHostTso4 | net::kFeatureHostTso6 |
                                   net::kFeatureHostEcn | net::kFeatureGuestTso4 |
                                   net::kFeatureGuestTso6 | net::kFeatureGuestEcn;
constexpr std::uint64_t kUsoBits =
    net::kFeatureHostUso | net::kFeatureGuestUso4 | net::kFeatureGuestUso6;
constexpr std::uint64_t kUfoBits = net::kFeatureHostUfo | net::kFeatureGuestUfo;

class NetConfigTest : public testing::Test {
 protected:
  NetConfigTest() {
    tap_.name = "tap0";
    tap_.queues.resize(4);
    tap_.multiqueue = true;
    tap_.offloads = kAllOffloads;
    tap_.mtu = 1500;
    tap_.mac = {0x0a, 0, 0, 0, 0, 1};
    config_.kind = common::DeviceKind::kNet;
    config_.name = "eth0";
  }
  [[nodiscard]] std::uint64_t features() const { return net_features(tap_, config_); }

  Tap tap_;
  DeviceConfig config_;
};

TEST_F(NetConfigTest, OffersWhatEveryCardHas) {
  constexpr std::uint64_t kAlways =
      common::kFeatureVersion1 | common::kFeatureIndirectDesc | common::kFeatureEventIdx |
      common::kFeatureInOrder | net::kFeatureMac | net::kFeatureMtu | net::kFeatureStatus |
      net::kFeatureGuestAnnounce | net::kFeatureCtrlVq | net::kFeatureCtrlRx | net::kFeatureMq |
      net::kFeatureMergeableBuffers;
  EXPECT_EQ(features() & kAlways, kAlways);
}

TEST_F(NetConfigTest, OffersPackedRingsWhereTheOperatorWantsThem) {
  EXPECT_EQ(features() & common::kFeatureRingPacked, 0U);
  config_.packed_rings = true;
  EXPECT_EQ(features() & common::kFeatureRingPacked, common::kFeatureRingPacked);
}

TEST_F(NetConfigTest, OffersEveryOffloadOfTheKernel) {
  constexpr std::uint64_t kAll = net::kFeatureCsum | net::kFeatureGuestCsum |
                                 net::kFeatureCtrlGuestOffloads | kTcpBits | kUsoBits | kUfoBits;
  EXPECT_EQ(features() & kAll, kAll);
}

TEST_F(NetConfigTest, OffersNothingThatTheKernelHasNot) {
  tap_.offloads = TUN_F_CSUM | TUN_F_TSO4;
  EXPECT_EQ(features() & (kTcpBits | kUsoBits | kUfoBits),
            net::kFeatureHostTso4 | net::kFeatureGuestTso4);
  tap_.offloads = 0;
  EXPECT_EQ(features() & (net::kFeatureCsum | net::kFeatureGuestCsum | kTcpBits), 0U);
}

TEST_F(NetConfigTest, EachOffloadCanBeSwitchedOff) {
  config_.offload_tso = false;
  EXPECT_EQ(features() & kTcpBits, 0U);
  EXPECT_EQ(features() & kUsoBits, kUsoBits);
  config_.offload_tso = true;
  config_.offload_uso = false;
  EXPECT_EQ(features() & (kUsoBits | kUfoBits), 0U);
  EXPECT_EQ(features() & kTcpBits, kTcpBits);
  config_.mrg_rxbuf = false;
  EXPECT_EQ(features() & net::kFeatureMergeableBuffers, 0U);
}

TEST_F(NetConfigTest, WithoutChecksumsThereIsNoSegmentation) {
  config_.offload_csum = false;
  EXPECT_EQ(features() & (net::kFeatureCsum | net::kFeatureGuestCsum | kTcpBits | kUsoBits |
                          kUfoBits | net::kFeatureCtrlGuestOffloads),
            0U);
}

TEST_F(NetConfigTest, OneQueuePairIsNoMultiqueue) {
  tap_.queues.resize(1);
  EXPECT_EQ(features() & net::kFeatureMq, 0U);
  EXPECT_EQ(net_session_start(tap_, config_).queues_max, 3U);
}

TEST_F(NetConfigTest, TheGuestMayNotChangeTheAddressOfAMacvtap) {
  EXPECT_NE(features() & net::kFeatureCtrlMacAddr, 0U);
  tap_.macvtap = true;
  EXPECT_EQ(features() & net::kFeatureCtrlMacAddr, 0U);
}

TEST_F(NetConfigTest, TheTapPassesOnUnfinishedWhatTheDriverTakes) {
  EXPECT_EQ(tap_offloads(tap_, features()), kAllOffloads);
  EXPECT_EQ(tap_offloads(tap_, 0), 0U);
  EXPECT_EQ(tap_offloads(tap_, net::kFeatureGuestCsum), static_cast<std::uint32_t>(TUN_F_CSUM));
  EXPECT_EQ(tap_offloads(tap_, net::kFeatureGuestCsum | net::kFeatureGuestTso6),
            static_cast<std::uint32_t>(TUN_F_CSUM | TUN_F_TSO6));
}

TEST_F(NetConfigTest, TheTapHasNoSegmentsWithoutChecksumsAndNoEcnWithoutTcp) {
  EXPECT_EQ(tap_offloads(tap_, kTcpBits), 0U);
  EXPECT_EQ(tap_offloads(tap_, net::kFeatureGuestCsum | net::kFeatureGuestEcn),
            static_cast<std::uint32_t>(TUN_F_CSUM));
}

TEST_F(NetConfigTest, TheTapHasUsoForBothFamiliesOrNone) {
  EXPECT_EQ(tap_offloads(tap_, net::kFeatureGuestCsum | net::kFeatureGuestUso4),
            static_cast<std::uint32_t>(TUN_F_CSUM));
}

TEST_F(NetConfigTest, ConfigurationSpaceTellsAddressPairsMtuAndLink) {
  config_.mac = MacAddress{2, 3, 4, 5, 6, 7};
  config_.mtu = 9000;
  const net::WireConfig space = net_config_space(tap_, config_);
  EXPECT_EQ(space.mac, *config_.mac);
  EXPECT_EQ(space.max_virtqueue_pairs.get(), 4);
  EXPECT_EQ(space.mtu.get(), 9000);
  EXPECT_EQ(space.status.get(), net::kStatusLinkUp);
  tap_.up = false;
  EXPECT_EQ(net_config_space(tap_, config_).status.get(), 0);
}

TEST_F(NetConfigTest, MtuIsTheInterfacesWithinWhatVirtioHas) {
  EXPECT_EQ(net_config_space(tap_, config_).mtu.get(), 1500);
  tap_.mtu = 65536;
  EXPECT_EQ(net_config_space(tap_, config_).mtu.get(), 65535);
  tap_.mtu = 0;
  EXPECT_EQ(net_config_space(tap_, config_).mtu.get(), 68);
}

TEST_F(NetConfigTest, AddressOfATapsGuestIsItsOwnAndStaysTheSame) {
  const auto mac = net_config_space(tap_, config_).mac;
  EXPECT_NE(mac, tap_.mac);
  EXPECT_EQ(mac[0] & 3, 2) << "locally administered, one card's";
  EXPECT_EQ(net_config_space(tap_, config_).mac, mac);
  tap_.name = "tap1";
  EXPECT_NE(net_config_space(tap_, config_).mac, mac);
}

TEST_F(NetConfigTest, AddressOfAMacvtapsGuestIsTheMacvtaps) {
  tap_.macvtap = true;
  EXPECT_EQ(net_config_space(tap_, config_).mac, tap_.mac);
}

TEST_F(NetConfigTest, SessionIsToldAllThatItNeeds) {
  config_.queue_size = 256;
  const ipc::SessionStart start = net_session_start(tap_, config_);
  EXPECT_EQ(start.kind, ipc::SessionStart::kKind);
  EXPECT_EQ(start.device_kind, static_cast<std::uint32_t>(common::DeviceKind::kNet));
  EXPECT_EQ(start.device_features, features());
  EXPECT_EQ(start.queues_max, 9U) << "four pairs and the control virtqueue";
  EXPECT_EQ(start.queue_size_max, 256U);
  EXPECT_EQ(start.protocol_features, 1U << 2 | 1U << 4);
  EXPECT_EQ(start.mtu_max, 1500U);
  EXPECT_EQ(start.wants_features, 1U);
  EXPECT_EQ(start.writable_bytes, 0U);
  EXPECT_EQ(start.config_bytes, sizeof(net::WireConfig));
}

TEST_F(NetConfigTest, WorkersAreToldTheirRole) {
  config_.poll_us = 30;
  const auto start =
      net_worker_start(tap_, config_, ipc::NetRole::kTransmit, EngineKind::kIoUring, 3000);
  EXPECT_EQ(start.kind, ipc::NetStart::kKind);
  EXPECT_EQ(start.role, static_cast<std::uint32_t>(ipc::NetRole::kTransmit));
  EXPECT_EQ(start.engine, static_cast<std::uint32_t>(EngineKind::kIoUring));
  EXPECT_EQ(start.pairs, 4U);
  EXPECT_EQ(start.mtu, 1500U);
  EXPECT_EQ(start.poll_us, 30U);
  EXPECT_EQ(start.tsc_per_us, 3000U);
}

TEST(NetProfile, EachRoleAndEngineHasItsOwn) {
  using ipc::NetRole;
  EXPECT_EQ(&net_profile(NetRole::kReceive, EngineKind::kIoUring), &policy::kWorkerNetReceiveUring);
  EXPECT_EQ(&net_profile(NetRole::kTransmit, EngineKind::kIoUring),
            &policy::kWorkerNetTransmitUring);
  EXPECT_EQ(&net_profile(NetRole::kReceive, EngineKind::kFallback),
            &policy::kWorkerNetReceiveFallback);
  EXPECT_EQ(&net_profile(NetRole::kTransmit, EngineKind::kFallback),
            &policy::kWorkerNetTransmitFallback);
  EXPECT_EQ(&net_profile(NetRole::kControl, EngineKind::kIoUring), &policy::kWorkerNetControl);
}

TEST(NetStats, OneLineHasPacketsAndDropsByCause) {
  CounterTotals delta{};
  const auto set = [&](common::Counter counter, std::uint64_t value) {
    delta[static_cast<std::size_t>(counter)] = value;
  };
  set(common::Counter::kReceivedPackets, 200);
  set(common::Counter::kReceivedBytes, 2 << 20);
  set(common::Counter::kSentPackets, 100);
  set(common::Counter::kDropNoRoom, 3);
  set(common::Counter::kDropBadHeader, 4);
  set(common::Counter::kSystemCalls, 30);
  const std::string line = format_net_stats(delta, 2, 1);
  EXPECT_THAT(line,
              AllOf(HasSubstr("received 100 packets/s 1.0 MiB/s"), HasSubstr("sent 50 packets/s"),
                    HasSubstr("4 with a wrong header"), HasSubstr("3 without room"),
                    HasSubstr("0.100 system calls"), HasSubstr("1 worker")));
}

}  // namespace
}  // namespace broker
