// Whole queues over a packed ring: what a guest gets to see is what it sees over a split one, and
// whoever breaks the ring ends its queue.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <memory>
#include <random>
#include <span>
#include <utility>
#include <vector>

#include "common/packed_inflight_wire.h"
#include "tests/fakes/blk_rig.h"
#include "tests/fakes/net_rig.h"
#include "worker/blk_queue.h"

namespace {

namespace net = common::net;
using common::GuestAddr;
using common::blk::RequestType;
using common::ipc::WorkerExit;
using common::ipc::WorkerFault;
using fakes::BlkRig;
using fakes::Buffer;
using fakes::GuestDriver;
using fakes::NetRig;
using fakes::ScriptedEngine;
using Layout = GuestDriver::Layout;

// A size that is no power of two, so that places of chains shift from round to round.
GuestDriver::Options packed_ring(std::uint16_t size = 50) {
  return {.queue_size = size, .packed = true};
}

// --- the same as over a split ring
// ----------------------------------------------------------------

class Dice {
 public:
  explicit Dice(std::uint32_t seed) : engine_(seed) {}
  std::uint32_t operator()() { return static_cast<std::uint32_t>(engine_()); }

 private:
  std::mt19937 engine_;
};

// An answer: to which request, in the order in which they came, and what it says.
struct Outcome {
  std::size_t request = 0;
  std::uint32_t written = 0;
  std::uint8_t status = 0;
  friend bool operator==(const Outcome&, const Outcome&) = default;
};
struct BlkStory {
  std::vector<Outcome> outcomes;
  std::vector<std::byte> disk;
  std::vector<std::byte> memory;
};

// Rounds of requests of every kind, as the dice say; an engine that answers the last first in every
// other round.
BlkStory play_blk(const GuestDriver::Options& options, std::uint32_t seed) {
  BlkRig rig(options);
  rig.number_sectors();
  const GuestAddr data = rig.ram.alloc(1U << 20, 4096);
  Dice dice(seed);
  BlkStory story;
  std::size_t number = 0;
  for (int round = 0; round < 12; ++round) {
    std::vector<std::size_t> request_of(options.queue_size);
    rig.engine.order =
        round % 2 == 0 ? ScriptedEngine::Order::kFifo : ScriptedEngine::Order::kReversed;
    const std::uint32_t count = 1 + dice() % 12;
    for (std::uint32_t i = 0; i < count; ++i) {
      const std::uint64_t sector = dice() % (BlkRig::kSectors + 8);
      const Layout layout = dice() % 2 == 0 ? Layout::kDirect : Layout::kIndirect;
      const GuestAddr at{data.value + (dice() % 32) * 8192};
      const std::uint32_t bytes = 512 * (1 + dice() % 8);
      const auto range = fakes::make_range(sector, dice() % 9);
      std::optional<std::uint16_t> head;
      switch (dice() % 6) {
        case 0:
          head = rig.blk.flush();
          break;
        case 1:
          head = rig.blk.ranges(RequestType::kWriteZeroes, {&range, 1}, layout);
          break;
        case 2:
          head = rig.blk.add_raw(dice() % 64, sector, {}, layout);
          break;
        case 3:
          head = rig.blk.write(sector, at, bytes, layout);
          break;
        default:
          head = rig.blk.read(sector, at, bytes, layout);
          break;
      }
      if (head) request_of.at(*head) = number;
      ++number;
    }
    EXPECT_EQ(rig.serve(), WorkerExit::kStopped);
    while (const auto answer = rig.blk.next()) {
      story.outcomes.push_back({request_of.at(answer->head), answer->written, answer->status});
    }
    if (options.packed) {
      EXPECT_EQ(rig.status.next_avail.load(), rig.ring.packed().base());
    }
  }
  const auto disk = rig.engine.disk();
  const auto memory = rig.ram.bytes(data, 1U << 20);
  story.disk.assign(disk.begin(), disk.end());
  story.memory.assign(memory.begin(), memory.end());
  return story;
}

class EitherRing : public testing::TestWithParam<std::uint32_t> {};
INSTANTIATE_TEST_SUITE_P(PackedQueues, EitherRing, testing::Range(0U, 12U));

TEST_P(EitherRing, HasTheSameRequestsAnsweredInTheSameWay) {
  const BlkStory split = play_blk({.queue_size = 64}, GetParam());
  const BlkStory packed = play_blk(packed_ring(64), GetParam());
  EXPECT_GT(split.outcomes.size(), 12U);
  EXPECT_EQ(split.outcomes, packed.outcomes);
  EXPECT_EQ(split.disk, packed.disk);
  EXPECT_EQ(split.memory, packed.memory);
}

std::vector<NetRig::Frame> play_transmit(const GuestDriver::Options& options, std::uint32_t seed) {
  NetRig rig(worker::TapDirection::kTransmit, options);
  rig.features = net::kFeatureCsum | net::kFeatureHostTso4;
  Dice dice(seed);
  // A tap that stays full ends a round: what was taken is put back then, and sent by the next.
  for (int round = 0; round < 10; ++round) {
    rig.tap.room = round == 9 ? SIZE_MAX : dice() % 8;
    for (std::uint32_t count = 1 + dice() % 12; count > 0; --count) {
      const Layout layout = dice() % 2 == 0 ? Layout::kDirect : Layout::kIndirect;
      const std::uint32_t bytes = 10 + dice() % 1500;
      const std::uint32_t piece = 600 + dice() % 1000;
      if (rig.ring.free_descriptors() < 20) continue;
      EXPECT_TRUE(rig.send({}, bytes, piece, layout));
    }
    EXPECT_EQ(rig.transmit(), WorkerExit::kStopped);
    while (rig.ring.next_used()) {
    }
  }
  return rig.tap.sent;
}

TEST_P(EitherRing, SendsTheSamePackets) {
  const auto split = play_transmit({.queue_size = 64}, GetParam());
  const auto packed = play_transmit(packed_ring(64), GetParam());
  EXPECT_GT(split.size(), 10U);
  EXPECT_EQ(split, packed);
}

std::vector<std::vector<std::byte>> play_receive(const GuestDriver::Options& options,
                                                 std::uint32_t seed) {
  NetRig rig(worker::TapDirection::kReceive, options);
  rig.features = net::kFeatureMergeableBuffers;
  Dice dice(seed);
  std::vector<std::vector<std::byte>> got;
  std::uint32_t offered = 0;
  for (int round = 0; round < 10; ++round) {
    while (rig.ring.free_descriptors() >= 2 && offered < 24) {
      EXPECT_TRUE(rig.offer(1600, 900, dice() % 2 == 0 ? Layout::kDirect : Layout::kIndirect));
      ++offered;
    }
    for (std::uint32_t count = dice() % 8; count > 0; --count) {
      rig.arrive(dice() % 8 == 0 ? 4000 : 60 + dice() % 1400);
    }
    EXPECT_EQ(rig.receive(), WorkerExit::kStopped);
    while (auto packet = rig.next_packet()) {
      offered -= static_cast<std::uint32_t>(packet->lengths.size());
      got.push_back(std::move(packet->packet));
    }
    if (options.packed) {
      EXPECT_EQ(rig.status.next_avail.load(), rig.ring.packed().base());
    }
  }
  return got;
}

TEST_P(EitherRing, ReceivesTheSamePackets) {
  const auto split = play_receive({.queue_size = 64}, GetParam());
  const auto packed = play_receive(packed_ring(), GetParam());
  EXPECT_GT(split.size(), 10U);
  EXPECT_EQ(split, packed);
}

// --- whoever breaks the ring
// ----------------------------------------------------------------------

TEST(PackedBlkQueue, EndsWithAChainThatGoesRoundTheRing) {
  BlkRig rig(packed_ring());
  for (std::uint16_t i = 50; i > 0; --i) {
    rig.ring.packed().store_flags(static_cast<std::uint16_t>(i - 1),
                                  common::kPackedAvail | common::kDescNext);
  }
  EXPECT_EQ(rig.serve(), WorkerExit::kGuestFault);
  EXPECT_EQ(rig.fault(), WorkerFault::kChainTooLong);
}

TEST(PackedBlkQueue, AnswersWhatItHadTakenBeforeTheRingBroke) {
  BlkRig rig(packed_ring());
  ASSERT_TRUE(rig.blk.flush());
  (void)rig.ring.publish();
  rig.ring.packed().store_flags(2, common::kPackedAvail | common::kDescNext);
  EXPECT_EQ(rig.serve(), WorkerExit::kGuestFault);
  EXPECT_EQ(rig.fault(), WorkerFault::kChainNotAvailable);
  const auto answer = rig.blk.next();
  ASSERT_TRUE(answer);
  EXPECT_EQ(answer->status, 0U);
  EXPECT_EQ(rig.status.next_avail.load(), rig.ring.packed().base());
}

// All flags turn over with every look: each look finds something, and there is still an end to it.
TEST(PackedBlkQueue, StopsWhenItIsToldThoughTheRingNeverRestsEmpty) {
  BlkRig rig(packed_ring(2));
  const GuestAddr header = rig.ram.alloc(16);
  bool wrap = true;
  std::uint32_t turns = 0;
  rig.engine.on_turn = [&](bool) {
    for (const std::uint16_t index : std::array<std::uint16_t, 2>{0, 1}) {
      rig.ring.packed().write_desc(
          index, {common::Le64(header.value), common::Le32(16), common::Le16(7),
                  common::Le16(static_cast<std::uint16_t>(fakes::PackedDriver::available(wrap) |
                                                          common::kDescWrite))});
    }
    wrap = !wrap;
    if (++turns == 100) rig.engine.stop();
  };
  const WorkerExit exit = rig.serve();
  EXPECT_TRUE(exit == WorkerExit::kStopped || exit == WorkerExit::kGuestFault);
}

TEST(PackedBlkQueue, TakesNoRingThatIsNotMapped) {
  BlkRig rig(packed_ring());
  auto start = rig.ring.ring_start(rig.features);
  start.used_addr = 0x1000;
  const auto queue =
      worker::BlkQueue::create({rig.ram.memory(), rig.device, start, &rig.engine, &rig.status});
  EXPECT_EQ(queue, nullptr);
  EXPECT_EQ(rig.fault(), WorkerFault::kRingUnmapped);
}

// --- after a death
// --------------------------------------------------------------------------------

// A worker dies with what its engine has started, while others were answered out of order and lie
// over it in the ring; the next one has the same region.
TEST(PackedBlkQueue, AnswersEveryRequestOnceAfterADeath) {
  BlkRig rig(packed_ring(16));
  rig.number_sectors();
  const GuestAddr data = rig.ram.alloc(1U << 20, 4096);
  alignas(8) std::array<std::byte, common::inflight::packed_queue_bytes(16)> region{};
  const auto make = [&](ScriptedEngine& engine, bool resume) {
    auto start = rig.ring.ring_start(rig.features);
    start.next_avail = common::kPackedBaseFresh;
    start.inflight_entries = start.queue_size;
    start.inflight_resume = resume ? 1 : 0;
    return worker::BlkQueue::create(
        {rig.ram.memory(), rig.device, start, &engine, &rig.status, std::span(region)});
  };
  std::vector<std::uint16_t> heads;
  const auto add = [&](std::uint64_t sector, Layout layout) {
    const auto head = rig.blk.read(sector, {data.value + sector * 4096}, 512, layout);
    ASSERT_TRUE(head);
  };
  add(1, Layout::kDirect);
  add(2, Layout::kIndirect);
  add(3, Layout::kDirect);
  (void)rig.ring.publish();
  ScriptedEngine dead{1U << 20};
  dead.order = ScriptedEngine::Order::kReversed;
  dead.held = true;
  dead.release(2);
  dead.on_turn = [&, left = 2](bool) mutable {
    if (--left == 0) dead.break_host();
  };
  EXPECT_EQ(make(dead, false)->run(), WorkerExit::kHostFault);
  while (const auto answer = rig.blk.next()) heads.push_back(answer->head);
  EXPECT_LT(heads.size(), 3U);
  add(4, Layout::kDirect);
  (void)rig.ring.publish();

  ScriptedEngine next{1U << 20};
  std::ranges::fill(next.disk(), std::byte{0x77});
  EXPECT_EQ(make(next, true)->run(), WorkerExit::kStopped);
  while (const auto answer = rig.blk.next()) {
    EXPECT_EQ(answer->status, 0U);
    heads.push_back(answer->head);
  }
  EXPECT_EQ(heads.size(), 4U);
  EXPECT_EQ(rig.ring.packed().outstanding(), 0U);
  EXPECT_EQ(rig.ram.get<std::uint8_t>({data.value + 4 * 4096}), 0x77U);
  EXPECT_EQ(rig.status.next_avail.load(), rig.ring.packed().base());
}

// --- while the VMM migrates
// -----------------------------------------------------------------------

// A worker marks the whole ring as it starts, for the one before it: of its own marks that says
// nothing.
void forget(fakes::LoggedRam& log) {
  log.clear();
  log.remember();
}

TEST(PackedBlkQueue, MarksEveryPageThatItWrites) {
  BlkRig rig(packed_ring(1000));
  rig.number_sectors();
  const GuestAddr data = rig.ram.alloc(1U << 20, 4096);
  fakes::LoggedRam log(rig.ram);
  rig.log = &log;
  for (int round = 0; round < 60; ++round) {
    const GuestAddr at{data.value + static_cast<std::uint64_t>(round) * 8192};
    for (int i = 0; i < 10; ++i) ASSERT_TRUE(rig.blk.read(1, at, 4096));
    rig.engine.on_turn = [&, first = true](bool) mutable {
      if (std::exchange(first, false)) forget(log);
    };
    EXPECT_EQ(rig.serve(), WorkerExit::kStopped);
    EXPECT_EQ(log.lost(), fakes::LoggedRam::Pages{}) << "in round " << round;
    while (rig.blk.next()) {
    }
  }
  EXPECT_TRUE(log.guards_are_intact());
}

TEST(PackedNetQueue, MarksEveryPageThatItWrites) {
  NetRig rig(worker::TapDirection::kReceive, packed_ring(1000));
  rig.features = net::kFeatureMergeableBuffers;
  for (int i = 0; i < 600; ++i) ASSERT_TRUE(rig.offer(2048));
  (void)rig.ring.publish();
  fakes::LoggedRam log(rig.ram);
  rig.log = &log;
  for (int i = 0; i < 300; ++i) rig.arrive(i % 3 == 0 ? 3000 : 1000);
  rig.tap.on_turn = [&, first = true]() mutable {
    if (std::exchange(first, false)) forget(log);
  };
  EXPECT_EQ(rig.receive(), WorkerExit::kStopped);
  EXPECT_EQ(log.lost(), fakes::LoggedRam::Pages{});
  EXPECT_TRUE(log.guards_are_intact());
}

}  // namespace
