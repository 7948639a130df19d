// worker/latency_tally.h: what becomes of a request's stamp: its place in the histogram, and the
// age of the oldest that is left.
//
// A clock that is looked at once for all that a turn takes, and once for all that it answers,
// cannot tell requests of one turn apart. So they are counted here, with one comparison for each,
// and go to the status page together.
#pragma once

#include <cstddef>
#include <cstdint>

#include "common/status_page.h"
#include "worker/blk_request.h"
#include "worker/request_ages.h"
#include "worker/stopwatch.h"

namespace worker {

// When a request was taken: the moment of its turn, in whose lowest bits is what kind it is.
// Moments are a few nanoseconds wide then.
struct Stamp {
  using Work = ParsedRequest::Work;
  static constexpr std::uint64_t kWorkMask = 15;
  static_assert(common::kLatencyKinds <= kWorkMask + 1);

  [[nodiscard]] Stamp of(Work work) const noexcept {
    return {moment | static_cast<std::uint64_t>(work), age};
  }
  [[nodiscard]] std::uint64_t ticks() const noexcept { return moment & ~kWorkMask; }
  [[nodiscard]] std::size_t kind() const noexcept { return moment & kWorkMask; }

  std::uint64_t moment;
  RequestAges::Mark age;
};

class LatencyTally {
 public:
  LatencyTally(common::StatusPage& status, RequestAges& ages, std::uint32_t ticks_per_us) noexcept
      : status_(status), ages_(ages), stopwatch_(ticks_per_us) {}

  // For what is taken in the turn that begins now. Never the one of the turn before.
  [[nodiscard]] Stamp begin_turn(std::uint64_t ticks) noexcept {
    ages_.now(ticks);
    const std::uint64_t moment = ticks & ~Stamp::kWorkMask;
    last_ = moment != last_ ? moment : moment + Stamp::kWorkMask + 1;
    return {last_, ages_.mark()};
  }

  // One more was answered, at `ticks`: the same until the next flush(), which is before anybody
  // looks at the ages.
  void answered(const Stamp& taken, std::uint64_t ticks) noexcept {
    if (taken.moment != taken_.moment) [[unlikely]] {
      flush(ticks);
      taken_ = taken;
    }
    ++times_;
  }

  void flush(std::uint64_t ticks) noexcept {
    if (times_ == 0) return;
    const double took_ns = stopwatch_.nanoseconds(ticks) - stopwatch_.nanoseconds(taken_.ticks());
    status_.latency[taken_.kind()].add(took_ns, times_);
    ages_.answered(taken_.age, times_);
    times_ = 0;
  }

 private:
  common::StatusPage& status_;
  RequestAges& ages_;
  Stopwatch stopwatch_;
  Stamp taken_{};
  std::uint64_t last_ = 0;
  std::uint32_t times_ = 0;
};

}  // namespace worker
