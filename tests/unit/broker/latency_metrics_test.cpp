#include "broker/control/latency_metrics.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "broker/control/wire.h"
#include "common/device_kind.h"

namespace broker::control {
namespace {

using common::LatencyKind;
using ::testing::HasSubstr;
using ::testing::Not;

QueueReply queue_of(std::string_view device, std::uint32_t number) {
  QueueReply queue;
  put_text(queue.device, device);
  queue.type = static_cast<std::uint32_t>(common::DeviceKind::kBlk);
  queue.queue = number;
  queue.measured = 1;
  return queue;
}

void add(QueueReply& queue, LatencyKind kind, std::uint64_t nanoseconds) {
  LatencyCounts& counts = queue.latency[static_cast<std::size_t>(kind)];
  ++counts.buckets[common::latency_bucket(static_cast<double>(nanoseconds))];
  counts.sum_ns += nanoseconds;
  counts.max_ns = std::max(counts.max_ns, nanoseconds);
}

TEST(LatencyMetrics, AreCumulativeAndEndWithAll) {
  QueueReply queue = queue_of("vda", 1);
  add(queue, LatencyKind::kRead, 10'000);
  add(queue, LatencyKind::kRead, 1'500'000);
  add(queue, LatencyKind::kRead, 90'000'000'000);
  const std::string text = latency_metrics_text({queue});
  const std::string labels = "{device=\"vda\",queue=\"1\",op=\"read\"";
  const std::string family = "bulkhead_request_duration_seconds";
  EXPECT_THAT(text, HasSubstr("# TYPE " + family + " histogram\n"));
  EXPECT_THAT(text, HasSubstr(family + "_bucket" + labels + ",le=\"0.000008192\"} 0\n"));
  EXPECT_THAT(text, HasSubstr(family + "_bucket" + labels + ",le=\"0.000016384\"} 1\n"));
  EXPECT_THAT(text, HasSubstr(family + "_bucket" + labels + ",le=\"0.002097152\"} 2\n"));
  EXPECT_THAT(text, HasSubstr(family + "_bucket" + labels + ",le=\"17.179869184\"} 2\n"));
  EXPECT_THAT(text, HasSubstr(family + "_bucket" + labels + ",le=\"+Inf\"} 3\n"));
  EXPECT_THAT(text, HasSubstr(family + "_sum" + labels + "} 90.00151\n"));
  EXPECT_THAT(text, HasSubstr(family + "_count" + labels + "} 3\n"));
  EXPECT_THAT(text, Not(HasSubstr("op=\"flush\"")));
}

TEST(LatencyMetrics, SayWhereNothingCanBeMeasured) {
  QueueReply queue = queue_of("vda", 0);
  queue.measured = 0;
  EXPECT_THAT(latency_metrics_text({queue}),
              HasSubstr("bulkhead_queue_latency_measured{device=\"vda\",queue=\"0\"} 0\n"));
}

TEST(LatencyMetrics, HaveQuantilesInJson) {
  QueueReply queue = queue_of("vda", 0);
  add(queue, LatencyKind::kFlush, 8192);
  Json json("metrics");
  json.array("samples");
  latency_metrics_json({queue}, json);
  EXPECT_THAT(json.finish(), HasSubstr(R"("op":"flush","sum_seconds":0.000008192,"count":1,)"
                                       R"("p50_seconds":0.000008192,"p99_seconds":0.000008192,)"
                                       R"("p999_seconds":0.000008192,"max_seconds":0.000008192})"));
}

TEST(LatencyBetween, IsOfOneDeviceAndOfTheTimeBetween) {
  QueueReply before = queue_of("vda", 0);
  add(before, LatencyKind::kRead, 80'000'000);
  QueueReply now = before;
  add(now, LatencyKind::kWrite, 20'000);
  QueueReply other = queue_of("vdb", 0);
  add(other, LatencyKind::kRead, 1000);
  const LatencySummary summary = latency_between({before}, {now, other}, now.device);
  EXPECT_EQ(summary.count, 1U);
  EXPECT_LT(summary.max_ns, 30'000U);
}

TEST(LatencyBetween, BeginsAnewWithAnotherDeviceOfTheName) {
  QueueReply before = queue_of("vda", 0);
  add(before, LatencyKind::kRead, 1000);
  add(before, LatencyKind::kRead, 1000);
  QueueReply now = queue_of("vda", 0);
  add(now, LatencyKind::kRead, 20'000);
  EXPECT_EQ(latency_between({before}, {now}, now.device).count, 1U);
}

TEST(DurationText, HasTheUnitThatFits) {
  LatencySummary some;
  EXPECT_EQ(duration_text(some, 5), "-");
  some.count = 1;
  EXPECT_EQ(duration_text(some, 4'200), "4.2 us");
  EXPECT_EQ(duration_text(some, 85'300), "85 us");
  EXPECT_EQ(duration_text(some, 1'300'000), "1.3 ms");
  EXPECT_EQ(duration_text(some, 2'500'000'000), "2.5 s");
}

}  // namespace
}  // namespace broker::control
