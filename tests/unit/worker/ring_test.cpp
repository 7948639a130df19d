#include "worker/ring.h"

#include <gtest/gtest.h>

#include <cstdint>

#include "common/virtqueue_wire.h"
#include "tests/fakes/guest_driver.h"

namespace {

using common::ipc::WorkerFault;
using fakes::GuestDriver;
using fakes::GuestRam;
using worker::SplitRing;
using Peek = SplitRing::Peek;
using Publish = SplitRing::Publish;

// A driver and our half of its ring.
struct RingPair {
  explicit RingPair(const GuestDriver::Options& options)
      : driver(ram, options), ring(SplitRing::create(memory, driver.ring_start(0)).value()) {
    resumed = ring.begin() == SplitRing::Begin::kUsed;
  }
  void answer(std::uint16_t count) {
    for (std::uint16_t i = 0; i < count; ++i) ring.add_used(0, 1);
  }

  GuestRam ram;
  common::GuestMemory memory = ram.memory();
  GuestDriver driver;
  SplitRing ring;
  bool resumed = false;
};

GuestDriver::Options with_size(std::uint16_t size, bool event_idx = true) {
  return {.queue_size = size, .event_idx = event_idx};
}

common::ipc::RingStart valid_start(GuestRam& ram) { return GuestDriver(ram).ring_start(0); }

WorkerFault refusal(const GuestRam& ram, const common::ipc::RingStart& start) {
  const auto ring = SplitRing::create(ram.memory(), start);
  return ring ? WorkerFault::kNone : ring.error().code;
}

// --- where a ring may lie ---------------------------------------------------------------------

class RingSize : public testing::TestWithParam<std::uint32_t> {};

using GoodRingSize = RingSize;
TEST_P(GoodRingSize, IsServed) {
  RingPair pair(with_size(static_cast<std::uint16_t>(GetParam())));
  pair.driver.offer(static_cast<std::uint16_t>(GetParam() - 1));
  (void)pair.driver.publish();

  EXPECT_EQ(pair.ring.peek(), Peek::kHead);
  EXPECT_EQ(pair.ring.head(), GetParam() - 1);
}
INSTANTIATE_TEST_SUITE_P(Ring, GoodRingSize, testing::Values(1, 2, 4, 128, 256, 1024));

using BadRingSize = RingSize;
TEST_P(BadRingSize, IsRefused) {
  GuestRam ram;
  auto start = valid_start(ram);
  start.queue_size = GetParam();
  EXPECT_EQ(refusal(ram, start), WorkerFault::kBadMessage);
}
INSTANTIATE_TEST_SUITE_P(Ring, BadRingSize,
                         testing::Values(0, 3, 100, 127, 1023, 2048, 65536, UINT32_MAX));

TEST(SplitRing, RefusesAStartingIndexThatHasMoreThanSixteenBits) {
  GuestRam ram;
  auto start = valid_start(ram);
  start.next_avail = 0x10000;
  EXPECT_EQ(refusal(ram, start), WorkerFault::kBadMessage);
}

using Address = std::uint64_t common::ipc::RingStart::*;
struct PartCase {
  Address address;
  std::uint64_t number;
  std::uint64_t misaligned_by;
};

class RingPart : public testing::TestWithParam<PartCase> {};

TEST_P(RingPart, IsRefusedWhereNothingIsMapped) {
  GuestRam ram;
  auto start = valid_start(ram);
  start.*GetParam().address = 0x1000;
  const auto ring = SplitRing::create(ram.memory(), start);
  ASSERT_FALSE(ring);
  EXPECT_EQ(ring.error().code, WorkerFault::kRingUnmapped);
  EXPECT_EQ(ring.error().first, GetParam().number);
  EXPECT_EQ(ring.error().second, 0x1000U);
}

TEST_P(RingPart, IsRefusedWhereItEndsBeyondMemory) {
  GuestRam ram(16U << 20);
  auto start = valid_start(ram);
  start.*GetParam().address = GuestRam::kDefaultStart + (16U << 20) - 16;
  EXPECT_EQ(refusal(ram, start), WorkerFault::kRingUnmapped);
}

TEST_P(RingPart, IsRefusedWhereItsAddressWraps) {
  GuestRam ram;
  auto start = valid_start(ram);
  start.*GetParam().address = 0xffff'ffff'ffff'fff0;
  EXPECT_EQ(refusal(ram, start), WorkerFault::kRingUnmapped);
}

TEST_P(RingPart, IsRefusedWhereItIsMisaligned) {
  GuestRam ram;
  auto start = valid_start(ram);
  start.*GetParam().address += GetParam().misaligned_by;
  EXPECT_EQ(refusal(ram, start), WorkerFault::kRingUnmapped);
}

TEST_P(RingPart, IsRefusedWhereItLiesInTwoRegions) {
  GuestRam ram(1U << 20);
  ram.add_region({GuestRam::kDefaultStart + (1U << 20)}, 1U << 20);
  auto start = valid_start(ram);
  start.*GetParam().address = GuestRam::kDefaultStart + (1U << 20) - 64;
  EXPECT_EQ(refusal(ram, start), WorkerFault::kRingUnmapped);
}

INSTANTIATE_TEST_SUITE_P(Ring, RingPart,
                         testing::Values(PartCase{&common::ipc::RingStart::desc_addr, 0, 8},
                                         PartCase{&common::ipc::RingStart::avail_addr, 1, 1},
                                         PartCase{&common::ipc::RingStart::used_addr, 2, 2}));

// --- what is available ------------------------------------------------------------------------

TEST(SplitRing, IsEmptyWhenNothingWasOffered) {
  RingPair pair(with_size(8));
  EXPECT_EQ(pair.ring.peek(), Peek::kEmpty);
}

TEST(SplitRing, TakesHeadsInTheOrderOfferedAcrossTheWrapOfSixteenBits) {
  RingPair pair({.queue_size = 4, .first_index = 0xfffe});
  const std::uint16_t heads[] = {3, 1, 2, 0};
  for (const std::uint16_t head : heads) pair.driver.offer(head);
  (void)pair.driver.publish();

  for (const std::uint16_t head : heads) {
    ASSERT_EQ(pair.ring.peek(), Peek::kHead);
    EXPECT_EQ(pair.ring.head(), head);
    pair.ring.take();
  }
  EXPECT_EQ(pair.ring.peek(), Peek::kEmpty);
  EXPECT_EQ(pair.ring.next_avail(), 2);
}

TEST(SplitRing, KeepsWhatItPeekedAtWhenTheGuestRewritesTheEntry) {
  RingPair pair({.queue_size = 4});
  pair.driver.offer(1);
  (void)pair.driver.publish();
  ASSERT_EQ(pair.ring.peek(), Peek::kHead);

  pair.ram.put(common::GuestAddr{pair.driver.avail_addr().value + common::kAvailRingOffset},
               std::uint16_t{0xffff});

  EXPECT_EQ(pair.ring.peek(), Peek::kHead);
  EXPECT_EQ(pair.ring.head(), 1);
}

TEST(SplitRing, DoesNotTakeWhatIsPeekedAt) {
  RingPair pair({.queue_size = 4});
  pair.driver.offer(1);
  (void)pair.driver.publish();
  (void)pair.ring.peek();
  EXPECT_EQ(pair.ring.next_avail(), 0);
}

// CVE-2026-86846: the avail index used without a bound.
TEST(SplitRing, RefusesAnAvailIndexFurtherAheadThanTheRingIsLong) {
  RingPair pair(with_size(8));
  pair.driver.store_avail_idx(9);
  EXPECT_EQ(pair.ring.peek(), Peek::kFault);
  EXPECT_EQ(pair.ring.fault().code, WorkerFault::kAvailJump);
  EXPECT_EQ(pair.ring.fault().first, 9U);
  EXPECT_EQ(pair.ring.fault().second, 0U);
}

TEST(SplitRing, AcceptsAnAvailIndexAsFarAheadAsTheRingIsLong) {
  RingPair pair(with_size(8));
  pair.driver.store_avail_idx(8);
  EXPECT_EQ(pair.ring.peek(), Peek::kHead);
}

TEST(SplitRing, RefusesAnAvailIndexThatWentBack) {
  RingPair pair({.queue_size = 8, .first_index = 5});
  pair.driver.store_avail_idx(4);
  EXPECT_EQ(pair.ring.peek(), Peek::kFault);
  EXPECT_EQ(pair.ring.fault().code, WorkerFault::kAvailJump);
}

TEST(SplitRing, RefusesAHeadOutsideTheTable) {
  RingPair pair(with_size(8));
  pair.driver.offer(8);
  (void)pair.driver.publish();
  EXPECT_EQ(pair.ring.peek(), Peek::kFault);
  EXPECT_EQ(pair.ring.fault().code, WorkerFault::kHeadOutsideTable);
  EXPECT_EQ(pair.ring.fault().first, 8U);
  EXPECT_EQ(pair.ring.fault().second, 8U);
}

// --- answers ----------------------------------------------------------------------------------

TEST(SplitRing, ShowsAnswersOnlyWhenPublished) {
  RingPair pair(with_size(8));
  pair.ring.add_used(3, 17);
  pair.ring.add_used(5, 1);
  EXPECT_EQ(pair.driver.used_idx(), 0);

  (void)pair.ring.publish();

  EXPECT_EQ(pair.driver.used_idx(), 2);
  const auto first = pair.driver.next_used();
  ASSERT_TRUE(first);
  EXPECT_EQ(first->head, 3);
  EXPECT_EQ(first->written, 17U);
  EXPECT_EQ(pair.driver.next_used()->head, 5);
}

TEST(SplitRing, PublishesNothingTwice) {
  RingPair pair(with_size(8));
  pair.answer(1);
  (void)pair.ring.publish();
  EXPECT_EQ(pair.ring.publish(), Publish::kNothing);
}

TEST(SplitRing, ShowsAnswersBeforeItAsksWhetherTheyAreWorthACall) {
  RingPair pair(with_size(8));
  pair.answer(2);
  EXPECT_TRUE(pair.ring.show_used());
  EXPECT_EQ(pair.driver.used_idx(), 2);
  EXPECT_EQ(pair.ring.uncalled(), 2U);
  EXPECT_FALSE(pair.ring.show_used());
}

// The driver's used_event is among the first of them: what was shown in between must not hide it.
TEST(SplitRing, DecidesAboutEverythingShownSinceItDecidedLast) {
  RingPair pair(with_size(8));
  pair.driver.store_used_event(0);
  pair.answer(1);
  EXPECT_TRUE(pair.ring.show_used());
  pair.answer(2);
  EXPECT_TRUE(pair.ring.show_used());
  EXPECT_EQ(pair.ring.take_call(), Publish::kCall);
  EXPECT_EQ(pair.ring.uncalled(), 0U);
  EXPECT_EQ(pair.ring.take_call(), Publish::kNothing);
}

TEST(SplitRing, GoesOnWhereTheUsedRingStands) {
  RingPair pair({.queue_size = 8, .first_index = 0xffff});
  EXPECT_TRUE(pair.resumed);
  pair.answer(2);
  (void)pair.ring.publish();
  EXPECT_EQ(pair.driver.used_idx(), 1);
}

TEST(SplitRing, KnowsAFreshRing) { EXPECT_FALSE(RingPair(with_size(8)).resumed); }

// 2.7.7.2 as the specification words it: entry `event` is among those just published.
Publish expected_call(std::uint16_t before, std::uint16_t count, std::uint16_t event) {
  for (std::uint16_t i = 0; i < count; ++i) {
    if (static_cast<std::uint16_t>(before + i) == event) return Publish::kCall;
  }
  return Publish::kQuiet;
}

TEST(SplitRing, CallsForExactlyTheEntryNamedByUsedEventAtEveryIndexAndBatchSize) {
  RingPair pair(with_size(4));
  std::uint16_t before = 0;
  std::uint32_t wrong = 0;
  const std::int32_t distances[] = {-32768, -9, -5, -4, -3, -2, -1, 0, 1, 2, 3, 4, 5, 9, 32767};
  for (const std::int32_t distance : distances) {
    for (std::uint16_t count = 1; count <= 4; ++count) {
      for (std::uint32_t step = 0; step < 65536; step += count) {
        const auto event = static_cast<std::uint16_t>(before + distance);
        pair.driver.store_used_event(event);
        pair.answer(count);
        wrong += pair.ring.publish() != expected_call(before, count, event);
        before = static_cast<std::uint16_t>(before + count);
      }
    }
  }
  EXPECT_EQ(wrong, 0U);
}

TEST(SplitRing, WithEventIdxIgnoresTheNoInterruptFlag) {
  RingPair pair(with_size(8));
  pair.ram.put(pair.driver.avail_addr(), common::kAvailNoInterrupt);
  pair.answer(1);
  EXPECT_EQ(pair.ring.publish(), Publish::kCall);
}

TEST(SplitRing, WithoutEventIdxHonoursTheNoInterruptFlag) {
  RingPair pair(with_size(8, false));
  pair.driver.disable_calls();
  pair.answer(1);
  EXPECT_EQ(pair.ring.publish(), Publish::kQuiet);
  (void)pair.driver.enable_calls();
  pair.answer(1);
  EXPECT_EQ(pair.ring.publish(), Publish::kCall);
}

TEST(SplitRing, WithoutEventIdxIgnoresUsedEvent) {
  RingPair pair(with_size(8, false));
  pair.driver.store_used_event(77);
  pair.answer(1);
  EXPECT_EQ(pair.ring.publish(), Publish::kCall);
}

// --- kicks ------------------------------------------------------------------------------------

TEST(SplitRing, AsksForAKickWithTheVeryNextChainAtEveryIndex) {
  RingPair pair(with_size(4));
  std::uint32_t not_asked = 0;
  std::uint32_t asked_while_disabled = 0;
  for (std::uint32_t i = 0; i < 65536; ++i) {
    ASSERT_FALSE(pair.ring.enable_kicks());
    pair.driver.offer(0);
    not_asked += !pair.driver.publish();
    pair.ring.disable_kicks();
    for (std::uint32_t more = 0; more < 3; ++more) {
      pair.driver.offer(0);
      asked_while_disabled += pair.driver.publish();
    }
    for (std::uint32_t taken = 0; taken < 4; ++taken) {
      ASSERT_EQ(pair.ring.peek(), Peek::kHead);
      pair.ring.take();
    }
    ASSERT_EQ(pair.ring.peek(), Peek::kEmpty);
  }
  EXPECT_EQ(not_asked, 0U);
  EXPECT_EQ(asked_while_disabled, 0U);
}

TEST(SplitRing, StartsWithKicksDisabled) {
  RingPair pair(with_size(8));
  pair.driver.offer(0);
  EXPECT_FALSE(pair.driver.publish());
}

TEST(SplitRing, SeesAChainThatCameBeforeTheKickWasAskedFor) {
  RingPair pair(with_size(8));
  pair.driver.offer(0);
  (void)pair.driver.publish();
  EXPECT_TRUE(pair.ring.enable_kicks());
}

TEST(SplitRing, WithEventIdxLeavesTheUsedFlagsAlone) {
  RingPair pair(with_size(8));
  EXPECT_EQ(pair.driver.used_flags(), 0);
  (void)pair.ring.enable_kicks();
  EXPECT_EQ(pair.driver.used_flags(), 0);
}

TEST(SplitRing, WithoutEventIdxSaysItWithTheNoNotifyFlag) {
  RingPair pair(with_size(8, false));
  EXPECT_EQ(pair.driver.used_flags(), common::kUsedNoNotify);
  (void)pair.ring.enable_kicks();
  EXPECT_EQ(pair.driver.used_flags(), 0);
  pair.ring.disable_kicks();
  EXPECT_EQ(pair.driver.used_flags(), common::kUsedNoNotify);
}

TEST(SplitRing, SeesANewChainWhilePollingWithoutTakingIt) {
  RingPair pair(with_size(8));
  EXPECT_FALSE(pair.ring.has_new());
  pair.driver.offer(0);
  (void)pair.driver.publish();
  EXPECT_TRUE(pair.ring.has_new());
}

}  // namespace
