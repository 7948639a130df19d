// What is offered, what the configuration space says, and who may change it.
#include <gtest/gtest.h>
#include <sys/socket.h>

#include <array>

#include "tests/integration/host.h"

namespace integration {
namespace {

namespace blk = common::blk;
using fakes::BlkClient;
using fakes::VhostRequest;

class Handshake : public EngineTest {
 protected:
  void start(const Disk& disk = {}, const BlkClient::Options& options = {}) {
    host_.serve(disk);
    client_ = host_.connect(options);
  }
  fakes::VhostFrontend& vhost() { return client_->vhost(); }
  std::unique_ptr<BlkClient> client_;
};
BULKHEAD_FOR_BOTH_ENGINES(Handshake);

TEST_P(Handshake, OffersTheFeaturesOfAWritableDisk) {
  start();
  constexpr std::uint64_t kMust =
      common::kFeatureVersion1 | common::kFeatureEventIdx | common::kFeatureIndirectDesc |
      common::kFeatureProtocolFeatures | blk::kFeatureFlush | blk::kFeatureConfigWce |
      blk::kFeatureBlkSize | blk::kFeatureTopology | blk::kFeatureSegMax | blk::kFeatureSizeMax |
      blk::kFeatureMq | blk::kFeatureDiscard | blk::kFeatureWriteZeroes;
  EXPECT_EQ(client_->offered() & kMust, kMust);
  EXPECT_EQ(client_->offered() & blk::kFeatureReadOnly, 0U);
}

TEST_P(Handshake, OffersNoProtocolFeatureThatQemuAcknowledgesBlindly) {
  start();
  const std::uint64_t protocol = vhost().get_protocol_features();
  EXPECT_EQ(protocol & (1ULL << 14 | 1ULL << 17), 0U);
}

TEST_P(Handshake, OffersTheProtocolFeaturesOfTheSpecification) {
  start();
  constexpr std::uint64_t kMust = fakes::kProtocolMq | fakes::kProtocolReplyAck |
                                  fakes::kProtocolConfig | fakes::kProtocolBackendReq |
                                  fakes::kProtocolMemSlots | fakes::kProtocolResetDevice |
                                  fakes::kProtocolStatus;
  EXPECT_EQ(vhost().get_protocol_features() & kMust, kMust);
}

TEST_P(Handshake, OffersSixtyFourQueuesUnlessToldOtherwise) {
  start();
  EXPECT_EQ(vhost().get_queue_num(), 64U);
}

TEST_P(Handshake, OffersAsManyQueuesAsConfigured) {
  start({.options = {"--num-queues=3"}});
  EXPECT_EQ(vhost().get_queue_num(), 3U);
  EXPECT_EQ(client_->config().num_queues.get(), 3U);
}

TEST_P(Handshake, QueueNumIsAnsweredWithoutMq) {
  start({}, {.protocol_features = fakes::kProtocolConfig, .acks = false});
  EXPECT_EQ(vhost().get_queue_num(), 64U);
}

TEST_P(Handshake, ConfigSpaceTellsTheDisk) {
  start({.bytes = 24 << 20});
  const blk::WireConfig config = client_->config();
  EXPECT_EQ(client_->capacity_sectors(), (24U << 20) / 512);
  EXPECT_EQ(config.blk_size.get(), 512U);
  EXPECT_GE(config.seg_max.get(), 126U);
  EXPECT_GT(config.size_max.get(), 0U);
  EXPECT_GE(config.max_discard_seg.get(), 2U);
  EXPECT_GT(config.max_discard_sectors.get(), 0U);
  EXPECT_GE(config.max_write_zeroes_seg.get(), 2U);
}

TEST_P(Handshake, BlockSizeOf4096IsTold) {
  start({.options = {"--block-size=4096"}});
  EXPECT_EQ(client_->config().blk_size.get(), 4096U);
  expect_serves(client_->queue());
}

TEST_P(Handshake, SectorsThatMakeNoWholeBlockAreNotPartOfTheDisk) {
  start({.bytes = (1 << 20) + 512, .options = {"--block-size=4096"}});
  EXPECT_EQ(client_->capacity_sectors(), (1U << 20) / 512);
}

TEST_P(Handshake, ConfigBeyondTheDeviceReadsAsZeroes) {
  start();
  const std::vector<std::byte> all = vhost().get_config(0, 256);
  EXPECT_TRUE(is_zero(std::span(all).subspan(sizeof(blk::WireConfig))));
  EXPECT_TRUE(is_zero(vhost().get_config(200, 56)));
}

TEST_P(Handshake, ConfigIsReadAtAnyOffset) {
  start();
  const std::vector<std::byte> all = vhost().get_config(0, 60);
  const std::vector<std::byte> tail = vhost().get_config(20, 4);
  EXPECT_TRUE(std::equal(tail.begin(), tail.end(), all.begin() + 20));
}

TEST_P(Handshake, ConfigOfOneByteIsAnswered) {
  start();
  EXPECT_EQ(vhost().get_config(32, 1).size(), 1U);
}

TEST_P(Handshake, CacheModeIsSetWithTheFlagsOfEveryFrontEnd) {
  start();
  const std::array<std::byte, 1> through = {std::byte{0}};
  const std::array<std::byte, 1> back = {std::byte{1}};
  for (const std::uint32_t flags : {0U, 1U, 2U}) {
    vhost().set_config(blk::kConfigWceOffset, through, flags);
    EXPECT_EQ(vhost().get_config(blk::kConfigWceOffset, 1)[0], std::byte{0});
    vhost().set_config(blk::kConfigWceOffset, back, flags);
    EXPECT_EQ(vhost().get_config(blk::kConfigWceOffset, 1)[0], std::byte{1});
  }
  expect_serves(client_->queue());
}

TEST_P(Handshake, WritesStillWorkWhenTheCacheModeChangesWhileRunning) {
  start();
  expect_serves(client_->queue(), 64);
  const std::array<std::byte, 1> through = {std::byte{0}};
  vhost().set_config(blk::kConfigWceOffset, through);
  expect_serves(client_->queue(), 128);
  EXPECT_TRUE(is_pattern(read_image(host_.image(), 128, 4096), 128, 7));
}

TEST_P(Handshake, CapacityIsNotWritable) {
  start();
  const std::uint64_t before = client_->capacity_sectors();
  const std::array<std::byte, 8> huge = {std::byte{0x7f}, std::byte{0x7f}};
  EXPECT_NE(vhost().request_for_ack(VhostRequest::kSetConfig, fakes::config_payload(0, huge)), 0U);
  EXPECT_EQ(client_->capacity_sectors(), before);
  EXPECT_NE(host_.broker().wait_for_line({"SET_CONFIG", "may not be changed"}), "");
  expect_serves(client_->queue());
}

TEST_P(Handshake, BackEndChannelIsAccepted) {
  start();
  int channel[2] = {-1, -1};
  ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, channel), 0);
  const common::Fd ours(channel[0]);
  const common::Fd theirs(channel[1]);
  const common::FdRef end = theirs.ref();
  EXPECT_EQ(vhost().request_for_ack(VhostRequest::kSetBackendReqFd, {}, {&end, 1}), 0U);
  expect_serves(client_->queue());
}

TEST_P(Handshake, OwnerMayBeSetLateAndTwice) {
  start();
  vhost().set_owner();
  vhost().set_owner();
  expect_serves(client_->queue());
}

TEST_P(Handshake, ResetOwnerIsIgnored) {
  start();
  vhost().request(VhostRequest::kResetOwner);
  vhost().barrier();
  expect_serves(client_->queue());
}

TEST_P(Handshake, FeaturesSentAgainWhileRunningChangeNothing) {
  start();
  expect_serves(client_->queue(), 64);
  vhost().set_features(client_->features());
  vhost().set_vring_addr(client_->queue().place().vring_addr(0, client_->memory()));
  expect_serves(client_->queue(), 128);
}

TEST_P(Handshake, GetsWithNeedReplyHaveOneReply) {
  start();
  vhost().need_reply_on_gets(true);
  const std::uint64_t features = vhost().get_features();
  // A second reply to the first would be taken for the answer to the next.
  EXPECT_EQ(vhost().get_queue_num(), 64U);
  EXPECT_EQ(vhost().get_features(), features);
}

TEST_P(Handshake, RequestWithoutNeedReplyHasNoReply) {
  start({}, {.acks = false});
  vhost().set_owner();
  EXPECT_EQ(vhost().get_queue_num(), 64U);
}

TEST_P(Handshake, AnUnusedMessageIsRefusedOrEndsTheSessionAndNothingElse) {
  start();
  fakes::VhostHeader header{.request = static_cast<std::uint32_t>(VhostRequest::kNetSetMtu),
                            .flags = fakes::kVhostVersion | fakes::kVhostNeedReply,
                            .size = 8};
  const std::uint64_t mtu = 1500;
  ASSERT_TRUE(vhost().send_raw(header, fakes::bytes_of(mtu)));
  const std::optional<fakes::VhostReply> reply = vhost().receive();
  EXPECT_TRUE(!reply.has_value() || reply->u64() != 0);
  vhost().disconnect();
  expect_serves(host_.connect()->queue());
}

}  // namespace
}  // namespace integration
