// What operators have said, and can say, of devices that an earlier broker has started.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <chrono>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <string>
#include <vector>

#include "tests/fakes/process.h"
#include "tests/integration/operated.h"
#include "tests/integration/verified_load.h"

namespace integration {
namespace {

using testing::HasSubstr;
using testing::Not;

class TakeoverOperated : public OperatedTest {
 protected:
  void start() { serve({{.name = "vda"}, {.name = "vdb"}}, {"--audit-log=" + log()}); }
  [[nodiscard]] std::string log() const { return host_.file("audit.log"); }
  [[nodiscard]] std::vector<std::string> options() const {
    return {"--audit-log=" + log(), "--control-socket=" + control()};
  }
  void take_over() { host_.take_over_by(host_.serve_arguments(options())); }
  void kill_broker() {
    host_.broker().signal(SIGKILL);
    EXPECT_EQ(host_.broker().wait_exit(), 128 + SIGKILL);
  }
  void TearDown() override {
    if (HasFailure()) std::printf("%s\n", host_.broker().log().c_str());
  }
  void stop_all() {
    host_.broker().signal(SIGTERM);
    EXPECT_EQ(host_.broker().wait_exit(), 0);
  }
};

TEST_F(TakeoverOperated, LimitsReachWorkersOfAnEarlierBroker) {
  start();
  const auto vda = host_.connect();
  expect_serves(vda->queue());
  const std::vector<pid_t> workers = host_.workers();
  EXPECT_EQ(ask({"limit", "vda", "iops=100000"}).exit_code, 0);
  take_over();
  EXPECT_EQ(ask({"limit", "vda", "iops=20", "burst=1"}).exit_code, 0);
  const auto before = std::chrono::steady_clock::now();
  for (std::uint64_t i = 0; i < 3; ++i) expect_serves(vda->queue(), 256 * i);
  // Nine requests, one of which may go at once; a tenth less for two clocks.
  EXPECT_GE(std::chrono::steady_clock::now() - before, std::chrono::milliseconds(8 * 50 * 9 / 10));
  for (const pid_t pid : workers) EXPECT_EQ(::kill(pid, 0), 0);
  kill_broker();
  host_.serve_again(options());
  EXPECT_EQ(ask({"limit", "vda", "none"}).exit_code, 0);
  expect_serves(vda->queue());
  for (const pid_t pid : workers) EXPECT_EQ(::kill(pid, 0), 0);
  stop_all();
}

TEST_F(TakeoverOperated, LatenciesOfAdoptedWorkersAreShown) {
  start();
  const auto vda = host_.connect();
  take_over();
  expect_serves(vda->queue());
  EXPECT_THAT(ask({"metrics"}).text,
              HasSubstr("bulkhead_queue_latency_measured{device=\"vda\",queue=\"0\"} 1"));
  stop_all();
}

TEST_F(TakeoverOperated, WhatWasStoppedAndDrainedStaysSo) {
  start();
  const auto vda = host_.connect();
  expect_serves(vda->queue());
  EXPECT_EQ(ask({"drain", "vda"}).exit_code, 0);
  EXPECT_EQ(ask({"stop", "vdb"}).exit_code, 0);
  for (int round = 0; round < 2; ++round) {
    take_over();
    EXPECT_THAT(ask({"list", "--json"}).text,
                HasSubstr(R"("name":"vda","type":"blk","state":"draining")"));
    EXPECT_THAT(ask({"list", "--json"}).text,
                HasSubstr(R"("name":"vdb","type":"blk","state":"stopped")"));
    kill_broker();
    host_.serve_again(options());
    expect_serves(vda->queue());
  }
  EXPECT_EQ(ask({"start", "vdb"}).exit_code, 0);
  expect_serves(host_.connect({}, "vdb")->queue());
  take_over();
  EXPECT_THAT(ask({"list", "--json"}).text,
              HasSubstr(R"("name":"vdb","type":"blk","state":"serving")"));
  stop_all();
}

TEST_F(TakeoverOperated, DeviceWhoseImageIsGoneEndsAndTheOthersGoOnUntilItIsBack) {
  start();
  const auto vda = host_.connect({}, "vda");
  const auto vdb = host_.connect({}, "vdb");
  VerifiedLoad load(vda->queue(), {.depth = 4});
  expect_serves(vdb->queue());
  const std::vector<pid_t> lost = host_.broker().children_named("vdb");
  kill_broker();
  std::filesystem::rename(host_.image("vdb"), host_.file("elsewhere"));
  host_.serve_again(options());
  EXPECT_NE(host_.broker().wait_for_line({"vdb", "is not served any more"}), "");
  for (const pid_t pid : lost) EXPECT_TRUE(fakes::wait_gone(pid));
  EXPECT_TRUE(vdb->vhost().hung_up());
  load.expect_progress();
  std::filesystem::rename(host_.file("elsewhere"), host_.image("vdb"));
  EXPECT_EQ(ask({"apply", "--config=" + host_.file("bulkhead.toml")}).exit_code, 0);
  ASSERT_TRUE(vdb->reconnect(host_.socket("vdb")));
  expect_serves(vdb->queue());
  load.stop();
  stop_all();
  std::ifstream file(log());
  const std::string text(std::istreambuf_iterator<char>(file), {});
  EXPECT_THAT(text, HasSubstr("its broker had died"));
}

TEST_F(TakeoverOperated, WhereNoImageIsThereGuestsGoOnUntilTheyAreBack) {
  start();
  const auto vda = host_.connect({}, "vda");
  const auto vdb = host_.connect({}, "vdb");
  VerifiedLoad load(vda->queue(), {.depth = 4});
  kill_broker();
  const Ran asked = ask({"status"});
  EXPECT_EQ(asked.exit_code, 1);
  EXPECT_THAT(asked.text, HasSubstr("has died. The sessions and workers"));
  std::filesystem::rename(host_.image("vda"), host_.file("vda-elsewhere"));
  std::filesystem::rename(host_.image("vdb"), host_.file("vdb-elsewhere"));
  host_.run_beside(host_.serve_arguments(options()));
  EXPECT_EQ(host_.beside().wait_exit(), 1);
  const std::string said = host_.beside().log();
  EXPECT_THAT(said,
              AllOf(HasSubstr("vda: cannot be served: disk"),
                    HasSubstr("vdb: cannot be served: disk"), HasSubstr("no device can be served"),
                    HasSubstr("4 sessions and workers"), Not(HasSubstr("is not served any more"))));
  load.expect_progress();
  std::filesystem::rename(host_.file("vda-elsewhere"), host_.image("vda"));
  std::filesystem::rename(host_.file("vdb-elsewhere"), host_.image("vdb"));
  host_.serve_again(options());
  load.expect_progress();
  expect_serves(vdb->queue());
  EXPECT_EQ(ask({"status"}).exit_code, 0);
  load.stop();
  stop_all();
}

}  // namespace
}  // namespace integration
