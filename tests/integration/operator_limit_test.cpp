// tests/integration/operator_limit_test.cpp: limits that operators set while a device is used. How
// long things take is only ever compared with the least that they must.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <string>
#include <thread>
#include <vector>

#include "tests/integration/operated.h"

namespace integration {
namespace {

using std::chrono::milliseconds;
using ::testing::HasSubstr;
using ::testing::Not;

class OperatorLimit : public OperatedTest {
 protected:
  void serve_two() { serve({{.name = "vda"}, {.name = "vdb"}}); }
  void serve_with_state() {
    std::filesystem::create_directories(host_.file("state"));
    serve({{.name = "vda"}}, {"--state-dir=" + host_.file("state")});
  }
  static milliseconds time_of(const std::function<void()>& what) {
    const auto before = std::chrono::steady_clock::now();
    what();
    return std::chrono::duration_cast<milliseconds>(std::chrono::steady_clock::now() - before);
  }
};

TEST_F(OperatorLimit, HoldsAGuestBackWithoutANewWorker) {
  serve_two();
  const auto vda = host_.connect();
  expect_serves(vda->queue());
  const auto workers = host_.workers();
  EXPECT_EQ(ask({"limit", "vda", "iops=20", "burst=1"}).exit_code, 0);
  // Nine requests, one of which may go at once; a tenth less for two clocks.
  EXPECT_GE(time_of([&] {
              for (std::uint64_t i = 0; i < 3; ++i) expect_serves(vda->queue(), 256 * i);
            }),
            milliseconds(8 * 50 * 9 / 10));
  EXPECT_EQ(host_.workers(), workers);
  EXPECT_THAT(ask({"metrics"}).text,
              Not(HasSubstr("bulkhead_throttled_requests_total{device=\"vda\"} 0\n")));
  EXPECT_THAT(ask({"metrics"}).text,
              HasSubstr("bulkhead_throttled_requests_total{device=\"vdb\"} 0\n"));
}

TEST_F(OperatorLimit, IsLiftedForARequestThatWaits) {
  serve_two();
  const auto vda = host_.connect();
  EXPECT_EQ(ask({"limit", "vda", "iops=1", "burst=1"}).exit_code, 0);
  std::jthread operator_thread([this] { EXPECT_EQ(ask({"limit", "vda", "none"}).exit_code, 0); });
  // A hundred seconds' worth.
  const auto time = time_of([&] {
    for (std::uint64_t i = 0; i < 34; ++i) expect_serves(vda->queue(), 256 * i);
  });
  EXPECT_LT(time, std::chrono::seconds(90));
}

TEST_F(OperatorLimit, IsShownAndTakenBack) {
  serve_two();
  EXPECT_THAT(ask({"limit", "vda", "read-iops=5", "bps=1M", "--json"}).text,
              HasSubstr(R"("device":"vda","limits":{"read-iops":{"per_second":5,"burst":1},)"
                        R"("bps":{"per_second":1000000,"burst":100000}})"));
  EXPECT_THAT(ask({"list"}).text, HasSubstr("read-iops=5,bps=1000000"));
  EXPECT_THAT(ask({"limit", "vda", "read-iops=none"}).text, Not(HasSubstr("read-iops")));
  EXPECT_THAT(ask({"limit", "vda", "none"}).text, HasSubstr("none"));
  EXPECT_THAT(ask({"limit"}).text, HasSubstr("vdb"));
}

TEST_F(OperatorLimit, RefusesWhatCannotBeMeantAndWhoMayNot) {
  serve_two();
  EXPECT_THAT(ask({"limit", "vda", "iops=0"}).text, HasSubstr("must not be 0"));
  EXPECT_THAT(ask({"limit", "vda", "packets=5"}).text, HasSubstr("'packets' is no limit"));
  EXPECT_THAT(ask({"limit", "vda", "iops=1", "bps=1"}).text, HasSubstr("must be from 65536"));
  EXPECT_THAT(ask({"limit", "vdx", "iops=1"}).text, HasSubstr("there is no device 'vdx'"));
  EXPECT_THAT(ask({"limit", "web", "iops=1", "--group"}).text,
              HasSubstr("there is no group 'web'"));
  EXPECT_EQ(ask({"limit", "vda", "iops=1"}, true).exit_code, 1);
  EXPECT_THAT(ask({"limit", "vda"}).text, HasSubstr("none"));
}

TEST_F(OperatorLimit, OutlastsARestartAndIsForgottenWithAnotherConfiguration) {
  serve_with_state();
  EXPECT_EQ(ask({"limit", "vda", "iops=7"}).exit_code, 0);
  EXPECT_EQ(ask({"stop", "--all"}).exit_code, 0);
  EXPECT_EQ(host_.broker().wait_exit(), 0);
  serve_with_state();
  EXPECT_THAT(ask({"limit", "vda"}).text, HasSubstr("iops=7"));
  EXPECT_EQ(ask({"stop", "vda"}).exit_code, 0);
  EXPECT_EQ(ask({"start", "vda"}).exit_code, 0);
  EXPECT_THAT(ask({"limit", "vda"}).text, HasSubstr("iops=7"));
  EXPECT_EQ(ask({"stop", "--all"}).exit_code, 0);
  EXPECT_EQ(host_.broker().wait_exit(), 0);
  serve({{.name = "vda", .options = {"limit = \"iops=9\""}}},
        {"--state-dir=" + host_.file("state")});
  EXPECT_THAT(ask({"limit", "vda"}).text, HasSubstr("iops=9"));
}

TEST_F(OperatorLimit, IsAnEventOfTheAuditTrail) {
  serve({{.name = "vda"}}, {"--audit-log=" + host_.file("audit.log")});
  EXPECT_EQ(ask({"limit", "vda", "iops=5"}).exit_code, 0);
  EXPECT_EQ(ask({"stop", "--all"}).exit_code, 0);
  EXPECT_EQ(host_.broker().wait_exit(), 0);
  std::ifstream log(host_.file("audit.log"));
  const std::string text(std::istreambuf_iterator<char>(log), {});
  EXPECT_THAT(text, HasSubstr(R"("event":"limit-changed")"));
  EXPECT_THAT(text, HasSubstr(R"("limit":"iops","old":"none","new":"5 a second, at once 1")"));
}

TEST_F(OperatorLimit, HoldsForAGroupThatApplyHasAdded) {
  serve_two();
  const std::string config = host_.file("bulkhead.toml");
  const auto table = [this](const std::string& name) {
    return "[[device]]\nname = \"" + name + "\"\nsocket_path = \"" + host_.socket(name) +
           "\"\nblk_file = \"" + host_.image(name) +
           "\"\nengine = \"fallback\"\ntenant = \"blue\"\nlimit_group = \"web\"\n";
  };
  std::ofstream(config) << "[[group]]\nname = \"web\"\ntenant = \"blue\"\n"
                        << table("vda") << table("vdb");
  EXPECT_EQ(ask({"apply", "--config=" + config}).exit_code, 0);
  EXPECT_EQ(ask({"limit", "web", "--group", "iops=20", "burst=1"}).exit_code, 0);
  const auto vda = host_.connect({}, "vda");
  const auto vdb = host_.connect({}, "vdb");
  EXPECT_GE(time_of([&] {
              expect_serves(vda->queue());
              expect_serves(vdb->queue());
            }),
            milliseconds(5 * 50 * 9 / 10));
  EXPECT_THAT(ask({"limit"}).text, HasSubstr("iops=20,iops-burst=1"));
}

}  // namespace
}  // namespace integration
