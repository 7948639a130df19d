// worker/rate_limiter.h: when the next request or packet may go, where the operator has said how
// many of them, or of their bytes, may pass each second.
//
// Virtual scheduling (ITU-T I.371, the generic cell rate algorithm): a bucket is one number, the
// time at which it is full again. Who takes something puts that time off, and has to wait until it
// is no further away than the bucket is large. So nothing has to be refilled, and a request costs
// one compare-and-swap for each limit that is set. Who has to wait has put the time off already:
// the queues that share a bucket go in the order in which they came, and none starves. What is
// larger than the bucket waits until that is full, and leaves a debt.
//
// Trusts the broker, who writes the settings. Not trusted: the buckets, which a hijacked worker of
// the same tenant may have written; and the guest, who may change a request while it waits.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <span>

#include "common/rate_page.h"

namespace worker {

// As start.cpp has mapped it. Null: there is none.
struct RateMemory {
  const common::RateSettings* settings = nullptr;
  common::RateBuckets* buckets = nullptr;
};
// The device's own, and its group's. A group without a device's own is none.
struct RateMemories {
  RateMemory device;
  RateMemory group;
};

class RateLimiter {
 public:
  enum class Way : std::uint8_t { kRead, kWrite };

  // Whoever waits looks again this often: the operator may have changed the rates.
  static constexpr std::uint32_t kLookUs = 100'000;
  // No wait is longer than this, whatever a bucket says. As long as it is, because debts beyond it
  // are forgiven.
  static constexpr std::uint64_t kDebtMaxUs = 24ULL * 3600 * 1'000'000;

  RateLimiter(const RateMemories& memories, std::uint32_t ticks_per_us) noexcept;

  // Whether the rest has to be asked at all: the one thing that is looked at for each request where
  // nothing is limited.
  [[nodiscard]] bool limits() const noexcept {
    return state_->load(std::memory_order_relaxed) != 0;
  }

  // Whether the next request may go. Where not, its turn is kept until it is took(): who asks again
  // waits no longer than it must. `now` in ticks of the time stamp counter.
  [[nodiscard]] bool admit(Way way, std::uint64_t bytes, std::uint64_t now) noexcept;
  // What was admitted is under way.
  void took() noexcept;
  // What has passed beside it: others will wait for it.
  void charge(Way way, std::uint64_t operations, std::uint64_t bytes, std::uint64_t now) noexcept;

  // A request was not admitted, and waits.
  [[nodiscard]] bool waiting() const noexcept { return waiting_; }
  // How long to sleep before admit() is asked again. Short waits are gathered: many requests for
  // one wake-up.
  [[nodiscard]] std::uint32_t sleep_us(std::uint64_t now) const noexcept;

  // What has waited since this was asked last.
  struct Throttled {
    std::uint64_t requests = 0;
    std::uint64_t us = 0;
  };
  [[nodiscard]] Throttled take_throttled() noexcept;
  // Some of it is not counted yet: it will be when the request is taken.
  [[nodiscard]] bool has_waited() const noexcept { return has_waited_; }
  // There are no limits any more, so admit() will not be asked for what waits.
  void lifted(std::uint64_t now) noexcept;
  // There was nothing to wait for, after all.
  void waited_for_nothing() noexcept { has_waited_ = false; }

 private:
  // A limit that is set, for requests of one way.
  struct Limit {
    std::atomic<std::uint64_t>* full_at = nullptr;
    std::uint64_t each = 0;  // Time that one operation, or byte, takes: in units, times 2^kShift.
    std::uint64_t size = 0;  // Of the bucket: units.
    bool bytes = false;
  };
  static constexpr std::size_t kLimitsMax = 8;  // Of one way: the device's and its group's.
  struct Limits {
    std::array<Limit, kLimitsMax> list;
    std::size_t count = 0;
    [[nodiscard]] std::span<const Limit> all() const noexcept { return {list.data(), count}; }
  };

  [[nodiscard]] bool is_current() const noexcept;
  void read_settings() noexcept;
  void add_limits(const RateMemory& memory) noexcept;
  void watch_clocks(std::uint64_t now) const noexcept;
  void reserve(Way way, std::uint64_t bytes, std::uint64_t now) noexcept;
  [[nodiscard]] bool has_come(std::uint64_t now) noexcept;
  [[nodiscard]] std::uint64_t cost(const Limit& limit, std::uint64_t amount) const noexcept;
  // Takes `amount` out of the bucket; how long to wait for it.
  [[nodiscard]] std::uint64_t draw(const Limit& limit, std::uint64_t amount,
                                   std::uint64_t now) const noexcept;
  [[nodiscard]] const Limits& limits_of(Way way) const noexcept {
    return way == Way::kRead ? reads_ : writes_;
  }

  RateMemories memories_;
  const std::atomic<std::uint32_t>* state_;
  std::uint64_t units_per_us_;
  std::uint64_t debt_max_;  // Units.

  std::array<std::uint32_t, 2> states_{};  // Of which reads_ and writes_ have been made.
  Limits reads_;
  Limits writes_;
  std::uint64_t gather_ = 0;  // Units: the shortest sleep.

  // The turn of the request at the head of the ring.
  bool reserved_ = false;
  bool waiting_ = false;
  bool has_waited_ = false;
  Way way_ = Way::kRead;
  std::uint64_t bytes_ = 0;
  std::uint64_t since_ = 0;  // Units.
  std::uint64_t go_at_ = 0;
  std::uint64_t waited_ = 0;

  Throttled throttled_;
  std::uint64_t throttled_rest_ = 0;  // Units: less than a microsecond.
};

}  // namespace worker
