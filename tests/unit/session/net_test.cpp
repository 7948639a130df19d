// What only network cards have: requests, features that the broker must know first, and up to 129
// virtqueues.
#include "common/virtio_net_wire.h"
#include "tests/unit/session/harness.h"

namespace session_test {
namespace {

namespace net = common::net;

constexpr std::uint64_t kRarpAndMtu = (1ULL << 2) | (1ULL << 4);
constexpr std::uint64_t kNetFeatures = (1ULL << 32) | (1ULL << 29) | net::kFeatureMac |
                                       net::kFeatureMergeableBuffers | net::kFeatureCtrlVq;

common::ipc::SessionStart net_start() {
  common::ipc::SessionStart start{};
  start.kind = common::ipc::SessionStart::kKind;
  start.device_kind = 2;
  start.device_features = kNetFeatures;
  start.queues_max = 9;
  start.queue_size_max = 1024;
  start.config_bytes = 12;
  start.protocol_features = kRarpAndMtu;
  start.mtu_max = 9000;
  start.wants_features = 1;
  return start;
}

struct NetSession : SessionTest {
  void connect(std::uint64_t features = kNetFeatures | kBit30,
               const common::ipc::SessionStart& start = net_start()) {
    launch(start);
    fe().set_owner();
    EXPECT_EQ(fe().get_features(), kNetFeatures | kBit30 | kLogAll);
    fe().set_protocol_features(kAllProtocol | kRarpAndMtu);
    fe().ask_for_acks(true);
    fe().set_features(features);
    fe().set_mem_table(memory_);
  }
  std::uint64_t send(VhostRequest request, std::uint64_t value) {
    return fe().request_for_ack(request, fakes::bytes_of(value));
  }
};

TEST_F(NetSession, OffersRarpAndMtuBesideItsOwn) {
  launch(net_start());
  EXPECT_EQ(fe().get_protocol_features(), kAllProtocol | kRarpAndMtu);
}

TEST_F(NetSession, OffersThemToNobodyElse) {
  launch();
  EXPECT_EQ(fe().get_protocol_features(), kAllProtocol);
  fe().set_protocol_features(kAllProtocol | (1ULL << 4));
  (void)expect_violation(EventCode::kBadProtocolFeatures);
}

TEST_F(NetSession, TellsTheBrokerTheFeaturesBeforeTheFirstQueue) {
  connect();
  EXPECT_TRUE(broker().take_log().empty());
  run_ring(0);
  run_ring(1);
  EXPECT_EQ(broker().take_log(),
            (std::vector<std::string>{"features", "open 0", "start 0", "serving 0", "open 1",
                                      "start 1", "serving 1"}));
  EXPECT_EQ(broker().driver_features(), kNetFeatures);
}

TEST_F(NetSession, TellsABrokerThatDoesNotAskNothing) {
  common::ipc::SessionStart start = net_start();
  start.wants_features = 0;
  connect(kNetFeatures | kBit30, start);
  run_ring(0);
  EXPECT_EQ(broker().take_log()[0], "open 0");
}

TEST_F(NetSession, TellsChangedFeaturesOnceNoWorkerRunsWithTheOldOnes) {
  connect();
  run_ring(0);
  run_ring(1);
  (void)broker().take_log();
  fe().set_features((kNetFeatures | kBit30) & ~net::kFeatureMergeableBuffers);
  const auto log = broker().take_log();
  ASSERT_GE(log.size(), 3U);
  EXPECT_EQ(log[0], "close 0");
  EXPECT_EQ(log[1], "close 1");
  EXPECT_EQ(log[2], "features");
  EXPECT_EQ(broker().driver_features(), kNetFeatures & ~net::kFeatureMergeableBuffers);
  EXPECT_EQ(broker().running(), 2U);
}

TEST_F(NetSession, TellsTheSameFeaturesOnce) {
  connect();
  run_ring(0);
  (void)broker().take_log();
  // QEMU repeats them for each pair.
  fe().set_features(kNetFeatures | kBit30);
  run_ring(2);
  EXPECT_EQ(broker().take_log()[0], "open 2");
}

TEST_F(NetSession, PassesTheMtuOn) {
  connect();
  EXPECT_EQ(send(VhostRequest::kNetSetMtu, 9000), 0U);
  EXPECT_EQ(send(VhostRequest::kNetSetMtu, 68), 0U);
  EXPECT_EQ(broker().take_log(), (std::vector<std::string>{"mtu 9000", "mtu 68"}));
}

TEST_F(NetSession, RefusesAnMtuThatTheCardDoesNotHave) {
  connect();
  EXPECT_NE(send(VhostRequest::kNetSetMtu, 9001), 0U);
  EXPECT_NE(send(VhostRequest::kNetSetMtu, 67), 0U);
  EXPECT_NE(send(VhostRequest::kNetSetMtu, (1ULL << 32) | 1500), 0U);
  EXPECT_TRUE(broker().take_log().empty());
}

TEST_F(NetSession, RefusesAnMtuWithoutItsFeature) {
  launch(net_start());
  fe().set_owner();
  fe().set_protocol_features(kAllProtocol);
  EXPECT_NE(send(VhostRequest::kNetSetMtu, 1500), 0U);
}

TEST_F(NetSession, PassesTheAddressOfARarpOn) {
  connect();
  EXPECT_EQ(send(VhostRequest::kSendRarp, 0x7f'0000'0000'02ULL), 0U);
  EXPECT_EQ(broker().take_log(), std::vector<std::string>{"rarp 127"});
}

TEST_F(NetSession, RefusesARarpForAGroup) {
  connect();
  EXPECT_NE(send(VhostRequest::kSendRarp, 0x7f'0000'0000'03ULL), 0U);
  EXPECT_TRUE(broker().take_log().empty());
}

TEST_F(NetSession, IgnoresTheControlQueueOfAFrontEndThatKeepsIt) {
  connect();
  run_ring(0);
  run_ring(1);
  EXPECT_EQ(broker().running(), 2U);
}

TEST_F(NetSession, RunsTheControlQueueOfAFrontEndThatPassesIt) {
  connect();
  run_ring(8);
  EXPECT_EQ(broker().starts_of(8), 1U);
}

TEST_F(NetSession, RunsPairsThatAreSwitchedOnAndOffMeanwhile) {
  connect();
  for (const std::uint32_t queue : {0U, 1U, 2U, 3U}) run_ring(queue);
  fe().set_vring_enable(2, false);
  fe().set_vring_enable(3, false);
  EXPECT_EQ(broker().running(), 2U);
  fe().set_vring_enable(2, true);
  fe().set_vring_enable(3, true);
  EXPECT_EQ(broker().running(), 4U);
}

TEST_F(NetSession, SixtyFourPairsAndTheControlQueueRun) {
  common::ipc::SessionStart start = net_start();
  start.queues_max = 129;
  launch(start);
  fe().set_owner();
  fe().set_protocol_features(kAllProtocol);
  fe().ask_for_acks(true);
  fe().set_features(kNetFeatures | kBit30);
  EXPECT_EQ(fe().get_queue_num(), 129U);
  fakes::VmMemory memory;
  memory.add({.guest_addr = 0, .bytes = 4 << 20});
  fe().set_mem_table(memory);
  for (std::uint32_t queue = 0; queue < 129; ++queue) {
    fe().set_vring_num(queue, kRingSize);
    fe().set_vring_addr({queue, 0, memory.vmm_addr(desc_of(queue)), memory.vmm_addr(used_of(queue)),
                         memory.vmm_addr(avail_of(queue)), 0});
    kick(queue, kick_.ref());
    call(queue, call_.ref());
    fe().set_vring_enable(queue, true);
  }
  EXPECT_EQ(broker().running(), 129U);
}

TEST(SessionStart, IsUnsoundWithProtocolFeaturesOfNobody) {
  common::ipc::SessionStart start = net_start();
  EXPECT_TRUE(session::start_is_sound(start));
  start.protocol_features |= 1ULL << 14;
  EXPECT_FALSE(session::start_is_sound(start));
}

TEST(SessionStart, IsUnsoundWithAnMtuThatNoCardHas) {
  common::ipc::SessionStart start = net_start();
  start.mtu_max = 67;
  EXPECT_FALSE(session::start_is_sound(start));
  start.mtu_max = 65536;
  EXPECT_FALSE(session::start_is_sound(start));
}

}  // namespace
}  // namespace session_test
