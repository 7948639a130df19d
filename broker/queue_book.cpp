#include "broker/queue_book.h"

namespace broker {

QueueTotals read_totals(const common::StatusPage& page, bool measured) noexcept {
  QueueTotals totals;
  totals.counters = read_counters(page);
  if (measured) totals.latency = read_latency(page);
  return totals;
}

void add_totals(QueueTotals& sum, const QueueTotals& more) noexcept {
  add_counters(sum.counters, more.counters);
  add_latency(sum.latency, more.latency);
  sum.restarts += more.restarts;
  sum.ring_faults += more.ring_faults;
}

void QueueBook::worker_ended(std::uint32_t queue, const QueueTotals& totals, bool ring_fault) {
  QueueTotals& past = entries_[queue].past;
  add_totals(past, totals);
  if (ring_fault) ++past.ring_faults;
}

std::optional<QueueBook::Found> QueueBook::find_from(std::uint32_t first) const {
  const auto found = entries_.lower_bound(first);
  if (found == entries_.end()) return std::nullopt;
  return Found{found->first, &found->second};
}

}  // namespace broker
