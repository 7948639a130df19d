// tests/integration/operator_watch_test.cpp: `bulkhead metrics`, `events` and `top` of a broker
// that serves.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <csignal>
#include <fstream>
#include <sstream>

#include "tests/integration/operated.h"

namespace integration {
namespace {

using ::testing::HasSubstr;

class OperatorWatch : public OperatedTest {
 protected:
  OperatorWatch() { serve({{.name = "vda"}, {.name = "vdb"}}); }
};

TEST_F(OperatorWatch, MetricsCountWhatAGuestHasDone) {
  const auto vda = host_.connect();
  expect_serves(vda->queue());  // One write and two reads, of 4096 bytes.
  const Ran ran = ask({"metrics"});
  EXPECT_EQ(ran.exit_code, 0);
  EXPECT_THAT(ran.text, HasSubstr("bulkhead_block_requests_total{device=\"vda\",op=\"read\"} 2\n"));
  EXPECT_THAT(ran.text,
              HasSubstr("bulkhead_block_bytes_total{device=\"vda\",op=\"write\"} 4096\n"));
  EXPECT_THAT(ran.text, HasSubstr("bulkhead_device_in_use{device=\"vda\"} 1\n"));
  EXPECT_THAT(ran.text, HasSubstr("bulkhead_block_requests_total{device=\"vdb\",op=\"read\"} 0\n"));
  EXPECT_THAT(
      ask({"metrics", "--json"}).text,
      HasSubstr(
          R"({"name":"bulkhead_block_requests_total","device":"vda","op":"read","value":2})"));
}

TEST_F(OperatorWatch, MetricsStayWhenAVmmGoesAndWhenADeviceStops) {
  {
    const auto vda = host_.connect();
    expect_serves(vda->queue());
  }
  EXPECT_EQ(ask({"stop", "vda"}).exit_code, 0);
  EXPECT_THAT(ask({"metrics"}).text,
              HasSubstr("bulkhead_block_requests_total{device=\"vda\",op=\"read\"} 2\n"));
}

TEST_F(OperatorWatch, MetricsOfAQueueGoOnWithItsNextWorker) {
  const auto vda = host_.connect();
  expect_serves(vda->queue());
  const auto workers = host_.workers();
  ASSERT_EQ(workers.size(), 1U);
  ASSERT_EQ(::kill(workers[0], SIGKILL), 0);
  EXPECT_NE(host_.broker().wait_for_line({"queue 0 is served again"}), "");
  const std::string queue = "{device=\"vda\",queue=\"0\"";
  const std::string text = ask({"metrics"}).text;
  EXPECT_THAT(text, HasSubstr("bulkhead_queue_requests_total" + queue + ",op=\"read\"} 2\n"));
  EXPECT_THAT(text, HasSubstr("bulkhead_queue_worker_restarts_total" + queue + "} 1\n"));
  EXPECT_THAT(text, HasSubstr("bulkhead_queue_served" + queue + "} 1\n"));
  expect_serves(vda->queue());
  EXPECT_THAT(ask({"metrics"}).text,
              HasSubstr("bulkhead_queue_requests_total" + queue + ",op=\"read\"} 4\n"));
}

TEST_F(OperatorWatch, MetricsSayHowLongRequestsTook) {
  const auto vda = host_.connect();
  expect_serves(vda->queue());
  const std::string text = ask({"metrics"}).text;
  EXPECT_THAT(text, HasSubstr("bulkhead_request_duration_seconds_count{device=\"vda\",queue=\"0\","
                              "op=\"read\"} 2\n"));
  EXPECT_THAT(text, HasSubstr("bulkhead_request_duration_seconds_bucket{device=\"vda\",queue=\"0\","
                              "op=\"write\",le=\"+Inf\"} 1\n"));
  EXPECT_THAT(ask({"status", "--json"}).text,
              HasSubstr(R"("latency":{"count":3,"p50_seconds":0.)"));
  EXPECT_THAT(ask({"status"}).text, HasSubstr("requests took  p50 "));
}

TEST_F(OperatorWatch, MetricsOfAQueueStayWhenItsDeviceIsStartedAgain) {
  {
    const auto vda = host_.connect();
    expect_serves(vda->queue());
  }
  EXPECT_EQ(ask({"stop", "vda"}).exit_code, 0);
  EXPECT_EQ(ask({"start", "vda"}).exit_code, 0);
  const std::string text = ask({"metrics", "--json"}).text;
  EXPECT_THAT(text, HasSubstr(R"({"name":"bulkhead_queue_served","device":"vda","queue":0,)"
                              R"("value":0})"));
  EXPECT_THAT(text, HasSubstr(R"("device":"vda","queue":0,"op":"read","value":2})"));
}

TEST_F(OperatorWatch, MetricsReplaceAFileAtOnce) {
  const std::string path = host_.file("bulkhead.prom");
  std::ofstream(path) << "old";
  EXPECT_EQ(ask({"metrics", "--output=" + path}).exit_code, 0);
  std::stringstream text;
  text << std::ifstream(path).rdbuf();
  EXPECT_THAT(text.str(), HasSubstr("bulkhead_build_info{version="));
  EXPECT_EQ(ask({"metrics", "--output=/no-such-directory/x"}).exit_code, 1);
}

TEST_F(OperatorWatch, EventsAreFollowedUntilTheBrokerEnds) {
  fakes::BrokerProcess follower({.program = BULKHEAD_PROGRAM,
                                 .arguments = {"events", "--control-socket=" + control()},
                                 .notify = false});
  // Both come from events that are still kept, or from new ones: in either order of the two.
  const auto vda = host_.connect();
  EXPECT_NE(follower.wait_for_line({"info vda: connection from pid"}), "");
  EXPECT_EQ(ask({"drain", "vdb"}).exit_code, 0);
  EXPECT_NE(follower.wait_for_line({"info vdb: stopped"}), "");
  EXPECT_EQ(ask({"stop", "--all"}).exit_code, 0);
  EXPECT_EQ(follower.wait_exit(), 1);
}

TEST_F(OperatorWatch, EventsOnceAreThoseThatThereAre) {
  EXPECT_EQ(ask({"drain", "vdb"}).exit_code, 0);
  expect_soon({"events", "--once", "--json"}, R"("level":"info","device":"vdb","text":"stopped")");
}

TEST_F(OperatorWatch, TopShowsEveryDevice) {
  const auto vda = host_.connect();
  const Ran ran = ask({"top", "--once", "--interval-ms=10"});
  EXPECT_EQ(ran.exit_code, 0);
  EXPECT_THAT(ran.text, AllOf(HasSubstr("READ/s"), HasSubstr("vda"), HasSubstr("vdb")));
  EXPECT_THAT(ask({"top", "--once", "--interval-ms=10", "--json"}).text,
              HasSubstr(R"("name":"vda","in_use":true,"workers":1,"in_flight":0,)"));
}

}  // namespace
}  // namespace integration
