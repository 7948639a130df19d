// Our half of a packed ring: what is available, what is answered, who is notified, and who goes on.
// Long because all of it is tried on one pair of a driver and a ring.
#include "worker/packed_ring.h"

#include <gtest/gtest.h>

#include <array>
#include <cstdint>
#include <memory>
#include <vector>

#include "common/packed_inflight_wire.h"
#include "common/virtqueue_wire.h"
#include "tests/fakes/guest_driver.h"
#include "worker/packed_chain.h"

namespace {

using common::PackedPlace;
using common::WirePackedDesc;
using common::ipc::WorkerFault;
using fakes::Buffer;
using fakes::GuestDriver;
using fakes::GuestRam;
using worker::PackedRing;
using Peek = PackedRing::Peek;
using Publish = PackedRing::Publish;

// A driver and our half of its ring.
struct RingPair {
  explicit RingPair(const GuestDriver::Options& options)
      : driver(ram, options), ring(PackedRing::create(memory, driver.ring_start(0)).value()) {
    resumed = ring.begin() == PackedRing::Begin::kUsed;
  }
  // A chain of so many readable buffers, shown.
  std::uint16_t offer(std::uint16_t descriptors = 1) {
    const std::vector<Buffer> buffers(descriptors, {{ram.memory().regions()[0].start}, 16, false});
    const auto token = driver.add(buffers);
    EXPECT_TRUE(token);
    (void)driver.publish();
    return token.value_or(0xffff);
  }
  std::uint16_t take() {
    EXPECT_EQ(ring.peek(), Peek::kHead);
    const std::uint16_t head = ring.head();
    ring.take();
    return head;
  }
  fakes::PackedDriver& packed() { return driver.packed(); }

  GuestRam ram;
  common::GuestMemory memory = ram.memory();
  GuestDriver driver;
  PackedRing ring;
  bool resumed = false;
};

GuestDriver::Options with_size(std::uint16_t size, bool event_idx = true) {
  return {.queue_size = size, .event_idx = event_idx, .packed = true};
}

common::ipc::RingStart valid_start(GuestRam& ram, std::uint16_t size = 128) {
  return GuestDriver(ram, with_size(size)).ring_start(0);
}

WorkerFault refusal(const GuestRam& ram, const common::ipc::RingStart& start) {
  const auto ring = PackedRing::create(ram.memory(), start);
  return ring ? WorkerFault::kNone : ring.error().code;
}

// --- where a ring may lie ---------------------------------------------------------------------

class PackedSize : public testing::TestWithParam<std::uint32_t> {};

using GoodPackedSize = PackedSize;
TEST_P(GoodPackedSize, IsServedAllTheWayRound) {
  RingPair pair(with_size(static_cast<std::uint16_t>(GetParam())));
  for (std::uint32_t i = 0; i < 3 * GetParam(); ++i) {
    const std::uint16_t token = pair.offer();
    pair.ring.add_used(pair.take(), 5);
    (void)pair.ring.publish();
    const auto used = pair.driver.next_used();
    ASSERT_TRUE(used);
    ASSERT_EQ(used->head, token);
    ASSERT_EQ(used->written, 5U);
  }
  EXPECT_EQ(pair.ring.base(), pair.packed().base());
}
// 2.8.10.1: it does not have to be a power of two.
INSTANTIATE_TEST_SUITE_P(PackedRing, GoodPackedSize,
                         testing::Values(1, 2, 3, 100, 256, 1000, 1024));

using BadPackedSize = PackedSize;
TEST_P(BadPackedSize, IsRefused) {
  GuestRam ram;
  auto start = valid_start(ram);
  start.queue_size = GetParam();
  EXPECT_EQ(refusal(ram, start), WorkerFault::kBadMessage);
}
INSTANTIATE_TEST_SUITE_P(PackedRing, BadPackedSize,
                         testing::Values(0, 1025, 32768, 65536, UINT32_MAX));

class BadBase : public testing::TestWithParam<std::uint32_t> {};
TEST_P(BadBase, IsRefused) {
  GuestRam ram;
  auto start = valid_start(ram, 8);
  start.next_avail = GetParam();
  EXPECT_EQ(refusal(ram, start), WorkerFault::kBadMessage);
}
INSTANTIATE_TEST_SUITE_P(PackedRing, BadBase,
                         testing::Values(0x8008'8008, 0x8000'8008, 0x8008'8000, 0x8001'8000,
                                         0x8000'0001, 0xffff'ffff, 0x0000'8000 | 7));

using Address = std::uint64_t common::ipc::RingStart::*;
struct PartCase {
  Address address;
  std::uint64_t number;
  std::uint64_t misaligned_by;
};
class PackedPart : public testing::TestWithParam<PartCase> {};

TEST_P(PackedPart, IsRefusedWhereNothingIsMapped) {
  GuestRam ram;
  auto start = valid_start(ram);
  start.*GetParam().address = 0x1000;
  const auto ring = PackedRing::create(ram.memory(), start);
  ASSERT_FALSE(ring);
  EXPECT_EQ(ring.error().code, WorkerFault::kRingUnmapped);
  EXPECT_EQ(ring.error().first, GetParam().number);
}

TEST_P(PackedPart, IsRefusedWhereItEndsBeyondMemory) {
  GuestRam ram(16U << 20);
  auto start = valid_start(ram);
  start.*GetParam().address = GuestRam::kDefaultStart + (16U << 20) - 16;
  EXPECT_EQ(refusal(ram, start),
            GetParam().number == 0 ? WorkerFault::kRingUnmapped : WorkerFault::kNone);
  start.*GetParam().address = GuestRam::kDefaultStart + (16U << 20);
  EXPECT_EQ(refusal(ram, start), WorkerFault::kRingUnmapped);
}

TEST_P(PackedPart, IsRefusedWhereItIsMisaligned) {
  GuestRam ram;
  auto start = valid_start(ram);
  start.*GetParam().address += GetParam().misaligned_by;
  EXPECT_EQ(refusal(ram, start), WorkerFault::kRingUnmapped);
}
INSTANTIATE_TEST_SUITE_P(PackedRing, PackedPart,
                         testing::Values(PartCase{&common::ipc::RingStart::desc_addr, 0, 8},
                                         PartCase{&common::ipc::RingStart::avail_addr, 1, 2},
                                         PartCase{&common::ipc::RingStart::used_addr, 2, 2}));

// --- what is available ------------------------------------------------------------------------

TEST(PackedRing, IsEmptyWhenNothingWasOffered) {
  RingPair pair(with_size(8));
  EXPECT_EQ(pair.ring.peek(), Peek::kEmpty);
  EXPECT_FALSE(pair.ring.has_new());
  EXPECT_FALSE(pair.resumed);
}

TEST(PackedRing, GivesBackAnyIdAndTwoOfTheSame) {
  RingPair pair(with_size(4));
  for (const std::uint16_t at : std::array<std::uint16_t, 2>{0, 1}) {
    pair.packed().write_desc(at, {.addr = common::Le64(GuestRam::kDefaultStart),
                                  .len = common::Le32(16),
                                  .id = common::Le16(0xffff),
                                  .flags = common::Le16(common::kPackedAvail)});
  }
  const std::uint16_t first = pair.take();
  const std::uint16_t second = pair.take();
  EXPECT_NE(first, second);
  pair.ring.add_used(second, 2);
  pair.ring.add_used(first, 1);
  (void)pair.ring.publish();
  EXPECT_EQ(pair.packed().desc(0).id.get(), 0xffff);
  EXPECT_EQ(pair.packed().desc(0).len.get(), 2U);
  EXPECT_EQ(pair.packed().desc(1).id.get(), 0xffff);
  EXPECT_EQ(pair.packed().desc(1).len.get(), 1U);
}

TEST(PackedRing, KeepsWhatItPeekedAtWhenTheGuestRewritesTheDescriptor) {
  RingPair pair(with_size(4));
  pair.offer();
  ASSERT_EQ(pair.ring.peek(), Peek::kHead);
  pair.packed().write_desc(0, {});
  EXPECT_EQ(pair.ring.peek(), Peek::kHead);
  EXPECT_EQ(pair.ring.chain().front().len.get(), 16U);
  EXPECT_TRUE(pair.ring.has_new());
}

TEST(PackedRing, ReadsAChainAcrossTheEndOfTheRing) {
  RingPair pair({.queue_size = 5, .packed = true, .first_place = {3, false}});
  EXPECT_TRUE(pair.resumed);
  const std::uint16_t token = pair.offer(4);
  ASSERT_EQ(pair.ring.peek(), Peek::kHead);
  EXPECT_EQ(pair.ring.chain().size(), 4U);
  pair.ring.add_used(pair.take(), 0);
  (void)pair.ring.publish();
  const auto used = pair.driver.next_used();
  ASSERT_TRUE(used);
  EXPECT_EQ(used->head, token);
  EXPECT_EQ(pair.packed().next_used(), (PackedPlace{2, true}));
  EXPECT_EQ(pair.ring.base(), pair.packed().base());
}

TEST(PackedRing, RefusesAChainThatGoesRoundTheRing) {
  RingPair pair(with_size(4));
  for (std::uint16_t i = 4; i > 0; --i) {
    pair.packed().store_flags(static_cast<std::uint16_t>(i - 1),
                              common::kPackedAvail | common::kDescNext);
  }
  EXPECT_EQ(pair.ring.peek(), Peek::kFault);
  EXPECT_EQ(pair.ring.fault().code, WorkerFault::kChainTooLong);
  EXPECT_EQ(pair.ring.fault().first, 0U);
  EXPECT_EQ(pair.ring.fault().second, 4U);
}

TEST(PackedRing, RefusesAChainThatIsLongerThanWhatIsFree) {
  RingPair pair(with_size(4));
  pair.offer(3);
  (void)pair.take();
  pair.packed().store_flags(0, common::kPackedUsed);
  pair.packed().store_flags(3, common::kPackedAvail | common::kDescNext);
  EXPECT_EQ(pair.ring.peek(), Peek::kFault);
  EXPECT_EQ(pair.ring.fault().code, WorkerFault::kChainTooLong);
  EXPECT_EQ(pair.ring.fault().second, 1U);
}

TEST(PackedRing, RefusesAChainThatGoesOnWhereNothingIsAvailable) {
  RingPair pair(with_size(4));
  pair.packed().store_flags(0, common::kPackedAvail | common::kDescNext);
  EXPECT_EQ(pair.ring.peek(), Peek::kFault);
  EXPECT_EQ(pair.ring.fault().code, WorkerFault::kChainNotAvailable);
  EXPECT_EQ(pair.ring.fault().first, 1U);
}

// Whatever a driver writes then, nothing can be new: or we would look for ever.
TEST(PackedRing, SeesNothingInARingThatItHasTakenWhole) {
  RingPair pair(with_size(2));
  pair.offer();
  pair.offer();
  const std::uint16_t head = pair.take();
  (void)pair.take();
  pair.packed().store_flags(0, common::kPackedUsed);
  EXPECT_EQ(pair.ring.peek(), Peek::kEmpty);
  EXPECT_FALSE(pair.ring.has_new());
  EXPECT_FALSE(pair.ring.enable_kicks());
  // Not before the answer is shown has it the descriptor back.
  pair.ring.add_used(head, 1);
  EXPECT_EQ(pair.ring.peek(), Peek::kEmpty);
}

TEST(PackedRing, CountsTheChainsAheadAndNotTheirDescriptors) {
  RingPair pair(with_size(8));
  pair.offer(2);
  pair.offer();
  ASSERT_EQ(pair.ring.peek(), Peek::kHead);
  EXPECT_EQ(pair.ring.waiting(), 2U);
  pair.offer(3);
  EXPECT_EQ(pair.ring.waiting(), 2U);
  EXPECT_EQ(pair.ring.offered(), 3U);
  (void)pair.take();
  EXPECT_EQ(pair.ring.waiting(), 2U);
  (void)pair.take();
  (void)pair.take();
  EXPECT_EQ(pair.ring.offered(), 0U);
}

// --- answers ----------------------------------------------------------------------------------

TEST(PackedRing, ShowsABatchByItsFirstDescriptorOnly) {
  RingPair pair(with_size(8));
  pair.offer(2);
  pair.offer();
  const WirePackedDesc before = pair.packed().desc(0);
  const std::uint16_t first = pair.take();
  const std::uint16_t second = pair.take();
  pair.ring.add_used(first, 17);
  pair.ring.add_used(second, 0);
  EXPECT_EQ(pair.packed().desc(0).flags.get(), before.flags.get());
  EXPECT_FALSE(pair.packed().has_used());

  EXPECT_TRUE(pair.ring.show_used());

  constexpr std::uint16_t kUsed = common::kPackedAvail | common::kPackedUsed;
  EXPECT_EQ(pair.packed().desc(0).flags.get(), kUsed | common::kDescWrite);
  EXPECT_EQ(pair.packed().desc(0).len.get(), 17U);
  EXPECT_EQ(pair.packed().desc(0).addr.get(), before.addr.get());
  EXPECT_EQ(pair.packed().desc(2).flags.get(), kUsed);
  EXPECT_EQ(pair.ring.uncalled(), 2U);
  EXPECT_FALSE(pair.ring.show_used());
}

TEST(PackedRing, AnswersInTheOrderInWhichItIsDone) {
  RingPair pair(with_size(4));
  const std::uint16_t long_one = pair.offer(3);
  const std::uint16_t short_one = pair.offer();
  const std::uint16_t long_head = pair.take();
  const std::uint16_t short_head = pair.take();
  pair.ring.add_used(short_head, 1);
  (void)pair.ring.publish();
  EXPECT_EQ(pair.driver.next_used()->head, short_one);
  // The short one's place is free again, and it is the one behind the long one's.
  const std::uint16_t next = pair.offer();
  const std::uint16_t next_head = pair.take();
  pair.ring.add_used(long_head, 1);
  pair.ring.add_used(next_head, 1);
  (void)pair.ring.publish();
  EXPECT_EQ(pair.driver.next_used()->head, long_one);
  EXPECT_EQ(pair.driver.next_used()->head, next);
}

TEST(PackedRing, ReadsAnewWhatItPutsBack) {
  RingPair pair(with_size(5));
  pair.offer(2);
  const std::uint16_t second = pair.offer(2);
  const std::uint16_t third = pair.offer();
  pair.ring.add_used(pair.take(), 1);
  (void)pair.take();
  (void)pair.take();
  EXPECT_EQ(pair.ring.peek(), Peek::kEmpty);
  pair.ring.put_back(2);
  EXPECT_EQ(pair.ring.place(), 2U);
  (void)pair.ring.publish();
  (void)pair.driver.next_used();
  pair.ring.add_used(pair.take(), 1);
  pair.ring.add_used(pair.take(), 1);
  (void)pair.ring.publish();
  EXPECT_EQ(pair.driver.next_used()->head, second);
  EXPECT_EQ(pair.driver.next_used()->head, third);
}

TEST(PackedRing, AnswersAChainOnlyOnce) {
  RingPair pair(with_size(4));
  pair.offer();
  const std::uint16_t head = pair.take();
  pair.ring.add_used(head, 0);
  EXPECT_DEATH(pair.ring.add_used(head, 0), "");
}

// --- who wants to be called -------------------------------------------------------------------

Publish publish_one(RingPair& pair) {
  pair.offer();
  pair.ring.add_used(pair.take(), 1);
  const Publish published = pair.ring.publish();
  (void)pair.driver.next_used();
  return published;
}

TEST(PackedRing, PublishesNothingTwice) {
  RingPair pair(with_size(8));
  EXPECT_EQ(publish_one(pair), Publish::kCall);
  EXPECT_EQ(pair.ring.publish(), Publish::kNothing);
}

TEST(PackedRing, HonoursTheDriversFlags) {
  RingPair pair(with_size(8, false));
  pair.packed().store_driver_area(0, common::kPackedEventDisable);
  EXPECT_EQ(publish_one(pair), Publish::kQuiet);
  pair.packed().store_driver_area(0, common::kPackedEventEnable);
  EXPECT_EQ(publish_one(pair), Publish::kCall);
  // One place is named with EVENT_IDX only, and 3 is reserved.
  pair.packed().store_driver_area(5, common::kPackedEventDesc);
  EXPECT_EQ(publish_one(pair), Publish::kCall);
  pair.packed().store_driver_area(0, 3);
  EXPECT_EQ(publish_one(pair), Publish::kCall);
  pair.packed().store_driver_area(0, 0xfffc | common::kPackedEventDisable);
  EXPECT_EQ(publish_one(pair), Publish::kQuiet);
}

// 2.8.10: once exactly that descriptor is used, at that wrap counter.
TEST(PackedRing, CallsForExactlyThePlaceThatWasNamedAtEveryPlaceAndBatchSize) {
  constexpr std::uint16_t kSize = 5;
  RingPair pair(with_size(kSize));
  std::uint32_t wrong = 0;
  PackedPlace at;
  const auto step = [](PackedPlace& place) {
    if (++place.index == kSize) place = {0, !place.wrap};
  };
  for (std::uint16_t count = 1; count <= kSize; ++count) {
    for (std::uint16_t event = 0; event < 2 * kSize; ++event) {
      for (std::uint16_t start = 0; start < 2 * kSize; ++start) {
        const PackedPlace named{static_cast<std::uint16_t>(event % kSize), event >= kSize};
        pair.packed().store_driver_area(named.word(), common::kPackedEventDesc);
        bool expected = false;
        for (std::uint16_t i = 0; i < count; ++i, step(at)) expected = expected || at == named;
        for (std::uint16_t i = 0; i < count; ++i) pair.offer();
        for (std::uint16_t i = 0; i < count; ++i) pair.ring.add_used(pair.take(), 1);
        wrong += pair.ring.publish() != (expected ? Publish::kCall : Publish::kQuiet);
        for (std::uint16_t i = 0; i < count; ++i) (void)pair.driver.next_used();
      }
    }
  }
  EXPECT_EQ(wrong, 0U);
}

// More than two rounds may have been shown since: every place was among them.
TEST(PackedRing, DecidesAboutEverythingShownSinceItDecidedLast) {
  RingPair pair(with_size(2));
  pair.packed().store_driver_area(PackedPlace{1, true}.word(), common::kPackedEventDesc);
  for (int i = 0; i < 5; ++i) {
    pair.offer();
    pair.ring.add_used(pair.take(), 1);
    EXPECT_TRUE(pair.ring.show_used());
    (void)pair.driver.next_used();
  }
  EXPECT_EQ(pair.ring.uncalled(), 5U);
  EXPECT_EQ(pair.ring.take_call(), Publish::kCall);
  EXPECT_EQ(pair.ring.uncalled(), 0U);
}

// --- kicks ------------------------------------------------------------------------------------

TEST(PackedRing, AsksForAKickWithTheVeryNextChainAtEveryPlace) {
  RingPair pair(with_size(3));
  EXPECT_EQ(pair.packed().device_flags(), common::kPackedEventDisable);
  const std::vector<Buffer> one = {{{GuestRam::kDefaultStart}, 16, false}};
  for (int i = 0; i < 12; ++i) {
    ASSERT_FALSE(pair.ring.enable_kicks());
    ASSERT_TRUE(pair.driver.add(one));
    EXPECT_TRUE(pair.driver.publish());
    pair.ring.disable_kicks();
    ASSERT_TRUE(pair.driver.add(one));
    EXPECT_FALSE(pair.driver.publish());
    pair.ring.add_used(pair.take(), 1);
    pair.ring.add_used(pair.take(), 1);
    (void)pair.ring.publish();
    (void)pair.driver.next_used();
    (void)pair.driver.next_used();
  }
}

TEST(PackedRing, NamesNoPlaceWithoutEventIdx) {
  RingPair pair(with_size(3, false));
  (void)pair.ring.enable_kicks();
  EXPECT_EQ(pair.packed().device_flags(), common::kPackedEventEnable);
  EXPECT_EQ(pair.packed().device_off_wrap(), 0U);
}

TEST(PackedRing, SeesAChainThatCameBeforeTheKickWasAskedFor) {
  RingPair pair(with_size(8));
  pair.offer();
  EXPECT_TRUE(pair.ring.enable_kicks());
}

// --- who goes on ------------------------------------------------------------------------------

TEST(PackedRing, SaysWhereAnotherGoesOnWithWhatItHolds) {
  RingPair pair(with_size(8));
  pair.offer(2);
  pair.offer(3);
  pair.ring.add_used(pair.take(), 1);
  (void)pair.take();
  EXPECT_EQ(common::unpack_vring_base(pair.ring.base(1)),
            (common::PackedBase{{2, true}, {0, true}}));
  EXPECT_EQ(common::unpack_vring_base(pair.ring.base()),
            (common::PackedBase{{5, true}, {0, true}}));
  (void)pair.ring.show_used();
  EXPECT_EQ(common::unpack_vring_base(pair.ring.base(1)),
            (common::PackedBase{{2, true}, {2, true}}));
}

// Of two workers, of which the first dies between what it tells of itself and its store into the
// ring, or after that.
class DiedAroundShowing : public testing::TestWithParam<bool> {};
TEST_P(DiedAroundShowing, IsFollowedByOneThatAnswersEachChainOnce) {
  const bool shown = GetParam();
  RingPair pair(with_size(3));
  const std::uint16_t first = pair.offer(2);
  pair.ring.add_used(pair.take(), 1);
  const std::uint32_t told = pair.ring.base(0);
  if (shown) (void)pair.ring.show_used();
  const std::uint16_t second = pair.offer();

  auto start = pair.driver.ring_start(0);
  start.next_avail = told;
  PackedRing next = PackedRing::create(pair.memory, start).value();
  EXPECT_EQ(next.begin(), PackedRing::Begin::kUsed);
  while (next.peek() == Peek::kHead) {
    const std::uint16_t head = next.head();
    next.take();
    next.add_used(head, 2);
  }
  (void)next.publish();
  EXPECT_EQ(pair.driver.next_used()->head, first);
  EXPECT_EQ(pair.driver.next_used()->head, second);
  EXPECT_EQ(next.base(), pair.packed().base());
}
INSTANTIATE_TEST_SUITE_P(PackedRing, DiedAroundShowing, testing::Bool());

// --- with an in-flight region -----------------------------------------------------------------

struct Tracked {
  explicit Tracked(const GuestDriver::Options& options) : pair(options) { begin(false); }
  void begin(bool resume) {
    auto start = pair.driver.ring_start(0);
    start.next_avail = common::kPackedBaseFresh;  // The region knows better.
    start.has_inflight = 1;
    start.inflight_entries = pair.packed().size();
    start.inflight_resume = resume ? 1 : 0;
    const std::size_t bytes = common::inflight::packed_queue_bytes(start.inflight_entries);
    pair.ring = PackedRing::create(pair.memory, start,
                                   std::as_writable_bytes(std::span(region)).first(bytes))
                    .value();
    began = pair.ring.begin();
  }
  std::array<std::uint64_t, 1024> region{};
  RingPair pair;
  PackedRing::Begin began = PackedRing::Begin::kFault;
};

TEST(PackedRing, ServesAgainWhatAnAnswerHasWrittenOverInTheRing) {
  Tracked tracked(with_size(4));
  RingPair& pair = tracked.pair;
  const std::uint16_t lost = pair.offer(2);
  const std::uint16_t done = pair.offer();
  (void)pair.take();
  pair.ring.add_used(pair.take(), 1);  // In the place of the first one's first descriptor.
  (void)pair.ring.publish();
  EXPECT_EQ(pair.driver.next_used()->head, done);
  pair.offer();

  tracked.begin(true);
  EXPECT_EQ(tracked.began, PackedRing::Begin::kUsed);
  EXPECT_TRUE(pair.ring.replaying());
  ASSERT_EQ(pair.ring.peek(), Peek::kHead);
  ASSERT_EQ(pair.ring.chain().size(), 2U);
  EXPECT_EQ(pair.ring.chain()[0].addr.get(), GuestRam::kDefaultStart);
  EXPECT_EQ(pair.ring.chain()[1].len.get(), 16U);
  pair.ring.add_used(pair.take(), 3);
  EXPECT_FALSE(pair.ring.replaying());
  pair.ring.add_used(pair.take(), 3);
  (void)pair.ring.publish();
  EXPECT_EQ(pair.driver.next_used()->head, lost);
  EXPECT_TRUE(pair.driver.next_used());
  EXPECT_EQ(pair.ring.base(), pair.packed().base());
}

TEST(PackedRing, CountsWhatItServesAgainAsTaken) {
  Tracked tracked(with_size(4));
  RingPair& pair = tracked.pair;
  pair.offer(3);
  (void)pair.take();
  tracked.begin(true);
  pair.packed().store_flags(0, common::kPackedUsed);
  pair.packed().store_flags(3, common::kPackedAvail | common::kDescNext);
  (void)pair.take();
  EXPECT_EQ(pair.ring.peek(), Peek::kFault);
  EXPECT_EQ(pair.ring.fault().code, WorkerFault::kChainTooLong);
}

TEST(PackedRing, RefusesARegionThatIsTooSmall) {
  GuestRam ram;
  auto start = valid_start(ram, 4);
  start.inflight_entries = 4;
  std::array<std::uint64_t, 4> region{};
  const auto ring =
      PackedRing::create(ram.memory(), start, std::as_writable_bytes(std::span(region)));
  ASSERT_FALSE(ring);
  EXPECT_EQ(ring.error().code, WorkerFault::kBadMessage);
}

}  // namespace
