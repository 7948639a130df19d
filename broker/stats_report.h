// broker/stats_report.h: what workers count, as one line per device and interval
// (--stats-interval). Not trusted: the counters. They are summed and printed, and nothing is
// decided by them.
#pragma once

#include <array>
#include <cstdint>
#include <string>

#include "common/status_page.h"

namespace broker {

// Indexed by common::Counter. Wraps rather than overflows, whatever a worker writes.
using CounterTotals = std::array<std::uint64_t, common::kCounterCount>;

[[nodiscard]] CounterTotals read_counters(const common::StatusPage& page) noexcept;
void add_counters(CounterTotals& sum, const CounterTotals& more) noexcept;
[[nodiscard]] CounterTotals counters_since(const CounterTotals& now,
                                           const CounterTotals& before) noexcept;

// What the disk failed at, for the operator: "17 requests failed: the disk says: Input/output error
// (errno 5)". `disk_os_errno` as on the status page: hostile, so printed as a number if unknown.
[[nodiscard]] std::string format_disk_errors(std::uint64_t count, std::uint32_t disk_os_errno);

// "read 1200 IO/s 4.7 MiB/s, write 0 IO/s …, 0.02 kicks and 0.03 calls per request, 4 workers".
[[nodiscard]] std::string format_stats(const CounterTotals& delta, double seconds,
                                       std::size_t workers);

}  // namespace broker
