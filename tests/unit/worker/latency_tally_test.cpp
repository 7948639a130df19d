#include "worker/latency_tally.h"

#include <gtest/gtest.h>

#include <memory>

namespace {

using common::LatencyKind;
using worker::RequestAges;
using worker::Stamp;
using Work = worker::ParsedRequest::Work;

// A tick is a tenth of a microsecond, and moments are 16 of them wide.
constexpr std::uint32_t kTicksPerUs = 10;

struct LatencyTallyTest : testing::Test {
  // A turn that takes so many requests.
  [[nodiscard]] Stamp take(std::uint64_t ticks, std::uint32_t count) {
    const Stamp stamp = tally.begin_turn(ticks);
    ages.taken(count);
    return stamp;
  }
  void answer(Work work, const Stamp& taken, std::uint64_t ticks, int times) {
    for (int i = 0; i < times; ++i) tally.answered(taken.of(work), ticks);
  }
  [[nodiscard]] std::uint64_t count(LatencyKind kind, double took_us) const {
    const auto& latency = status->latency[static_cast<std::size_t>(kind)];
    return latency.buckets[common::latency_bucket(took_us * 1000)].load();
  }
  std::unique_ptr<common::StatusPage> status = std::make_unique<common::StatusPage>();
  RequestAges ages{kTicksPerUs};
  worker::LatencyTally tally{*status, ages, kTicksPerUs};
};

TEST_F(LatencyTallyTest, CountsEachOfThoseThatTookTheSameTime) {
  const Stamp taken = take(16'000, 7);
  answer(Work::kRead, taken, 17'000, 7);
  tally.flush(17'000);
  EXPECT_EQ(count(LatencyKind::kRead, 100), 7U);
  EXPECT_EQ(ages.oldest(), 0U);
}

TEST_F(LatencyTallyTest, TellsKindsAndTurnsApart) {
  const Stamp first = take(16'000, 3);
  const Stamp second = take(64'000, 2);
  answer(Work::kRead, first, 96'000, 1);
  answer(Work::kRead, second, 96'000, 1);
  answer(Work::kWrite, second, 96'000, 1);
  answer(Work::kRead, first, 96'000, 1);
  tally.flush(96'000);
  EXPECT_EQ(count(LatencyKind::kRead, 8000), 2U);
  EXPECT_EQ(count(LatencyKind::kRead, 3200), 1U);
  EXPECT_EQ(count(LatencyKind::kWrite, 3200), 1U);
  EXPECT_EQ(ages.oldest(), 16'000U);
}

TEST_F(LatencyTallyTest, MeasuresALaterAnswerOfTheSameTurnByItsOwnTime) {
  const Stamp taken = take(16'000, 2);
  answer(Work::kFlush, taken, 17'000, 1);
  tally.flush(17'000);
  answer(Work::kFlush, taken, 96'000, 1);
  tally.flush(96'000);
  EXPECT_EQ(count(LatencyKind::kFlush, 100), 1U);
  EXPECT_EQ(count(LatencyKind::kFlush, 8000), 1U);
}

TEST_F(LatencyTallyTest, TellsTurnsOfTheSameMomentApart) {
  RequestAges blind(0);  // Each turn is of an age of its own.
  worker::LatencyTally untimed(*status, blind, 0);
  const Stamp first = untimed.begin_turn(160);
  blind.taken(1);
  const Stamp second = untimed.begin_turn(161);
  blind.taken(1);
  untimed.answered(second.of(Work::kRead), 170);
  untimed.answered(first.of(Work::kRead), 170);
  untimed.answered(first.of(Work::kWrite), 170);
  untimed.flush(170);
  EXPECT_NE(first.moment, second.moment);
}

}  // namespace
