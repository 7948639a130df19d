// broker/queue_book.h: what the workers of each virtqueue have done, through all of their lives:
// a queue's figures do not go back when its worker is replaced, its VMM connects again, or its
// device is stopped and started.
//
// Not trusted: the figures, which workers have written. They are added and shown, and nothing is
// decided by them.
#pragma once

#include <cstdint>
#include <map>
#include <optional>

#include "broker/latency_totals.h"
#include "broker/stats_report.h"

namespace broker {

// What a queue is for. A disk's are all alike.
enum class QueueRole : std::uint32_t { kRequests = 0, kReceive = 1, kTransmit = 2, kControl = 3 };
inline constexpr std::uint32_t kQueueRoleCount = 4;

struct QueueTotals {
  CounterTotals counters{};
  LatencyTotals latency{};
  std::uint64_t restarts = 0;     // Workers that took over from one that had died.
  std::uint64_t ring_faults = 0;  // Times that the guest broke the ring.
};
// What one worker has counted itself. Without a clock it has not measured what it says it has.
[[nodiscard]] QueueTotals read_totals(const common::StatusPage& page, bool measured) noexcept;
void add_totals(QueueTotals& sum, const QueueTotals& more) noexcept;

class QueueBook {
 public:
  struct Entry {
    QueueRole role = QueueRole::kRequests;
    bool measured = false;  // Its worker has a clock.
    QueueTotals past;       // Of workers that have ended.
  };

  void worker_started(std::uint32_t queue, QueueRole role, bool measured) {
    entries_[queue].role = role;
    entries_[queue].measured = measured;
  }
  void worker_ended(std::uint32_t queue, const QueueTotals& totals, bool ring_fault);
  void worker_restarted(std::uint32_t queue) { ++entries_[queue].past.restarts; }

  // The first queue from that number on that ever had a worker.
  struct Found {
    std::uint32_t queue;
    const Entry* entry;
  };
  [[nodiscard]] std::optional<Found> find_from(std::uint32_t first) const;

 private:
  std::map<std::uint32_t, Entry> entries_;
};

}  // namespace broker
