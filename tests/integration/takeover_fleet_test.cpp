// A broker of many devices dies, or another one takes its place: what its operators have added, its
// operator's socket and its audit log go on, too.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "tests/fakes/process.h"
#include "tests/integration/operated.h"
#include "tests/integration/verified_load.h"

namespace integration {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::IsSupersetOf;
using testing::Not;

class TakeoverFleet : public OperatedTest {
 protected:
  void start() {
    std::filesystem::create_directories(host_.file("state"));
    serve({{.name = "vda"}, {.name = "vdb"}},
          {"--state-dir=" + host_.file("state"), "--audit-log=" + log(), "--audit=required"});
    make_image(host_.image("vdc"), 4 << 20);
    const Ran added = ask({"add", "blk", "--name=vdc", "--socket-path=" + host_.socket("vdc"),
                           "--blk-file=" + host_.image("vdc"), "--engine=fallback"});
    ASSERT_EQ(added.exit_code, 0) << added.text;
    for (const char* name : {"vda", "vdb", "vdc"}) {
      clients_.push_back(host_.connect({}, name));
      loads_.push_back(
          std::make_unique<VerifiedLoad>(clients_.back()->queue(), VerifiedLoad::Plan{.depth = 4}));
    }
    expect_progress();
  }
  [[nodiscard]] std::string log() const { return log_dir_.file("audit.log"); }
  [[nodiscard]] std::vector<std::string> options() const {
    return {"--state-dir=" + host_.file("state"), "--audit-log=" + log(), "--audit=required",
            "--control-socket=" + control()};
  }
  void take_over() { host_.take_over_by(host_.serve_arguments(options())); }
  void kill_and_start_again() {
    host_.broker().signal(SIGKILL);
    EXPECT_EQ(host_.broker().wait_exit(), 128 + SIGKILL);
    expect_progress();
    host_.serve_again(options());
  }
  void TearDown() override {
    if (HasFailure()) std::printf("%s\n", host_.broker().log().c_str());
  }
  void expect_progress() {
    for (const auto& load : loads_) load->expect_progress(20);
  }
  void stop_all() {
    for (const auto& load : loads_) load->stop();
    host_.broker().signal(SIGTERM);
    EXPECT_EQ(host_.broker().wait_exit(), 0);
  }
  void await_events(const std::string& kind, std::size_t count) const {
    const auto give_up = std::chrono::steady_clock::now() + fakes::kPatience;
    while (events({kind}).size() < count) {
      ASSERT_LT(std::chrono::steady_clock::now(), give_up) << kind;
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
  }
  // Of these kinds, in order.
  [[nodiscard]] std::vector<std::string> events(const std::vector<std::string>& kinds) const {
    const std::string mark = R"("event":")";
    std::vector<std::string> names;
    std::ifstream file(log());
    for (std::string line; std::getline(file, line);) {
      const std::size_t at = line.find(mark) + mark.size();
      std::string name = line.substr(at, line.find('"', at) - at);
      if (std::ranges::find(kinds, name) != kinds.end()) names.push_back(std::move(name));
    }
    return names;
  }
  [[nodiscard]] std::string verified() {
    host_.run_beside({"audit", "verify", log()});
    EXPECT_EQ(host_.beside().wait_exit(), 0) << host_.beside().log();
    return host_.beside().log();
  }

  fakes::TempDir log_dir_{BULKHEAD_TEST_IMAGES};
  std::vector<std::unique_ptr<fakes::BlkClient>> clients_;
  std::vector<std::unique_ptr<VerifiedLoad>> loads_;
};

TEST_F(TakeoverFleet, EveryDeviceGoesOnUnderTheNextBroker) {
  start();
  for (int round = 0; round < 3; ++round) {
    take_over();
    expect_progress();
  }
  EXPECT_THAT(ask({"list", "--json"}).text,
              HasSubstr(R"("name":"vdc","type":"blk","state":"serving","origin":"operator")"));
  EXPECT_THAT(ask({"status", "--json"}).text,
              AllOf(HasSubstr(R"("devices":3,"devices_in_use":3)"), HasSubstr(R"("adopted":6)"),
                    Not(HasSubstr(R"("keeper_pid":0)"))));
  stop_all();
}

TEST_F(TakeoverFleet, WhatAKilledBrokerLeavesGoesOnUnderTheNextOne) {
  start();
  kill_and_start_again();
  expect_progress();
  EXPECT_THAT(ask({"status", "--json"}).text, HasSubstr(R"("adopted":6)"));
  // Its own again: it can be taken away.
  loads_[2]->stop();
  loads_.pop_back();
  clients_.pop_back();
  expect_soon({"list", "vdc", "--json"}, R"("in_use":false)");
  EXPECT_EQ(ask({"remove", "vdc"}).exit_code, 0);
  take_over();
  expect_progress();
  EXPECT_THAT(ask({"list", "--json"}).text, Not(HasSubstr("vdc")));
  stop_all();
}

TEST_F(TakeoverFleet, AuditLogGoesOnInOneChainAndSaysWhatWasAdopted) {
  start();
  take_over();
  // A thread writes them: what is on its way when a broker is killed is lost.
  await_events("process-adopted", 6);
  kill_and_start_again();
  expect_progress();
  stop_all();
  EXPECT_THAT(events({"broker-started", "broker-stopped", "broker-left", "broker-took-over"}),
              ElementsAre("broker-started", "broker-left", "broker-started", "broker-took-over",
                          "broker-started", "broker-took-over", "broker-stopped"));
  EXPECT_EQ(events({"process-adopted"}).size(), 12U);
  EXPECT_THAT(verified(), Not(HasSubstr("gap")));
}

// Each is killed as soon as it has said that it serves: it may have asked sessions where they are
// and not have read the answers, which are there for the next one to stumble over.
TEST_F(TakeoverFleet, BrokersThatDieOneRightAfterTheOtherLoseNothing) {
  start();
  for (int death = 0; death < 12; ++death) {
    host_.broker().signal(SIGKILL);
    EXPECT_EQ(host_.broker().wait_exit(), 128 + SIGKILL);
    host_.serve_again(options());
  }
  expect_progress();
  stop_all();
}

TEST_F(TakeoverFleet, AuditLogIsStillReopenedAfterATakeover) {
  start();
  take_over();
  std::filesystem::rename(log(), log() + ".1");
  host_.broker().signal(SIGUSR2);
  ASSERT_NE(host_.broker().pid(), 0);
  EXPECT_EQ(ask({"stop", "vdc", "--force"}).exit_code, 0);
  loads_[2]->abandon();
  loads_.pop_back();
  expect_progress();
  stop_all();
  EXPECT_THAT(events({"audit-opened", "broker-stopped"}),
              ElementsAre("audit-opened", "broker-stopped"));
}

TEST_F(TakeoverFleet, AdoptedProcessesAreInThePosture) {
  start();
  take_over();
  const std::string asked = ask({"posture", "--json"}).text;
  EXPECT_THAT(asked, HasSubstr(R"x("title":"bulkhead-session: vdc (adopted)","adopted":true)x"));
  EXPECT_THAT(asked, HasSubstr("bulkhead-keeper"));
  host_.run_beside({"posture", "--pid=" + std::to_string(host_.broker().pid())});
  EXPECT_EQ(host_.beside().wait_exit(), 0);
  EXPECT_THAT(host_.beside().log(), AllOf(HasSubstr("bulkhead-worker-blk: vda/0 (adopted)"),
                                          HasSubstr("bulkhead-session: vdc (adopted)")));
  expect_progress();
  stop_all();
}

TEST_F(TakeoverFleet, NextBrokerThatDoesNotKnowADeviceLeavesTheOldOneAlone) {
  start();
  std::vector<std::string> arguments = host_.serve_arguments(options());
  arguments.insert(arguments.begin(), "takeover");
  std::filesystem::rename(host_.file("state") + "/device-vdc.toml", host_.file("vdc.toml"));
  host_.run_beside(arguments);
  EXPECT_EQ(host_.beside().wait_exit(), 1);
  EXPECT_THAT(host_.beside().log(), HasSubstr("'vdc' is served and not configured any more"));
  EXPECT_TRUE(host_.broker().running());
  expect_progress();
  std::filesystem::rename(host_.file("vdc.toml"), host_.file("state") + "/device-vdc.toml");
  take_over();
  expect_progress();
  stop_all();
}

TEST_F(TakeoverFleet, BrokerThatIsAskedToLeaveLeavesEveryDevice) {
  start();
  host_.broker().signal(SIGRTMIN + 1);
  EXPECT_EQ(host_.broker().wait_exit(), 75);
  expect_progress();
  host_.serve_again(options());
  expect_progress();
  stop_all();
}

}  // namespace
}  // namespace integration
