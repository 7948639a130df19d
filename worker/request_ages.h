// worker/request_ages.h: when the oldest request in flight was taken, for the status page.
//
// Requests end in any order. Instead of a list of all of them, which would cost each some fifteen
// instructions, those taken within a millisecond are counted together: a counter up for all of a
// turn, a counter down for those answered together.
#pragma once

#include <array>
#include <cstdint>

namespace worker {

class RequestAges {
 public:
  using Mark = std::uint8_t;

  explicit RequestAges(std::uint32_t ticks_per_us) noexcept
      : span_ticks_(std::uint64_t{ticks_per_us} * 1000) {}

  // Requests taken from now on are taken at `ticks`.
  void now(std::uint64_t ticks) noexcept {
    if (ticks - spans_[newest_].since < span_ticks_) return;
    if (spans_[newest_].in_flight != 0) {
      const std::uint32_t next = (newest_ + 1) % kSpans;
      // Something is in flight since the first of all spans: the last one grows until it is not.
      if (next == first_taken()) return;
      newest_ = next;
    }
    spans_[newest_].since = ticks;
  }
  [[nodiscard]] Mark mark() const noexcept { return static_cast<Mark>(newest_); }
  void taken(std::uint32_t count) noexcept { spans_[newest_].in_flight += count; }
  void answered(Mark mark, std::uint32_t count) noexcept { spans_[mark].in_flight -= count; }

  // 0: nothing is in flight.
  [[nodiscard]] std::uint64_t oldest() noexcept {
    const Span& span = spans_[first_taken()];
    return span.in_flight == 0 ? 0 : span.since;
  }

 private:
  static constexpr std::uint32_t kSpans = 64;
  struct Span {
    std::uint64_t since = 0;
    std::uint32_t in_flight = 0;
  };

  [[nodiscard]] std::uint32_t first_taken() noexcept {
    while (first_ != newest_ && spans_[first_].in_flight == 0) first_ = (first_ + 1) % kSpans;
    return first_;
  }

  std::uint64_t span_ticks_;
  std::uint32_t first_ = 0;
  std::uint32_t newest_ = 0;
  std::array<Span, kSpans> spans_{};
};

}  // namespace worker
