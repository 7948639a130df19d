// tests/integration/operator_test.cpp: the operator's socket and its commands, against a real
// broker with front-ends connected; and clients who may not, who flood, and who never read.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <list>

#include "tests/integration/operated.h"

namespace integration {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;
namespace control = broker::control;

class Operator : public OperatedTest {
 protected:
  void serve_two() { serve({{.name = "vda"}, {.name = "vdb"}}); }
};

TEST_F(Operator, StatusCountsDevicesAndThoseThatAreInUse) {
  serve_two();
  const auto vda = host_.connect();
  const Ran ran = ask({"status", "--json"});
  EXPECT_EQ(ran.exit_code, 0);
  EXPECT_THAT(ran.text, HasSubstr(R"({"schema":"bulkhead/1","command":"status",)"));
  EXPECT_THAT(ran.text, HasSubstr(R"("devices":2,"devices_in_use":1,)"));
  EXPECT_THAT(ran.text, HasSubstr("\"pid\":" + std::to_string(host_.broker().pid()) + ","));
  EXPECT_THAT(ran.text, HasSubstr(R"("may_change":true)"));
  EXPECT_THAT(ask({"status"}).text, HasSubstr("2, 1 in use"));
}

TEST_F(Operator, ListShowsWhoUsesADevice) {
  serve_two();
  const auto vda = host_.connect();
  const std::string user = "\"vmm_pid\":" + std::to_string(::getpid());
  EXPECT_THAT(ask({"list", "vda", "--json"}).text, HasSubstr(user));
  EXPECT_THAT(
      ask({"list", "vdb", "--json"}).text,
      AllOf(HasSubstr(R"("state":"serving","origin":"configuration")"), Not(HasSubstr(user))));
  EXPECT_THAT(ask({"list"}).text, AllOf(HasSubstr("vda"), HasSubstr("vdb"), HasSubstr("8.0 MiB")));
}

TEST_F(Operator, ListNamesADeviceThatIsNotThere) {
  serve_two();
  const Ran ran = ask({"list", "vdc"});
  EXPECT_EQ(ran.exit_code, 1);
  EXPECT_THAT(ran.text, HasSubstr("there is no device 'vdc'"));
}

TEST_F(Operator, StoppedDeviceLetsItsDiskGoAndStartsAgainWhileOthersGoOn) {
  serve_two();
  const auto innocent = host_.connect({}, "vdb");
  const auto before = host_.workers();
  const auto vda = host_.connect();
  expect_serves(vda->queue());
  EXPECT_EQ(ask({"stop", "vda"}).exit_code, 0);
  EXPECT_THAT(ask({"list", "vda", "--json"}).text, HasSubstr(R"("state":"stopped")"));
  EXPECT_FALSE(std::filesystem::exists(host_.socket("vda")));
  EXPECT_EQ(host_.workers(), before);
  expect_serves(innocent->queue());
  EXPECT_EQ(ask({"start", "vda"}).exit_code, 0);
  expect_serves(host_.connect()->queue(), 512);
}

TEST_F(Operator, DrainedDeviceServesItsVmmAndNobodyAfterIt) {
  serve_two();
  auto vda = host_.connect();
  EXPECT_EQ(ask({"drain", "vda"}).exit_code, 0);
  EXPECT_THAT(ask({"list", "vda", "--json"}).text, HasSubstr(R"("state":"draining")"));
  EXPECT_FALSE(std::filesystem::exists(host_.socket("vda")));
  expect_serves(vda->queue());
  vda.reset();
  expect_soon({"list", "vda", "--json"}, R"("state":"stopped")");
  EXPECT_TRUE(host_.broker().running());
}

TEST_F(Operator, DeviceInUseIsOnlyRemovedByForce) {
  serve_two();
  const auto vda = host_.connect();
  const Ran refused = ask({"remove", "vda"});
  EXPECT_EQ(refused.exit_code, 1);
  EXPECT_THAT(refused.text, AllOf(HasSubstr("is in use by pid " + std::to_string(::getpid())),
                                  HasSubstr("--force")));
  expect_serves(vda->queue());
  EXPECT_EQ(ask({"remove", "vda", "--force"}).exit_code, 0);
  EXPECT_THAT(ask({"list"}).text, Not(HasSubstr("vda")));
  EXPECT_TRUE(host_.workers().empty());
}

TEST_F(Operator, BrokerWithoutDevicesGoesOn) {
  serve({{.name = "vda"}});
  EXPECT_EQ(ask({"remove", "vda"}).exit_code, 0);
  EXPECT_THAT(ask({"status", "--json"}).text, HasSubstr(R"("devices":0)"));
}

TEST_F(Operator, ResizeSaysWhatADiskHadAndHas) {
  serve_two();
  std::filesystem::resize_file(host_.image("vda"), 16 << 20);
  // The broker may have looked by itself just before.
  const Ran ran = ask({"resize", "vda", "--json"});
  EXPECT_EQ(ran.exit_code, 0);
  EXPECT_THAT(ran.text, HasSubstr(R"("now_bytes":16777216)"));
}

TEST_F(Operator, PostureNamesEveryProcessOfADevice) {
  serve_two();
  const auto vda = host_.connect();
  const Ran ran = ask({"posture", "vda", "--json"});
  EXPECT_EQ(ran.exit_code, 0) << ran.text;
  for (const pid_t pid : host_.workers()) {
    EXPECT_THAT(ran.text, HasSubstr("\"pid\":" + std::to_string(pid) + ",\"role\":\"worker\""));
  }
  EXPECT_THAT(ran.text, HasSubstr(R"({"name":"seccomp","state":"enforced")"));
  EXPECT_THAT(ask({"posture"}).text, HasSubstr("broker"));
}

TEST_F(Operator, StopAllEndsTheBroker) {
  serve_two();
  const auto vda = host_.connect();
  EXPECT_EQ(ask({"stop", "--all"}).exit_code, 0);
  EXPECT_EQ(host_.broker().wait_exit(), 0);
  EXPECT_FALSE(std::filesystem::exists(control()));
}

TEST_F(Operator, WithoutABrokerTheClientSaysWhatToDo) {
  const Ran ran = ask({"status"});
  EXPECT_EQ(ran.exit_code, 1);
  EXPECT_THAT(ran.text, HasSubstr("start bulkhead serve, or give its --control-socket=PATH"));
}

// --- who may -------------------------------------------------------------------------------------

TEST_F(Operator, ChangesAndRefusalsAreInTheAuditTrail) {
  const fakes::TempDir logs(BULKHEAD_TEST_IMAGES);
  serve({{.name = "vda"}}, {"--audit-log=" + logs.file("audit.log"), "--audit=required"});
  EXPECT_EQ(ask({"list"}).exit_code, 0);
  EXPECT_NE(ask({"list"}, true).exit_code, 0);
  EXPECT_EQ(ask({"stop", "vda"}).exit_code, 0);
  EXPECT_EQ(ask({"stop", "--all"}).exit_code, 0);
  EXPECT_EQ(host_.broker().wait_exit(), 0);
  std::vector<std::string> found;
  std::ifstream log(logs.file("audit.log"));
  for (std::string line; std::getline(log, line);) {
    if (line.find("\"event\":\"operator-") != std::string::npos) found.push_back(line);
  }
  // Whoever only looks leaves no trace.
  EXPECT_THAT(found,
              ElementsAre(AllOf(HasSubstr("operator-refused"), HasSubstr("\"uid\":65534")),
                          AllOf(HasSubstr("operator-request"), HasSubstr("\"device\":\"vda\""),
                                HasSubstr("\"command\":\"stop\"")),
                          AllOf(HasSubstr("operator-request"),
                                HasSubstr("\"command\":\"stop the broker\""))));
}

TEST_F(Operator, OtherUsersAreToldThatTheyMayNot) {
  serve_two();
  const Ran ran = ask({"status"}, true);
  EXPECT_EQ(ran.exit_code, 1);
  EXPECT_THAT(ran.text, HasSubstr("refused: this user may neither look nor change anything"));
  EXPECT_NE(host_.broker().wait_for_line({"operator's socket: pid", "uid 65534", "refused"}), "");
}

TEST_F(Operator, MembersOfTheReadGroupMayOnlyLook) {
  serve({{.name = "vda"}}, {"--control-read-group=65534"});
  EXPECT_THAT(ask({"status", "--json"}, true).text, HasSubstr(R"("may_change":false)"));
  const Ran ran = ask({"remove", "vda"}, true);
  EXPECT_EQ(ran.exit_code, 1);
  EXPECT_THAT(ran.text, HasSubstr("this user may look, and not change anything"));
  EXPECT_THAT(ask({"list"}).text, HasSubstr("vda"));
}

TEST_F(Operator, MembersOfTheGroupMayChange) {
  serve({{.name = "vda"}}, {"--control-group=65534"});
  EXPECT_EQ(ask({"remove", "vda"}, true).exit_code, 0);
}

TEST_F(Operator, AGroupThatDoesNotExistIsAnError) {
  host_.run({"serve", "--config=/dev/null", "--control-socket=" + control(),
             "--control-group=no-such-group-here"});
  EXPECT_NE(host_.broker().wait_exit(), 0);
}

// --- hostile clients -----------------------------------------------------------------------------

TEST_F(Operator, ClientThatAsksAndNeverReadsIsDropped) {
  serve_two();
  RawOperator flood(control());
  while (flood.send_message(control::AskStatus{})) {
  }
  EXPECT_NE(host_.broker().wait_for_line({"dropped: it asks and does not read"}), "");
  EXPECT_EQ(ask({"status"}).exit_code, 0);
}

TEST_F(Operator, WhatIsNoMessageIsAnsweredOnceAndEndsTheConnection) {
  serve_two();
  RawOperator hostile(control());
  const std::vector<std::byte> garbage(777, std::byte{0x41});
  EXPECT_TRUE(hostile.send(garbage));
  const auto told = hostile.receive_as<control::Told>();
  ASSERT_TRUE(told);
  EXPECT_EQ(told->outcome, static_cast<std::uint32_t>(control::Outcome::kMalformed));
  EXPECT_TRUE(hostile.hung_up());
  EXPECT_EQ(ask({"status"}).exit_code, 0);
}

TEST_F(Operator, PacketLargerThanAnyMessageEndsTheConnection) {
  serve_two();
  RawOperator hostile(control());
  EXPECT_TRUE(hostile.send(std::vector<std::byte>(control::kMessageBytesMax + 1)));
  const auto told = hostile.receive_as<control::Told>();
  ASSERT_TRUE(told);
  EXPECT_EQ(told->outcome, static_cast<std::uint32_t>(control::Outcome::kMalformed));
  EXPECT_TRUE(hostile.hung_up());
}

TEST_F(Operator, MoreClientsThanThereIsRoomForAreTurnedAway) {
  serve_two();
  std::list<RawOperator> clients;
  for (std::size_t i = 0; i < 32; ++i) {
    clients.emplace_back(control());
    EXPECT_TRUE(clients.back().send_message(control::AskStatus{}));
    EXPECT_TRUE(clients.back().receive_as<control::StatusReply>());
  }
  const Ran refused = ask({"status"});
  EXPECT_EQ(refused.exit_code, 1);
  EXPECT_THAT(refused.text, HasSubstr("too many clients are connected"));
  clients.pop_front();
  expect_soon({"status"}, "in use");
}

TEST_F(Operator, ClientThatLeavesWhileItWaitsIsForgotten) {
  serve_two();
  auto vda = host_.connect();
  {
    RawOperator impatient(control());
    control::Order order;
    order.act = static_cast<std::uint32_t>(control::Act::kRemove);
    order.force = 1;
    control::put_text(order.name, "vda");
    EXPECT_TRUE(impatient.send_message(order));
  }
  EXPECT_NE(host_.broker().wait_for_line({"vda: removed"}), "");
  EXPECT_EQ(ask({"status"}).exit_code, 0);
}

}  // namespace
}  // namespace integration
