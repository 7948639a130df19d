// When requests may go, on a clock of the test's own: 1000 ticks are a microsecond.
#include "worker/rate_limiter.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <random>
#include <thread>
#include <vector>

#include "common/rate_page.h"
#include "tests/fakes/rates.h"

namespace {

using common::Rate;
using worker::RateLimiter;
using Way = RateLimiter::Way;

constexpr std::uint32_t kTicksPerUs = 1000;
constexpr std::uint64_t kMs = 1000ULL * kTicksPerUs;
constexpr std::uint64_t kSecond = 1000 * kMs;

using Memory = fakes::Rates;  // What a device's workers share.

RateLimiter limiter_of(Memory& device) { return RateLimiter({device.view(), {}}, kTicksPerUs); }
RateLimiter limiter_of(Memory& device, Memory& group) {
  return RateLimiter({device.view(), group.view()}, kTicksPerUs);
}

// Takes one request after the other, each as soon as it may go. When the last one went.
std::uint64_t take(RateLimiter& limiter, int count, std::uint64_t now, Way way = Way::kRead,
                   std::uint64_t bytes = 512) {
  for (int i = 0; i < count; ++i) {
    while (!limiter.admit(way, bytes, now)) now += limiter.sleep_us(now) * kTicksPerUs;
    limiter.took();
  }
  return now;
}

// How many requests go at once.
int at_once(RateLimiter& limiter, std::uint64_t now, Way way = Way::kRead,
            std::uint64_t bytes = 512) {
  int count = 0;
  for (; count < 100'000 && limiter.admit(way, bytes, now); ++count) limiter.took();
  return count;
}

TEST(RateLimiter, LimitsNothingWithoutMemoryAndWithoutSettings) {
  Memory memory;
  const RateLimiter none({}, kTicksPerUs);
  const RateLimiter unset = limiter_of(memory);
  EXPECT_FALSE(none.limits());
  EXPECT_FALSE(unset.limits());
}

TEST(RateLimiter, LetsABurstThroughAndThenItsRate) {
  Memory memory;
  memory.set(Rate::kOperations, 1000, 50);
  RateLimiter limiter = limiter_of(memory);
  EXPECT_TRUE(limiter.limits());
  EXPECT_EQ(at_once(limiter, kSecond), 50);
  EXPECT_EQ(at_once(limiter, kSecond + 9 * kMs), 9);
  EXPECT_EQ(at_once(limiter, kSecond + 10 * kMs), 1);
}

TEST(RateLimiter, HoldsNoMoreThanItsBurstHoweverLongItWasIdle) {
  Memory memory;
  memory.set(Rate::kOperations, 1000, 50);
  RateLimiter limiter = limiter_of(memory);
  EXPECT_EQ(at_once(limiter, kSecond), 50);
  RateLimiter later = limiter_of(memory);
  EXPECT_EQ(at_once(later, 400 * 24 * 3600 * kSecond), 50);
}

TEST(RateLimiter, KeepsARateOverManyRequestsAndSleeps) {
  Memory memory;
  memory.set(Rate::kOperations, 100'000, 1000);
  RateLimiter limiter = limiter_of(memory);
  const std::uint64_t took = take(limiter, 201'000, kSecond) - kSecond;
  EXPECT_GE(took, 1999 * kMs);
  EXPECT_LE(took, 2002 * kMs);
}

TEST(RateLimiter, CountsBytesWhateverTheirPieces) {
  Memory memory;
  memory.set(Rate::kBytes, 100'000'000, 1'000'000);
  RateLimiter limiter = limiter_of(memory);
  const std::uint64_t small = take(limiter, 100'000, kSecond, Way::kRead, 512) - kSecond;
  const std::uint64_t large =
      take(limiter, 100, 100 * kSecond, Way::kWrite, 1'048'576) - 100 * kSecond;
  EXPECT_NEAR(static_cast<double>(small), 0.502 * kSecond, 0.005 * kSecond);
  EXPECT_NEAR(static_cast<double>(large), 1.038 * kSecond, 0.012 * kSecond);
}

TEST(RateLimiter, LetsWhatIsLargerThanItsBurstPassAndMakesTheNextPayForIt) {
  Memory memory;
  memory.set(Rate::kBytes, 1'000'000, 1000);
  RateLimiter limiter = limiter_of(memory);
  EXPECT_TRUE(limiter.admit(Way::kRead, 2'000'000, kSecond));
  limiter.took();
  EXPECT_FALSE(limiter.admit(Way::kRead, 1, kSecond));
  EXPECT_FALSE(limiter.admit(Way::kRead, 1, kSecond + 1998 * kMs));
  EXPECT_TRUE(limiter.admit(Way::kRead, 1, kSecond + 2000 * kMs));
}

TEST(RateLimiter, ChargesReadsAndWritesApartAndTogether) {
  Memory memory;
  memory.set(Rate::kReadOperations, 10, 3).set(Rate::kWriteOperations, 10, 4);
  RateLimiter limiter = limiter_of(memory);
  EXPECT_EQ(at_once(limiter, kSecond, Way::kRead), 3);
  RateLimiter other = limiter_of(memory);
  EXPECT_EQ(at_once(other, kSecond, Way::kWrite), 4);
  memory.set(Rate::kReadOperations, 0, 0).set(Rate::kWriteOperations, 0, 0);
  memory.set(Rate::kOperations, 10, 6);
  EXPECT_EQ(at_once(limiter, kSecond, Way::kRead), 6);
  EXPECT_EQ(at_once(other, kSecond, Way::kWrite), 0);
}

TEST(RateLimiter, WaitsForTheStrictestOfSeveralLimits) {
  Memory device;
  device.set(Rate::kOperations, 1000, 10).set(Rate::kBytes, 1'000'000, 4096);
  Memory group;
  group.set(Rate::kReadOperations, 1000, 5);
  RateLimiter limiter = limiter_of(device, group);
  EXPECT_EQ(at_once(limiter, kSecond, Way::kRead, 512), 5);
  EXPECT_EQ(at_once(limiter, 2 * kSecond, Way::kRead, 2048), 2);
}

TEST(RateLimiter, IsSharedByTheDevicesOfAGroup) {
  Memory one;
  Memory two;
  one.settings.state = 1;  // The group's alone.
  two.settings.state = 1;
  Memory group;
  group.set(Rate::kOperations, 1000, 10);
  RateLimiter first = limiter_of(one, group);
  RateLimiter second = limiter_of(two, group);
  EXPECT_EQ(at_once(first, kSecond), 10);
  EXPECT_EQ(at_once(second, kSecond), 0);
}

TEST(RateLimiter, ServesQueuesInTheOrderInWhichTheyCame) {
  Memory memory;
  memory.set(Rate::kOperations, 1000, 1);
  RateLimiter greedy = limiter_of(memory);
  RateLimiter modest = limiter_of(memory);
  (void)at_once(greedy, kSecond);  // And one that waits.
  EXPECT_FALSE(modest.admit(Way::kRead, 512, kSecond));
  int greedy_taken = 0;
  int modest_taken = 0;
  for (std::uint64_t now = kSecond; now < 2 * kSecond; now += kMs / 10) {
    greedy_taken += at_once(greedy, now);
    modest_taken += at_once(modest, now);
  }
  EXPECT_NEAR(greedy_taken, 500, 5);
  EXPECT_NEAR(modest_taken, 500, 5);
}

TEST(RateLimiter, FollowsAChangeOfItsRatesAlsoWhileSomethingWaits) {
  Memory memory;
  memory.set(Rate::kOperations, 1, 1);
  RateLimiter limiter = limiter_of(memory);
  EXPECT_EQ(at_once(limiter, kSecond), 1);
  EXPECT_TRUE(limiter.waiting());
  EXPECT_LE(limiter.sleep_us(kSecond), RateLimiter::kLookUs);
  memory.lift();
  EXPECT_FALSE(limiter.limits());
  EXPECT_TRUE(limiter.admit(Way::kRead, 512, kSecond));
  limiter.took();
  EXPECT_FALSE(limiter.waiting());
  memory.buckets.full_at[0] = 0;  // As the broker does.
  memory.set(Rate::kOperations, 1000, 20);
  EXPECT_EQ(at_once(limiter, kSecond + 1), 20);
}

TEST(RateLimiter, ChargesWhatPassedBesideAndLetsTheNextWait) {
  Memory memory;
  memory.set(Rate::kOperations, 1000, 10).set(Rate::kBytes, 1'000'000, 10'000);
  RateLimiter limiter = limiter_of(memory);
  EXPECT_TRUE(limiter.admit(Way::kRead, 60, kSecond));
  limiter.took();
  limiter.charge(Way::kRead, 31, 31 * 1500, kSecond);
  EXPECT_FALSE(limiter.admit(Way::kRead, 60, kSecond + 36 * kMs));
  EXPECT_TRUE(limiter.admit(Way::kRead, 60, kSecond + 37 * kMs));
}

TEST(RateLimiter, ChargesARequestThatTheGuestPutInTheWaitingOnesPlace) {
  Memory memory;
  memory.set(Rate::kBytes, 1'000'000, 1000);
  RateLimiter limiter = limiter_of(memory);
  (void)at_once(limiter, kSecond, Way::kRead, 500);
  EXPECT_TRUE(limiter.admit(Way::kWrite, 1'000'000, kSecond + kMs));
  limiter.took();
  EXPECT_FALSE(limiter.admit(Way::kRead, 1, kSecond + 990 * kMs));
}

TEST(RateLimiter, CountsWhatWaitedAndHowLong) {
  Memory memory;
  memory.set(Rate::kOperations, 100, 1);
  RateLimiter limiter = limiter_of(memory);
  (void)at_once(limiter, kSecond);
  EXPECT_EQ(limiter.take_throttled().requests, 0U);
  EXPECT_TRUE(limiter.admit(Way::kRead, 512, kSecond + 10 * kMs));
  limiter.took();
  const RateLimiter::Throttled throttled = limiter.take_throttled();
  EXPECT_EQ(throttled.requests, 1U);
  EXPECT_EQ(throttled.us, 10'000U);
  EXPECT_EQ(limiter.take_throttled().requests, 0U);
}

TEST(RateLimiter, DoesNotCountAWaitForNothing) {
  Memory memory;
  memory.set(Rate::kOperations, 100, 1);
  RateLimiter limiter = limiter_of(memory);
  (void)at_once(limiter, kSecond);
  EXPECT_TRUE(limiter.admit(Way::kRead, 512, kSecond + 10 * kMs));
  limiter.waited_for_nothing();
  limiter.took();
  EXPECT_EQ(limiter.take_throttled().requests, 0U);
}

TEST(RateLimiter, SurvivesAClockThatIsSetBack) {
  Memory memory;
  memory.set(Rate::kOperations, 1000, 10);
  RateLimiter limiter = limiter_of(memory);
  (void)at_once(limiter, 1'000'000 * kSecond);  // And one that waits.
  EXPECT_EQ(at_once(limiter, kSecond), 10);
  RateLimiter later = limiter_of(memory);
  EXPECT_EQ(at_once(later, 2 * kSecond), 10);
}

TEST(RateLimiter, SurvivesAClockThatWrapsAround) {
  Memory memory;
  memory.set(Rate::kOperations, 1000, 10);
  RateLimiter limiter = limiter_of(memory);
  const std::uint64_t wrap = 1ULL << 60;  // In ticks: the limiter's units are sixteenths of them.
  EXPECT_EQ(at_once(limiter, wrap - 100 * kSecond), 10);
  constexpr int kWaited = 1;
  EXPECT_EQ(at_once(limiter, wrap - kMs / 2), kWaited + 10);
  EXPECT_EQ(at_once(limiter, wrap + kMs / 2), kWaited);
  EXPECT_EQ(at_once(limiter, wrap + kSecond), kWaited + 10);
}

TEST(RateLimiter, NeverWaitsLongerThanItsCapWhateverStandsInABucket) {
  Memory memory;
  memory.set(Rate::kOperations, 1000, 10);
  memory.buckets.full_at[0] = (kSecond << 4) + (1ULL << 62);
  memory.buckets.seen = kSecond << 4;
  RateLimiter limiter = limiter_of(memory);
  EXPECT_FALSE(limiter.admit(Way::kRead, 512, kSecond));
  EXPECT_EQ(limiter.sleep_us(kSecond), RateLimiter::kLookUs);
  const std::uint64_t cap = RateLimiter::kDebtMaxUs * kTicksPerUs;
  EXPECT_TRUE(limiter.admit(Way::kRead, 512, kSecond + cap));
}

TEST(RateLimiter, SurvivesAnyNumbersThatASiblingWrites) {
  std::mt19937_64 random(20);  // NOLINT(cert-msc51-cpp): the same each time.
  Memory memory;
  memory.set(Rate::kOperations, 1000, 10)
      .set(Rate::kReadBytes, 1, 1)
      .set(Rate::kBytes, 1ULL << 40, 1);
  const auto limiter = std::make_unique<RateLimiter>(limiter_of(memory));
  const std::uint64_t cap = RateLimiter::kDebtMaxUs * kTicksPerUs;
  std::uint64_t admitted = 0;
  for (int i = 0; i < 20'000; ++i) {
    for (auto& word : memory.buckets.full_at) word = random();
    memory.buckets.seen = random();
    const std::uint64_t now = random();
    (void)limiter->admit(i % 2 == 0 ? Way::kRead : Way::kWrite, random(), now);
    limiter->charge(Way::kRead, random(), random(), now);
    EXPECT_LE(limiter->sleep_us(now), RateLimiter::kLookUs);
    // Nobody else writes from here on.
    const std::uint64_t later = now + cap + kSecond;
    if (limiter->admit(Way::kRead, 1, later)) ++admitted;
    limiter->took();
  }
  EXPECT_EQ(admitted, 20'000U);
}

TEST(RateLimiter, TakesExtremeRatesAndSpeedsOfTheCounter) {
  for (const std::uint32_t ticks : {0U, 1U, 24U, 5000U, UINT32_MAX}) {
    for (const std::uint64_t rate : {std::uint64_t{1}, std::uint64_t{1} << 63, UINT64_MAX}) {
      Memory memory;
      memory.set(Rate::kBytes, rate, rate);
      RateLimiter limiter({memory.view(), {}}, ticks);
      EXPECT_TRUE(limiter.admit(Way::kWrite, UINT64_MAX, 1));
      limiter.took();
      (void)limiter.admit(Way::kWrite, UINT64_MAX, 2);
      EXPECT_LE(limiter.sleep_us(3), RateLimiter::kLookUs);
    }
  }
}

// All at one time: whatever the order of the threads, no more than the burst passes.
TEST(RateLimiter, LetsNoMoreThroughWhereManyTakeAtOnce) {
  constexpr int kThreads = 4;
  Memory memory;
  memory.set(Rate::kOperations, 1000, 10'000);
  std::array<int, kThreads> taken{};
  std::vector<std::jthread> threads;
  for (int i = 0; i < kThreads; ++i) {
    threads.emplace_back([&memory, &count = taken[static_cast<std::size_t>(i)]] {
      RateLimiter limiter = limiter_of(memory);
      count = at_once(limiter, kSecond);
    });
  }
  threads.clear();
  EXPECT_EQ(taken[0] + taken[1] + taken[2] + taken[3], 10'000);
}

}  // namespace
