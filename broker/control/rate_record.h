// broker/control/rate_record.h: rate limits between messages and the rest of the broker.
//
// Not trusted: a record that a client has sent. It goes through the checks of limit_text.h.
#pragma once

#include "broker/control/messages.h"
#include "broker/limit_text.h"
#include "broker/limits.h"

namespace broker::control {

[[nodiscard]] inline RateRecord rates_of(const DeviceLimits& limits) noexcept {
  RateRecord record;
  for (std::size_t i = 0; i < common::kRateCount; ++i) {
    record.per_second[i] = limits.rates[i].per_second;
    record.burst[i] = limits.rates[i].burst;
  }
  return record;
}

[[nodiscard]] inline LimitChange change_of(const RateRecord& record) noexcept {
  return {record.per_second, record.burst};
}

[[nodiscard]] inline Answer<DeviceLimits> limits_of(const RateRecord& record,
                                                    common::DeviceKind kind) {
  return changed_limits({}, change_of(record), kind);
}

// What a broker has said, to be shown: nothing of it is checked.
[[nodiscard]] inline DeviceLimits shown_limits(const RateRecord& record) noexcept {
  DeviceLimits limits;
  for (std::size_t i = 0; i < common::kRateCount; ++i) {
    limits.rates[i] = {record.per_second[i], record.burst[i]};
  }
  return limits;
}

}  // namespace broker::control
