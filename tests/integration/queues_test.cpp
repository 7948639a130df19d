// Several queues at once, and rings of every legal size.
#include <gtest/gtest.h>

#include <array>
#include <memory>
#include <vector>

#include "tests/fakes/process.h"
#include "tests/integration/host.h"
#include "tests/integration/verified_load.h"

namespace integration {
namespace {

using fakes::BlkClient;

class Queues : public EngineTest {};
BULKHEAD_FOR_BOTH_ENGINES(Queues);
class QueuesOnDisk : public DiskTest {};
BULKHEAD_FOR_ALL_SETTINGS(QueuesOnDisk);

TEST_P(QueuesOnDisk, FourQueuesWorkAtOnceOnTheirOwnPartsOfTheDisk) {
  host_.serve();
  const auto client = host_.connect({.queues = 4});
  EXPECT_EQ(host_.workers().size(), 4U);
  std::vector<std::unique_ptr<VerifiedLoad>> loads;
  for (std::uint32_t i = 0; i < 4; ++i) {
    loads.push_back(std::make_unique<VerifiedLoad>(
        client->queue(i), VerifiedLoad::Plan{.first_sector = 1024ULL * i}));
  }
  for (const auto& load : loads) load->expect_progress(200);
  for (const auto& load : loads) load->stop();
}

TEST_P(QueuesOnDisk, FlushOnOneQueueCoversWritesOnAnother) {
  host_.serve();
  const auto client = host_.connect({.queues = 2});
  ASSERT_EQ(client->queue(0).write(64, pattern(64, 4096, 9)), kOk);
  ASSERT_EQ(client->queue(1).flush(), kOk);
  EXPECT_TRUE(is_pattern(read_image(host_.image(), 64, 4096), 64, 9));
  std::vector<std::byte> got(4096);
  ASSERT_EQ(client->queue(1).read(64, got), kOk);
  EXPECT_TRUE(is_pattern(got, 64, 9));
}

TEST_P(Queues, SixtyFourQueuesAllServe) {
  host_.serve();
  const auto client = host_.connect({.queues = 64, .shape = {.size = 16, .slots = 2}});
  EXPECT_EQ(host_.workers().size(), 64U);
  for (std::uint32_t i = 0; i < 64; ++i) expect_serves(client->queue(i), 64ULL + i * 16);
}

TEST_P(Queues, UnusedQueuesCostNoWorker) {
  host_.serve();
  const auto client = host_.connect({.queues = 1});
  expect_serves(client->queue());
  EXPECT_EQ(host_.workers().size(), 1U);
}

TEST_P(Queues, OnlyTheLastOfAllQueuesMayBeUsed) {
  host_.serve({.options = {"--num-queues=5"}});
  BlkClient::Options options{.queues = 5};
  options.handshake = false;
  const auto client = host_.connect(options);
  client->negotiate_protocol();
  client->vhost().set_features(client->offered());
  client->vhost().set_mem_table(client->memory());
  client->describe_ring(4, 0);
  client->give_kick(4);
  client->give_call(4);
  client->enable(4, true);
  expect_serves(client->queue(4));
}

TEST_P(Queues, RingOf1024EntriesWorksAllAround) {
  host_.serve();
  const auto client =
      host_.connect({.shape = {.size = 1024, .slots = 256, .slot_bytes = 4096, .indirect = false}});
  VerifiedLoad load(client->queue(), {.blocks = 512, .depth = 128});
  load.expect_progress(5000);
  load.stop();
}

TEST_P(Queues, RingOfTwoEntriesWorks) {
  host_.serve();
  const auto client = host_.connect({.shape = {.size = 2, .slots = 2}});
  VerifiedLoad load(client->queue(), {.depth = 2});
  load.expect_progress(100);
  load.stop();
}

TEST_P(Queues, RingOfOneEntryWorksWithIndirectDescriptors) {
  host_.serve();
  const auto client = host_.connect({.shape = {.size = 1, .slots = 1}});
  expect_serves(client->queue());
}

TEST_P(Queues, IndicesWrapAroundSixteenBits) {
  host_.serve();
  BlkClient::Options options;
  options.handshake = false;
  const auto client = host_.connect(options);
  client->negotiate_protocol();
  client->vhost().set_features(client->offered());
  client->vhost().set_mem_table(client->memory());
  client->queue().driver().start_at(0xfff0);
  client->describe_ring(0, 0xfff0);
  client->give_kick(0);
  client->give_call(0);
  client->enable(0, true);
  VerifiedLoad load(client->queue(), {});
  load.expect_progress(100);
  load.stop();
  EXPECT_LT(client->queue().driver().next_avail(), 0xfff0);
}

TEST_P(Queues, QueueSizeAsConfiguredIsTheMost) {
  host_.serve({.options = {"--queue-size=64"}});
  const auto client = host_.connect({.shape = {.size = 64}});
  expect_serves(client->queue());
  client->vhost().ask_for_acks(false);
  client->vhost().set_vring_num(0, 128);
  EXPECT_TRUE(client->vhost().hung_up());
  EXPECT_NE(host_.broker().wait_for_line({"SET_VRING_NUM", "128 entries"}), "");
}

TEST_P(Queues, BusyPollingServesAndSleepsAgain) {
  host_.serve({.options = {"--poll-us=50"}});
  const auto client = host_.connect();
  VerifiedLoad load(client->queue(), {.depth = 1});
  load.expect_progress(500);
  load.stop();
  // It has given up polling by now, or soon: the next request needs its kick.
  expect_serves(client->queue(), 4096);
}

TEST_P(Queues, ClientThatPollsTheRingIsServedWithoutInterrupts) {
  host_.serve();
  const auto client = host_.connect();
  VerifiedLoad load(client->queue(), {.poll = true});
  load.expect_progress(500);
  load.stop();
}

}  // namespace
}  // namespace integration
