#include "broker/stats_report.h"

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdio>

#include "broker/text.h"

namespace broker {
namespace {

using common::Counter;

double count_of(const CounterTotals& totals, Counter counter) {
  return static_cast<double>(totals[static_cast<std::size_t>(counter)]);
}

}  // namespace

CounterTotals read_counters(const common::StatusPage& page) noexcept {
  CounterTotals totals{};
  for (std::size_t i = 0; i < totals.size(); ++i) {
    totals[i] = page.counters[i].load(std::memory_order_relaxed);
  }
  return totals;
}

void add_counters(CounterTotals& sum, const CounterTotals& more) noexcept {
  for (std::size_t i = 0; i < sum.size(); ++i) sum[i] += more[i];
}

CounterTotals counters_since(const CounterTotals& now, const CounterTotals& before) noexcept {
  CounterTotals delta{};
  for (std::size_t i = 0; i < delta.size(); ++i) delta[i] = now[i] - before[i];
  return delta;
}

std::string format_disk_errors(std::uint64_t count, std::uint32_t disk_os_errno) {
  const std::string what = std::to_string(count) + (count == 1 ? " request" : " requests") +
                           " of the guest failed: the disk ";
  switch (disk_os_errno) {
    case 0:
      return what + "has become shorter than it was when it was opened; make it as long as it was";
    case ENOSPC:
    case EDQUOT:
      return what + "has no room left; free space on its file system";
    default:
      return what + "says: " + errno_text(static_cast<int>(disk_os_errno));
  }
}

std::string format_stats(const CounterTotals& delta, double seconds, std::size_t workers) {
  const double time = std::max(seconds, 0.001);
  const double reads = count_of(delta, Counter::kReadRequests);
  const double writes = count_of(delta, Counter::kWriteRequests);
  const double flushes = count_of(delta, Counter::kFlushRequests);
  const double ranges =
      count_of(delta, Counter::kDiscardRequests) + count_of(delta, Counter::kWriteZeroesRequests);
  const double all = reads + writes + flushes + ranges + count_of(delta, Counter::kGetIdRequests) +
                     count_of(delta, Counter::kOtherRequests);
  const double per_request = std::max(all, 1.0);
  constexpr double kMib = 1024.0 * 1024.0;

  std::array<char, 512> text{};
  std::snprintf(
      text.data(), text.size(),
      "read %.0f IO/s %.1f MiB/s, write %.0f IO/s %.1f MiB/s, flush %.0f/s, discard and "
      "write-zeroes %.0f/s, errors %.0f, per request: %.3f kicks, %.3f interrupts, "
      "%.3f system calls; %zu worker%s",
      reads / time, count_of(delta, Counter::kReadBytes) / kMib / time, writes / time,
      count_of(delta, Counter::kWrittenBytes) / kMib / time, flushes / time, ranges / time,
      count_of(delta, Counter::kStatusIoError) + count_of(delta, Counter::kStatusUnsupported),
      count_of(delta, Counter::kKicks) / per_request,
      count_of(delta, Counter::kCalls) / per_request,
      count_of(delta, Counter::kSystemCalls) / per_request, workers, workers == 1 ? "" : "s");
  return text.data();
}

}  // namespace broker
