#include "worker/rate_limiter.h"

#include <algorithm>
#include <utility>

namespace worker {
namespace {

using common::Rate;
using common::RateSettings;

constexpr auto kRelaxed = std::memory_order_relaxed;

__extension__ using Wide = unsigned __int128;

// Times are sixteenths of a tick, modulo 2^64: fine enough for counters of some MHz, and years from
// wrapping with those of 5 GHz. Differences are taken as signed.
constexpr unsigned kUnitBits = 4;
// The time that one byte takes has so many bits behind the point.
constexpr unsigned kShift = 24;
// The buckets change under our hands as fast as others take requests. Only one who does nothing
// else could make us try more often than this.
constexpr int kTriesMax = 64;
// Requests that fall due within this are served by one wake-up.
constexpr std::uint64_t kGatherUs = 1000;
// Counters of several CPUs may differ, but not by this much: a clock that was set back, as by a
// machine's sleep.
constexpr std::uint64_t kSetBackUs = 2'000'000;

constexpr RateSettings kUnlimited{};

std::int64_t signed_difference(std::uint64_t later, std::uint64_t earlier) noexcept {
  return static_cast<std::int64_t>(later - earlier);
}

std::uint64_t saturate(Wide value, std::uint64_t most) noexcept {
  return value > most ? most : static_cast<std::uint64_t>(value);
}

}  // namespace

RateLimiter::RateLimiter(const RateMemories& memories, std::uint32_t ticks_per_us) noexcept
    : memories_(memories),
      state_(memories.device.settings != nullptr ? &memories.device.settings->state
                                                 : &kUnlimited.state),
      units_per_us_(std::uint64_t{std::max(ticks_per_us, 1U)} << kUnitBits),
      debt_max_(saturate(Wide{kDebtMaxUs} * units_per_us_, INT64_MAX / 4)) {}

// --- what the broker has set ---------------------------------------------------------------------

bool RateLimiter::is_current() const noexcept {
  const RateSettings* const group = memories_.group.settings;
  return state_->load(kRelaxed) == states_[0] &&
         (group == nullptr || group->state.load(kRelaxed) == states_[1]);
}

// Where the broker writes at the same time, what is read is a mixture; it is read again then, since
// `state` is stored last and was loaded first.
void RateLimiter::read_settings() noexcept {
  const RateSettings* const group = memories_.group.settings;
  states_[0] = state_->load(std::memory_order_acquire);
  states_[1] = group == nullptr ? 0 : group->state.load(std::memory_order_acquire);
  reads_.count = writes_.count = 0;
  gather_ = kGatherUs * units_per_us_;
  if (memories_.device.settings != nullptr) add_limits(memories_.device);
  if (group != nullptr) add_limits(memories_.group);
}

void RateLimiter::add_limits(const RateMemory& memory) noexcept {
  for (std::size_t i = 0; i < common::kRateCount; ++i) {
    const std::uint64_t per_second = memory.settings->per_second[i].load(kRelaxed);
    if (per_second == 0) continue;
    const auto rate = static_cast<Rate>(i);
    Limit limit;
    limit.full_at = &memory.buckets->full_at[i];
    limit.each = saturate((Wide{units_per_us_} * 1'000'000 << kShift) / per_second, UINT64_MAX);
    const std::uint64_t burst = memory.settings->burst[i].load(kRelaxed);
    limit.size = std::max<std::uint64_t>(cost(limit, std::max<std::uint64_t>(burst, 1)), 1);
    limit.bytes = common::counts_bytes(rate);
    // A bucket must not run over while we sleep.
    gather_ = std::min(gather_, limit.size / 4);
    if (common::limits_reads(rate)) reads_.list[reads_.count++] = limit;
    if (common::limits_writes(rate)) writes_.list[writes_.count++] = limit;
  }
}

// --- the buckets ---------------------------------------------------------------------------------

std::uint64_t RateLimiter::cost(const Limit& limit, std::uint64_t amount) const noexcept {
  return saturate(Wide{limit.each} * amount >> kShift, debt_max_);
}

std::uint64_t RateLimiter::draw(const Limit& limit, std::uint64_t amount,
                                std::uint64_t now) const noexcept {
  const std::uint64_t price = cost(limit, amount);
  std::uint64_t full_at = limit.full_at->load(kRelaxed);
  std::uint64_t ahead = 0;
  for (int tries = 0; tries < kTriesMax; ++tries) {
    // Anything may stand there: what lies behind us is a full bucket, and no debt is endless.
    const std::int64_t debt = signed_difference(full_at, now);
    ahead = debt <= 0 ? 0 : std::min(static_cast<std::uint64_t>(debt), debt_max_);
    if (limit.full_at->compare_exchange_weak(full_at, now + ahead + price, kRelaxed)) break;
  }
  const std::uint64_t needed = ahead + std::min(price, limit.size);
  return needed <= limit.size ? 0 : needed - limit.size;
}

// After a clock was set back, full buckets would look like debts of days.
void RateLimiter::watch_clocks(std::uint64_t now) const noexcept {
  for (const RateMemory& memory : {memories_.device, memories_.group}) {
    if (memory.buckets == nullptr) continue;
    const std::uint64_t seen = memory.buckets->seen.load(kRelaxed);
    const std::int64_t passed = signed_difference(now, seen);
    if (passed < -static_cast<std::int64_t>(kSetBackUs * units_per_us_)) {
      for (auto& full_at : memory.buckets->full_at) full_at.store(now, kRelaxed);
    } else if (passed < static_cast<std::int64_t>(kGatherUs * units_per_us_)) {
      continue;  // Not worth a line of the cache that others have, too.
    }
    memory.buckets->seen.store(now, kRelaxed);
  }
}

// --- the request at the head of the ring ---------------------------------------------------------

bool RateLimiter::admit(Way way, std::uint64_t bytes, std::uint64_t now) noexcept {
  now <<= kUnitBits;
  if (!is_current()) [[unlikely]] {
    read_settings();
    reserved_ = false;
  }
  if (reserved_ && signed_difference(now, since_) < 0) reserved_ = false;  // Set back.
  if (!reserved_) {
    reserve(way, bytes, now);
  } else if (way != way_ || bytes > bytes_) {
    // The guest has put another request in its place, which goes on our word for the first; others
    // wait for it.
    for (const Limit& limit : limits_of(way).all()) (void)draw(limit, limit.bytes ? bytes : 1, now);
    way_ = way;
    bytes_ = bytes;
  }
  return has_come(now);
}

void RateLimiter::reserve(Way way, std::uint64_t bytes, std::uint64_t now) noexcept {
  watch_clocks(now);
  std::uint64_t wait = 0;
  for (const Limit& limit : limits_of(way).all()) {
    wait = std::max(wait, draw(limit, limit.bytes ? bytes : 1, now));
  }
  reserved_ = true;
  way_ = way;
  bytes_ = bytes;
  since_ = now;
  go_at_ = now + wait;
  waiting_ = false;
}

bool RateLimiter::has_come(std::uint64_t now) noexcept {
  const bool due = signed_difference(now, go_at_) >= 0;
  if (due && waiting_) waited_ = now - since_;
  if (!due) has_waited_ = true;
  waiting_ = !due;
  return due;
}

void RateLimiter::took() noexcept {
  reserved_ = false;
  if (!std::exchange(has_waited_, false)) return;
  throttled_rest_ += waited_;
  throttled_.us += throttled_rest_ / units_per_us_;
  throttled_rest_ %= units_per_us_;
  ++throttled_.requests;
}

void RateLimiter::lifted(std::uint64_t now) noexcept {
  if (std::exchange(waiting_, false)) waited_ = (now << kUnitBits) - since_;
  reserved_ = false;
}

void RateLimiter::charge(Way way, std::uint64_t operations, std::uint64_t bytes,
                         std::uint64_t now) noexcept {
  for (const Limit& limit : limits_of(way).all()) {
    const std::uint64_t amount = limit.bytes ? bytes : operations;
    if (amount != 0) (void)draw(limit, amount, now << kUnitBits);
  }
}

std::uint32_t RateLimiter::sleep_us(std::uint64_t now) const noexcept {
  const std::int64_t left = signed_difference(go_at_, now << kUnitBits);
  const std::uint64_t units = std::max(left < 0 ? 0 : static_cast<std::uint64_t>(left), gather_);
  return static_cast<std::uint32_t>(std::min<std::uint64_t>(units / units_per_us_ + 1, kLookUs));
}

RateLimiter::Throttled RateLimiter::take_throttled() noexcept {
  return std::exchange(throttled_, {});
}

}  // namespace worker
