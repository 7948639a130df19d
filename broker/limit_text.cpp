#include "broker/limit_text.h"

#include <algorithm>
#include <limits>
#include <optional>

#include "broker/setting_values.h"
#include "broker/text.h"
#include "common/checked.h"

namespace broker {
namespace {

using common::DeviceKind;
using common::fail;
using common::kRateCount;
using common::Rate;

constexpr std::array<std::string_view, kRateCount> kDiskNames = {"iops", "read-iops", "write-iops",
                                                                 "bps",  "read-bps",  "write-bps"};
constexpr std::array<std::string_view, kRateCount> kCardNames = {
    "packets", "rx-packets", "tx-packets", "bps", "rx-bps", "tx-bps"};
constexpr std::string_view kBurst = "-burst";

const std::array<std::string_view, kRateCount>& names_of(DeviceKind kind) {
  return kind == DeviceKind::kBlk ? kDiskNames : kCardNames;
}

struct Suffix {
  std::string_view text;
  std::uint64_t factor;
};
constexpr Suffix kSuffixes[] = {
    {"Ki", 1ULL << 10}, {"Mi", 1ULL << 20},   {"Gi", 1ULL << 30},
    {"Ti", 1ULL << 40}, {"K", 1'000},         {"k", 1'000},
    {"M", 1'000'000},   {"G", 1'000'000'000}, {"T", 1'000'000'000'000},
};

std::optional<std::uint64_t> parse_amount(std::string_view text) {
  std::uint64_t factor = 1;
  for (const Suffix& suffix : kSuffixes) {
    if (!text.ends_with(suffix.text)) continue;
    factor = suffix.factor;
    text.remove_suffix(suffix.text.size());
    break;
  }
  const auto number = parse_number<std::uint64_t>(text);
  if (!number) return std::nullopt;
  return common::checked_mul(*number, factor);
}

// "200ms", "2s".
std::optional<std::uint64_t> parse_milliseconds(std::string_view text) {
  const bool seconds = !text.ends_with("ms");
  if (!text.ends_with('s')) return std::nullopt;
  text.remove_suffix(seconds ? 1 : 2);
  const auto number = parse_number<std::uint64_t>(text);
  if (!number || *number == 0 || *number > kBurstSecondsMax * 1000) return std::nullopt;
  return *number * (seconds ? 1000 : 1);
}

std::string no_such_limit(std::string_view name, DeviceKind kind) {
  return in_quotes(name) + " is no limit; there are " + rate_names(kind) + ", each also with " +
         std::string(kBurst) + ", and burst";
}

// Reads one "key=value" after the other.
class Reader {
 public:
  explicit Reader(DeviceKind kind) : kind_(kind) {}

  Answer<void> take(std::string_view part) {
    if (part == "none") {
      nothing_else_ = true;
      return {};
    }
    const std::size_t equals = part.find('=');
    if (equals == std::string_view::npos) {
      return fail("must be like iops=1000,bps=50M or none, not " + in_quotes(part));
    }
    const std::string key = dashed(part.substr(0, equals));
    const std::string_view value = part.substr(equals + 1);
    if (key == "burst") return take_common_burst(value);
    const bool is_burst = key.ends_with(kBurst);
    const std::string name = is_burst ? key.substr(0, key.size() - kBurst.size()) : key;
    const auto& names = names_of(kind_);
    const auto found = std::find(names.begin(), names.end(), name);
    if (found == names.end()) return fail(no_such_limit(key, kind_));
    const auto index = static_cast<std::size_t>(found - names.begin());
    auto& place = is_burst ? change_.burst[index] : change_.per_second[index];
    if (place != LimitChange::kKeep) return fail(key + " is given twice; give it once");
    TRY_LET(place, amount_of(key, value));
    return {};
  }

  Answer<LimitChange> finish() {
    TRY(spread_burst());
    if (!nothing_else_) return change_;
    for (auto* const list : {&change_.per_second, &change_.burst}) {
      std::replace(list->begin(), list->end(), LimitChange::kKeep, std::uint64_t{0});
    }
    return change_;
  }

 private:
  Answer<void> spread_burst() {
    if (common_ms_ == 0 && common_amount_ == 0) return {};
    const auto given = std::count_if(change_.per_second.begin(), change_.per_second.end(), is_set);
    if (given == 0) return fail(std::string("has a burst, and no limit that it is for"));
    if (common_amount_ != 0 && given != 1) {
      return fail(
          std::string("has one burst for several limits; give it as a time (burst=200ms), or each "
                      "its own (iops-burst=…)"));
    }
    for (std::size_t i = 0; i < kRateCount; ++i) {
      if (!is_set(change_.per_second[i]) || change_.burst[i] != LimitChange::kKeep) continue;
      change_.burst[i] = common_amount_ != 0 ? common_amount_ : in_time(change_.per_second[i]);
    }
    return {};
  }

  static bool is_set(std::uint64_t value) { return value != LimitChange::kKeep && value != 0; }
  static std::string dashed(std::string_view name) {
    std::string out(name);
    std::replace(out.begin(), out.end(), '_', '-');
    return out;
  }
  Answer<std::uint64_t> amount_of(std::string_view key, std::string_view value) {
    if (value == "none") return 0;
    const auto amount = parse_amount(value);
    if (!amount) {
      return fail(std::string(key) + " must be a number (with K, M, G or T, or Ki, Mi, Gi or Ti) " +
                  "or none, not " + in_quotes(value));
    }
    if (*amount == 0) {
      return fail(std::string(key) +
                  " must not be 0, which would let nothing pass; for no limit, " +
                  "leave it out or say none");
    }
    // That number means something else (LimitChange::kKeep); no limit is as high.
    return std::min(*amount, LimitChange::kKeep - 1);
  }
  Answer<void> take_common_burst(std::string_view value) {
    if (common_ms_ != 0 || common_amount_ != 0) {
      return fail(std::string("burst is given twice; give it once"));
    }
    if (const auto milliseconds = parse_milliseconds(value)) {
      common_ms_ = *milliseconds;
      return {};
    }
    const auto amount = parse_amount(value);
    if (!amount || *amount == 0) {
      return fail("burst must be a time from 1ms to " + std::to_string(kBurstSecondsMax) +
                  "s, or a number, not " + in_quotes(value));
    }
    common_amount_ = std::min(*amount, LimitChange::kKeep - 1);
    return {};
  }
  [[nodiscard]] std::uint64_t in_time(std::uint64_t per_second) const {
    const auto whole = common::checked_mul(per_second, common_ms_);
    // What is too large for this is refused as a rate.
    return std::max<std::uint64_t>(whole.value_or(0) / 1000, 1);
  }

  DeviceKind kind_;
  LimitChange change_;
  std::uint64_t common_ms_ = 0;
  std::uint64_t common_amount_ = 0;
  bool nothing_else_ = false;  // What is not named is to have no limit.
};

std::unexpected<std::string> out_of_bounds(std::string_view name, std::uint64_t least,
                                           std::uint64_t most, std::uint64_t value) {
  return fail(std::string(name) + " must be from " + std::to_string(least) + " to " +
              std::to_string(most) + " each second, not " + std::to_string(value) +
              "; for no limit, leave it out or say none");
}

Answer<void> check(const RateLimit& limit, std::string_view name, Rate rate) {
  const bool bytes = common::counts_bytes(rate);
  const std::uint64_t least = bytes ? kBytesPerSecondMin : 1;
  const std::uint64_t most = bytes ? kBytesPerSecondMax : kOperationsPerSecondMax;
  if (limit.per_second < least || limit.per_second > most) {
    return out_of_bounds(name, least, most, limit.per_second);
  }
  if (limit.burst > limit.per_second * kBurstSecondsMax) {
    return fail(std::string(name) + std::string(kBurst) + " must be at most what passes in " +
                std::to_string(kBurstSecondsMax) + " s, " +
                std::to_string(limit.per_second * kBurstSecondsMax) + ", not " +
                std::to_string(limit.burst));
  }
  return {};
}

}  // namespace

std::string_view rate_name(Rate rate, DeviceKind kind) {
  return names_of(kind)[static_cast<std::size_t>(rate)];
}

std::string rate_names(DeviceKind kind) { return join_or(names_of(kind)); }

Answer<LimitChange> parse_limit_change(std::string_view text, DeviceKind kind) {
  Reader reader(kind);
  for (const std::string_view part : split_at_commas(text)) TRY(reader.take(part));
  return reader.finish();
}

Answer<DeviceLimits> changed_limits(DeviceLimits limits, const LimitChange& change,
                                    DeviceKind kind) {
  for (std::size_t i = 0; i < kRateCount; ++i) {
    RateLimit& limit = limits.rates[i];
    const std::string_view name = names_of(kind)[i];
    const bool burst_given = change.burst[i] != LimitChange::kKeep && change.burst[i] != 0;
    if (change.per_second[i] != LimitChange::kKeep) {
      limit.per_second = change.per_second[i];
      // The burst was of another rate.
      limit.burst = 0;
    }
    if (change.burst[i] != LimitChange::kKeep) limit.burst = change.burst[i];
    if (limit.per_second != 0) {
      TRY(check(limit, name, static_cast<Rate>(i)));
    } else if (burst_given) {
      return fail(std::string(name) + std::string(kBurst) + " needs " + std::string(name) +
                  ": how much may pass each second");
    }
  }
  return limits;
}

Answer<DeviceLimits> parse_limits(std::string_view text, DeviceKind kind) {
  TRY_LET(const LimitChange change, parse_limit_change(text, kind));
  return changed_limits({}, change, kind);
}

std::string limits_text(const DeviceLimits& limits, DeviceKind kind) {
  std::string text;
  const auto add = [&text](std::string_view name, std::string_view suffix, std::uint64_t value) {
    if (!text.empty()) text += ',';
    text += std::string(name) + std::string(suffix) + "=" + std::to_string(value);
  };
  for (std::size_t i = 0; i < kRateCount; ++i) {
    const RateLimit& limit = limits.rates[i];
    if (limit.per_second == 0) continue;
    add(names_of(kind)[i], "", limit.per_second);
    if (limit.burst != 0) add(names_of(kind)[i], kBurst, limit.burst);
  }
  return text;
}

}  // namespace broker
