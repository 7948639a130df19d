// The order of messages of every front-end that is in use, each with real I/O at its end and, where
// that front-end has one, its stop, reset or pause.
#include <gtest/gtest.h>
#include <sys/socket.h>

#include "tests/integration/host.h"

namespace integration {
namespace {

using fakes::BlkClient;
using fakes::VhostRequest;

constexpr std::uint64_t kVersion1 = common::kFeatureVersion1;
constexpr std::uint64_t kBlkConfigBytes = 60;

class FrontEnd : public EngineTest {
 protected:
  void start(const BlkClient::Options& options) {
    host_.serve();
    client_ = host_.connect(options);
  }
  fakes::VhostFrontend& vhost() { return client_->vhost(); }
  void set_num(std::uint32_t ring) {
    vhost().set_vring_num(ring, client_->queue(ring).place().size);
  }
  void set_addr(std::uint32_t ring) {
    vhost().set_vring_addr(client_->queue(ring).place().vring_addr(ring, client_->memory()));
  }
  void set_call_not_kept(std::uint32_t ring) {
    // QEMU's masked notifier: heard by nobody, replaced later.
    static fakes::Doorbell masked;
    vhost().set_vring_fd(VhostRequest::kSetVringCall, ring, masked.current());
  }
  void expect_all_serve() {
    for (std::uint32_t i = 0; i < client_->queues(); ++i) {
      expect_serves(client_->queue(i), 1024 + i * 64ULL);
    }
  }

  std::unique_ptr<BlkClient> client_;
};
BULKHEAD_FOR_BOTH_ENGINES(FrontEnd);

BlkClient::Options by_hand(std::uint16_t queues, bool acks) {
  BlkClient::Options options;
  options.queues = queues;
  options.acks = acks;
  options.handshake = false;
  return options;
}

TEST_P(FrontEnd, QemuOrderWorksAndStopsAndStartsAgain) {
  start(by_hand(2, true));
  const std::uint64_t offered = vhost().get_features();
  const std::uint64_t protocol = vhost().get_protocol_features();
  // Everything that is in QEMU's mask is acknowledged.
  vhost().set_protocol_features(protocol);
  EXPECT_GE(vhost().get_queue_num(), 2U);
  EXPECT_EQ(vhost().get_max_mem_slots(), 509U);
  vhost().set_owner();
  EXPECT_EQ(vhost().get_features(), offered);
  vhost().ask_for_acks(true);
  for (std::uint32_t ring = 0; ring < 2; ++ring) {
    set_call_not_kept(ring);
    client_->give_err(ring);
  }
  EXPECT_EQ(vhost().get_config(0, 57).size(), 57U);
  const auto begin = [&](std::uint16_t base) {
    vhost().set_features(offered);
    for (std::uint32_t ring = 0; ring < 2; ++ring) client_->give_call(ring);
    vhost().set_features(offered);
    for (std::size_t i = 0; i < client_->memory().regions().size(); ++i) {
      vhost().add_mem_reg(client_->memory().regions()[i], client_->memory().file(i));
    }
    for (std::uint32_t ring = 0; ring < 2; ++ring) {
      client_->describe_ring(ring, base);
      client_->give_kick(ring);
      client_->give_call(ring);
    }
    for (std::uint32_t ring = 0; ring < 2; ++ring) client_->enable(ring, true);
  };
  begin(0);
  expect_all_serve();
  for (std::uint32_t ring = 0; ring < 2; ++ring) client_->enable(ring, false);
  const std::uint32_t base = vhost().get_vring_base(0);
  EXPECT_EQ(base, client_->queue(0).driver().next_avail());
  EXPECT_EQ(vhost().get_vring_base(1), client_->queue(1).driver().next_avail());
  for (const fakes::VmRegion& region : client_->memory().regions()) vhost().rem_mem_reg(region);
  begin(static_cast<std::uint16_t>(base));
  expect_all_serve();
}

TEST_P(FrontEnd, OldQemuWithoutBit30AndMemSlotsWorks) {
  start(by_hand(1, false));
  const std::uint64_t offered = vhost().get_features();
  vhost().set_protocol_features(vhost().get_protocol_features() &
                                (fakes::kProtocolMq | fakes::kProtocolConfig));
  vhost().set_owner();
  set_call_not_kept(0);
  EXPECT_EQ(vhost().get_config(0, 36).size(), 36U);
  // QEMU before 7.2 uses protocol features and never says so in SET_FEATURES: rings start enabled.
  vhost().set_features(offered & ~fakes::kVhostFeatureProtocol);
  vhost().set_mem_table(client_->memory());
  client_->describe_ring(0, 0);
  client_->give_kick(0);
  client_->give_call(0);
  vhost().set_features(offered & ~fakes::kVhostFeatureProtocol);
  expect_all_serve();
  EXPECT_EQ(vhost().get_vring_base(0), client_->queue().driver().next_avail());
}

TEST_P(FrontEnd, CloudHypervisorOrderWorksAndPausesByEnableAlone) {
  start(by_hand(2, true));
  vhost().need_reply_on_gets(true);
  vhost().set_owner();
  const std::uint64_t offered = vhost().get_features();
  vhost().set_protocol_features(vhost().get_protocol_features() &
                                (fakes::kProtocolMq | fakes::kProtocolReplyAck |
                                 fakes::kProtocolConfig | fakes::kProtocolMemSlots |
                                 fakes::kProtocolBackendReq));
  vhost().ask_for_acks(true);
  EXPECT_GE(vhost().get_queue_num(), 2U);
  EXPECT_EQ(vhost().get_config(0, kBlkConfigBytes, 1).size(), kBlkConfigBytes);
  vhost().set_features(offered);
  vhost().set_mem_table(client_->memory());
  set_num(0);
  set_num(1);
  for (std::uint32_t ring = 0; ring < 2; ++ring) {
    set_addr(ring);
    vhost().set_vring_base(ring, 0);
    client_->give_call(ring);
    client_->give_kick(ring);
  }
  for (std::uint32_t ring = 0; ring < 2; ++ring) client_->enable(ring, true);
  int channel[2] = {-1, -1};
  ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, channel), 0);
  const common::Fd ours(channel[0]);
  const common::Fd theirs(channel[1]);
  const common::FdRef back_end_end = theirs.ref();
  vhost().request(VhostRequest::kSetBackendReqFd, {}, {&back_end_end, 1});
  expect_all_serve();
  for (int round = 0; round < 3; ++round) {
    for (std::uint32_t ring = 0; ring < 2; ++ring) client_->enable(ring, false);
    for (std::uint32_t ring = 0; ring < 2; ++ring) client_->enable(ring, true);
    expect_all_serve();
  }
}

TEST_P(FrontEnd, CloudHypervisorReconnectsWithoutAskingForProtocolFeatures) {
  start(by_hand(1, true));
  vhost().set_owner();
  const std::uint64_t offered = vhost().get_features();
  vhost().set_protocol_features(fakes::kProtocolMq | fakes::kProtocolReplyAck |
                                fakes::kProtocolConfig);
  vhost().ask_for_acks(true);
  vhost().set_features(offered);
  vhost().set_mem_table(client_->memory());
  // As it restores: the ring goes on at the guest's avail index.
  client_->queue().driver().start_at(300);
  set_num(0);
  set_addr(0);
  vhost().set_vring_base(0, 300);
  client_->give_call(0);
  client_->give_kick(0);
  client_->enable(0, true);
  expect_all_serve();
  EXPECT_EQ(client_->stop_ring(0), client_->queue().driver().next_avail());
}

TEST_P(FrontEnd, CrosvmOrderWorksAndResetsWithoutNewFeatures) {
  start(by_hand(2, false));
  vhost().set_owner();
  const std::uint64_t offered = vhost().get_features();
  // REPLY_ACK is acknowledged and never used.
  vhost().set_protocol_features(vhost().get_protocol_features() &
                                (fakes::kProtocolMq | fakes::kProtocolReplyAck |
                                 fakes::kProtocolConfig | fakes::kProtocolBackendReq));
  EXPECT_GE(vhost().get_queue_num(), 2U);
  EXPECT_EQ(vhost().get_config(0, kBlkConfigBytes).size(), kBlkConfigBytes);
  vhost().set_features(offered);
  for (int activation = 0; activation < 2; ++activation) {
    vhost().set_mem_table(client_->memory());
    for (std::uint32_t ring = 0; ring < 2; ++ring) {
      set_num(ring);
      set_addr(ring);
      vhost().set_vring_base(ring, client_->queue(ring).driver().next_avail());
      client_->give_call(ring);
      client_->give_kick(ring);
      client_->enable(ring, true);
    }
    expect_all_serve();
    for (std::uint32_t ring = 0; ring < 2; ++ring) {
      EXPECT_EQ(client_->stop_ring(ring), client_->queue(ring).driver().next_avail());
    }
  }
}

TEST_P(FrontEnd, FirecrackerOrderWorksWithConfigAloneAndRereadsIt) {
  start(by_hand(1, false));
  vhost().set_owner();
  const std::uint64_t offered = vhost().get_features();
  ASSERT_NE(vhost().get_protocol_features() & fakes::kProtocolConfig, 0U);
  vhost().set_protocol_features(fakes::kProtocolConfig);
  EXPECT_EQ(vhost().get_config(0, kBlkConfigBytes, 1).size(), kBlkConfigBytes);
  vhost().set_features(offered &
                       (kVersion1 | common::kFeatureEventIdx | common::blk::kFeatureFlush |
                        fakes::kVhostFeatureProtocol | common::kFeatureIndirectDesc));
  vhost().set_mem_table(client_->memory());
  set_num(0);
  set_addr(0);
  vhost().set_vring_base(0, 0);
  client_->give_call(0);
  client_->give_kick(0);
  client_->enable(0, true);
  expect_all_serve();
  EXPECT_EQ(vhost().get_config(0, kBlkConfigBytes, 1).size(), kBlkConfigBytes);
  expect_all_serve();
}

TEST_P(FrontEnd, LibkrunOrderWorksWithOneCallForAllQueuesAndRestartsAtBaseZero) {
  start(by_hand(2, false));
  const std::uint64_t offered = vhost().get_features();
  vhost().set_protocol_features(vhost().get_protocol_features() &
                                (fakes::kProtocolConfig | fakes::kProtocolMq));
  EXPECT_GE(vhost().get_queue_num(), 2U);
  const auto activate = [&] {
    vhost().set_owner();
    vhost().set_mem_table(client_->memory());
    vhost().set_features(offered);
    for (std::uint32_t ring = 0; ring < 2; ++ring) {
      set_num(ring);
      vhost().set_vring_base(ring, 0);
      set_addr(ring);
      client_->give_kick(ring);
      vhost().set_vring_fd(VhostRequest::kSetVringCall, ring,
                           client_->queue(0).doorbell().current());
      client_->enable(ring, true);
    }
  };
  activate();
  expect_serves(client_->queue(0), 1024);
  // Queue 1 rings the same bell: nothing comes on its own.
  std::vector<std::byte> got(512);
  const auto read_by_polling = [&](std::uint64_t sector) {
    fakes::BlkQueueDriver& queue = client_->queue(1);
    const fakes::BlkSegment segment{queue.data_addr(0), 512};
    queue.prepare(0, common::blk::RequestType::kIn, sector, {&segment, 1}, true);
    queue.send();
    ASSERT_TRUE(queue.poll(10000).has_value());
    EXPECT_TRUE(is_pattern(queue.data(0).first(512), sector));
  };
  read_by_polling(8);
  // Its reset: disabled, never asked for its base, and then the ring starts over at 0.
  client_->enable(0, false);
  client_->enable(1, false);
  vhost().barrier();
  for (std::uint32_t ring = 0; ring < 2; ++ring) {
    client_->queue(ring).driver() =
        fakes::SplitDriver(client_->queue(ring).place(), client_->memory(), true);
  }
  activate();
  expect_serves(client_->queue(0), 2048);
  read_by_polling(16);
}

TEST_P(FrontEnd, OpenVmmOrderWorksAndReadsTheConfigInPieces) {
  start(by_hand(1, true));
  const std::uint64_t offered = vhost().get_features();
  vhost().set_protocol_features(vhost().get_protocol_features() &
                                (fakes::kProtocolMq | fakes::kProtocolReplyAck |
                                 fakes::kProtocolConfig | fakes::kProtocolResetDevice));
  vhost().set_owner();
  EXPECT_GE(vhost().get_queue_num(), 1U);
  std::vector<std::byte> pieces;
  for (std::uint32_t at = 0; at < kBlkConfigBytes; at += 4) {
    const std::vector<std::byte> piece = vhost().get_config(at, 4);
    pieces.insert(pieces.end(), piece.begin(), piece.end());
  }
  EXPECT_EQ(pieces, vhost().get_config(0, kBlkConfigBytes));
  vhost().ask_for_acks(true);
  const auto activate = [&] {
    vhost().set_features(offered);
    set_num(0);
    set_addr(0);
    vhost().set_vring_base(0, 0);
    client_->give_kick(0);
    client_->give_call(0);
    client_->enable(0, true);
  };
  vhost().set_mem_table(client_->memory());
  activate();
  expect_all_serve();
  // A write of the cache mode carries its neighbours, unchanged: wce, unused, num_queues.
  std::vector<std::byte> mode = vhost().get_config(common::blk::kConfigWceOffset, 4);
  vhost().set_config(common::blk::kConfigWceOffset, mode);
  vhost().request(VhostRequest::kResetDevice);
  client_->queue().driver() = fakes::SplitDriver(client_->queue().place(), client_->memory(), true);
  activate();
  expect_all_serve();
}

TEST_P(FrontEnd, SpdkInitiatorOrderWorksWithEnableFirstAndManyMemTables) {
  BlkClient::Options options = by_hand(2, false);
  options.gpa_as_vmm_addr = true;
  start(options);
  vhost().set_owner();
  const std::uint64_t offered = vhost().get_features();
  vhost().set_features(offered);
  vhost().set_protocol_features(vhost().get_protocol_features() &
                                (fakes::kProtocolMq | fakes::kProtocolConfig));
  EXPECT_EQ(vhost().get_config(0, 256).size(), 256U);
  EXPECT_GE(vhost().get_queue_num(), 2U);
  client_->enable(0, true);
  client_->enable(1, true);
  client_->give_call(0);
  client_->give_call(1);
  for (int again = 0; again < 5; ++again) {
    vhost().set_mem_table(client_->memory());
    vhost().barrier();
  }
  for (std::uint32_t ring = 0; ring < 2; ++ring) {
    set_num(ring);
    vhost().set_vring_base(ring, 0);
    set_addr(ring);
    client_->give_kick(ring);
  }
  expect_all_serve();
  for (int again = 0; again < 5; ++again) {
    vhost().set_mem_table(client_->memory());
    vhost().barrier();
    expect_all_serve();
  }
}

TEST_P(FrontEnd, DpdkVirtioUserOrderWorksWithStatus) {
  start(by_hand(1, true));
  vhost().set_owner();
  const std::uint64_t offered = vhost().get_features();
  const std::uint64_t protocol = vhost().get_protocol_features();
  ASSERT_NE(protocol & fakes::kProtocolStatus, 0U);
  vhost().set_protocol_features(
      protocol & (fakes::kProtocolMq | fakes::kProtocolReplyAck | fakes::kProtocolStatus));
  EXPECT_GE(vhost().get_queue_num(), 1U);
  vhost().ask_for_acks(true);
  vhost().set_u64(VhostRequest::kSetStatus, 0);
  vhost().set_u64(VhostRequest::kSetStatus, 1 | 2);
  client_->give_call(0);
  vhost().set_features(offered);
  vhost().set_u64(VhostRequest::kSetStatus, 1 | 2 | 8);
  EXPECT_EQ(vhost().get_u64(VhostRequest::kGetStatus), 1U | 2U | 8U);
  vhost().set_mem_table(client_->memory());
  set_num(0);
  vhost().set_vring_base(0, 0);
  set_addr(0);
  client_->give_kick(0);
  client_->enable(0, true);
  vhost().set_u64(VhostRequest::kSetStatus, 1 | 2 | 4 | 8);
  expect_all_serve();
}

TEST_P(FrontEnd, LibblkioOrderWorksWithMemorySlotsOnly) {
  BlkClient::Options options = by_hand(1, true);
  options.gpa_as_vmm_addr = true;
  start(options);
  vhost().set_owner();
  const std::uint64_t offered = vhost().get_features();
  vhost().set_features(offered);
  constexpr std::uint64_t kRequired =
      fakes::kProtocolReplyAck | fakes::kProtocolConfig | fakes::kProtocolMemSlots;
  const std::uint64_t protocol = vhost().get_protocol_features();
  ASSERT_EQ(protocol & kRequired, kRequired);
  vhost().set_protocol_features(protocol & (kRequired | fakes::kProtocolMq));
  vhost().ask_for_acks(true);
  EXPECT_EQ(vhost().get_max_mem_slots(), 509U);
  for (std::size_t i = 0; i < client_->memory().regions().size(); ++i) {
    vhost().add_mem_reg(client_->memory().regions()[i], client_->memory().file(i));
  }
  client_->describe_ring(0, 0);
  client_->give_kick(0);
  client_->give_call(0);
  client_->enable(0, true);
  expect_all_serve();
  // No stop: it just closes.
  vhost().disconnect();
  EXPECT_NE(host_.broker().wait_for_line({"vda"}), "");
}

}  // namespace
}  // namespace integration
