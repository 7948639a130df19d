// broker/stall_watch.h: notices a disk that does not answer: requests of one worker are under way,
// and nothing has happened for long. Costs the worker nothing: it is looked at now and then.
//
// Not trusted: both numbers are the worker's. A hijacked one can have its own queue reported.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <utility>

namespace broker {

class StallWatch {
 public:
  using Clock = std::chrono::steady_clock;
  static constexpr std::chrono::seconds kFirstReport{10};

  // `turns` moves whenever the worker does anything. What the operator should read; mostly empty.
  // Told again each time the wait has doubled, and when it is over.
  [[nodiscard]] std::string look(std::uint32_t in_flight, std::uint64_t turns,
                                 Clock::time_point now = Clock::now()) {
    const auto waited = std::chrono::duration_cast<std::chrono::seconds>(now - since_);
    if (in_flight == 0 || turns != turns_) {
      turns_ = turns;
      since_ = now;
      const bool was_told = std::exchange(next_report_, kFirstReport) != kFirstReport;
      if (!was_told) return {};
      return "the disk answers again, after " + std::to_string(waited.count()) + " s";
    }
    if (waited < next_report_) return {};
    next_report_ *= 2;
    return std::to_string(in_flight) + (in_flight == 1 ? " request waits" : " requests wait") +
           " for the disk, and it has answered nothing for " + std::to_string(waited.count()) +
           " s";
  }

 private:
  std::uint64_t turns_ = 0;
  Clock::time_point since_ = Clock::now();
  std::chrono::seconds next_report_ = kFirstReport;
};

}  // namespace broker
