#include "broker/queue_book.h"

#include <gtest/gtest.h>

namespace broker {
namespace {

using common::Counter;

constexpr auto kKicks = static_cast<std::size_t>(Counter::kKicks);

QueueTotals kicks(std::uint64_t count) {
  QueueTotals totals;
  totals.counters[kKicks] = count;
  return totals;
}

TEST(QueueBook, AddsUpWhatAllWorkersOfAQueueHaveDone) {
  QueueBook book;
  book.worker_started(1, QueueRole::kRequests, true);
  book.worker_ended(1, kicks(3), false);
  book.worker_started(1, QueueRole::kRequests, true);
  book.worker_restarted(1);
  book.worker_ended(1, kicks(4), true);
  const auto found = book.find_from(0);
  ASSERT_TRUE(found.has_value());
  EXPECT_EQ(found->queue, 1U);
  EXPECT_EQ(found->entry->past.counters[kKicks], 7U);
  EXPECT_EQ(found->entry->past.restarts, 1U);
  EXPECT_EQ(found->entry->past.ring_faults, 1U);
}

TEST(QueueBook, ListsQueuesInTheOrderOfTheirNumbers) {
  QueueBook book;
  book.worker_started(5, QueueRole::kTransmit, true);
  book.worker_started(2, QueueRole::kReceive, true);
  EXPECT_EQ(book.find_from(0)->queue, 2U);
  EXPECT_EQ(book.find_from(3)->queue, 5U);
  EXPECT_EQ(book.find_from(3)->entry->role, QueueRole::kTransmit);
  EXPECT_FALSE(book.find_from(6).has_value());
}

TEST(QueueBook, ReadsWhatTheWorkerOfAQueueHasCounted) {
  common::StatusPage page{};
  page.add(Counter::kKicks, 9);
  page.latency[1].add(5000);
  EXPECT_EQ(read_totals(page, true).counters[kKicks], 9U);
  EXPECT_EQ(read_totals(page, true).latency[1].max_ns, 5000U);
  EXPECT_EQ(read_totals(page, false).counters[kKicks], 9U);
  EXPECT_EQ(read_totals(page, false).latency[1].max_ns, 0U);
}

}  // namespace
}  // namespace broker
