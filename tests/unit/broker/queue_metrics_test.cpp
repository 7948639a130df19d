#include "broker/control/queue_metrics.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "broker/control/exposition.h"
#include "broker/control/wire.h"
#include "broker/queue_book.h"
#include "common/device_kind.h"

namespace broker::control {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

QueueReply queue_of(common::DeviceKind kind, std::uint32_t number,
                    QueueRole role = QueueRole::kRequests) {
  QueueReply queue;
  put_text(queue.device, kind == common::DeviceKind::kBlk ? "vda" : "eth0");
  queue.type = static_cast<std::uint32_t>(kind);
  queue.queue = number;
  queue.role = static_cast<std::uint32_t>(role);
  return queue;
}

TEST(QueueMetrics, NameTheQueueOfADisk) {
  QueueReply queue = queue_of(common::DeviceKind::kBlk, 3);
  queue.counters[static_cast<std::size_t>(common::Counter::kReadRequests)] = 7;
  queue.restarts = 2;
  queue.oldest_us = 1'250'000;
  const std::string text = queue_metrics_text({queue});
  EXPECT_THAT(text,
              HasSubstr("bulkhead_queue_requests_total{device=\"vda\",queue=\"3\",op=\"read\"} 7"));
  EXPECT_THAT(text,
              HasSubstr("bulkhead_queue_worker_restarts_total{device=\"vda\",queue=\"3\"} 2\n"));
  EXPECT_THAT(
      text, HasSubstr("bulkhead_queue_oldest_inflight_seconds{device=\"vda\",queue=\"3\"} 1.25\n"));
  EXPECT_THAT(text, Not(HasSubstr("bulkhead_queue_packets_total{")));
}

TEST(QueueMetrics, SayWhichWayACardsQueueGoes) {
  QueueReply queue = queue_of(common::DeviceKind::kNet, 1, QueueRole::kTransmit);
  queue.counters[static_cast<std::size_t>(common::Counter::kDropTapDown)] = 4;
  const std::string labels = "{device=\"eth0\",queue=\"1\",direction=\"transmit\"";
  const std::string text = queue_metrics_text({queue});
  EXPECT_THAT(text, HasSubstr("bulkhead_queue_dropped_packets_total" + labels +
                              ",cause=\"tap_down\"} 4\n"));
  EXPECT_THAT(text, HasSubstr("bulkhead_queue_kicks_total" + labels + "} 0\n"));
  EXPECT_THAT(text, Not(HasSubstr("bulkhead_queue_requests_total{")));
}

TEST(QueueMetrics, HaveTheQueueAsANumberInJson) {
  Json json("metrics");
  json.array("samples");
  queue_metrics_json({queue_of(common::DeviceKind::kNet, 0, QueueRole::kReceive)}, json);
  EXPECT_THAT(json.finish(),
              HasSubstr(R"({"name":"bulkhead_queue_kicks_total","device":"eth0","queue":0,)"
                        R"("direction":"receive","value":0})"));
}

TEST(SecondsText, IsExact) {
  EXPECT_EQ(seconds_text(0, 1'000'000), "0");
  EXPECT_EQ(seconds_text(1, 1'000'000'000), "0.000000001");
  EXPECT_EQ(seconds_text(60'000'000, 1'000'000), "60");
  EXPECT_EQ(seconds_text(1'048'576, 1'000'000'000), "0.001048576");
}

}  // namespace
}  // namespace broker::control
