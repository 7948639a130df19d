// tests/integration/operator_add_test.cpp: devices that come while a broker serves others.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/fakes/failure.h"
#include "tests/integration/operated.h"

#include <sys/socket.h>
#include <sys/un.h>

#include <algorithm>
#include <filesystem>

namespace integration {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

class OperatorAdd : public OperatedTest {
 protected:
  OperatorAdd() { serve({{.name = "vda"}}); }

  // The command that adds a disk of this name.
  [[nodiscard]] std::vector<std::string> add(const std::string& name,
                                             const std::vector<std::string>& more = {}) const {
    make_image(host_.image(name), 4 << 20);
    std::vector<std::string> arguments = {"add",
                                          "blk",
                                          "--name=" + name,
                                          "--socket-path=" + host_.socket(name),
                                          "--blk-file=" + host_.image(name),
                                          "--engine=fallback"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return arguments;
  }
};

TEST_F(OperatorAdd, DiskIsServedAtOnceAndOthersGoOn) {
  const auto innocent = host_.connect();
  const auto before = host_.workers();
  const Ran ran = ask(add("vdb", {"--tenant=blue", "--json"}));
  EXPECT_EQ(ran.exit_code, 0) << ran.text;
  EXPECT_THAT(ran.text, HasSubstr(R"("command":"add","name":"vdb","done":true)"));
  EXPECT_EQ(host_.workers(), before);
  expect_serves(host_.connect({}, "vdb")->queue());
  expect_serves(innocent->queue());
  EXPECT_THAT(ask({"list", "vdb", "--json"}).text,
              AllOf(HasSubstr(R"("origin":"operator")"), HasSubstr(R"("tenant":"blue")")));
}

TEST_F(OperatorAdd, ComesBackAfterItWasRemoved) {
  for (int round = 0; round < 3; ++round) {
    ASSERT_EQ(ask(add("vdb")).exit_code, 0);
    expect_serves(host_.connect({}, "vdb")->queue());
    expect_soon({"list", "vdb", "--json"}, R"("in_use":false)");
    ASSERT_EQ(ask({"remove", "vdb"}).exit_code, 0);
  }
}

TEST_F(OperatorAdd, RefusesWhatAnotherDeviceHas) {
  Ran ran = ask(add("vda"));
  EXPECT_EQ(ran.exit_code, 1);
  EXPECT_THAT(ran.text, HasSubstr("device 'vda' has the name 'vda' already"));
  ran = ask({"add", "blk", "--name=x", "--socket-path=" + host_.socket("vda"),
             "--blk-file=" + host_.image("x")});
  EXPECT_THAT(ran.text, HasSubstr("has the socket_path"));
  ran = ask({"add", "blk", "--name=x", "--socket-path=" + host_.socket("x"),
             "--blk-file=" + host_.image("vda")});
  EXPECT_THAT(ran.text, HasSubstr("has the blk_file"));
}

TEST_F(OperatorAdd, SaysWhyADiskCannotBeOpenedAndLeavesNothing) {
  const std::vector<std::string> command = {"add", "blk", "--name=x",
                                            "--socket-path=" + host_.socket("x"),
                                            "--blk-file=" + host_.file("nothing")};
  EXPECT_THAT(ask(command).text, HasSubstr("does not exist; check --blk-file"));
  EXPECT_THAT(ask({"list"}).text, Not(HasSubstr("x.sock")));
  make_image(host_.file("nothing"), 1 << 20);
  EXPECT_EQ(ask(command).exit_code, 0);
}

TEST_F(OperatorAdd, ReplacesADeviceThatNobodyUses) {
  EXPECT_EQ(ask(add("vda", {"--replace", "--read-only"})).exit_code, 0);
  EXPECT_THAT(ask({"list", "vda", "--json"}).text, HasSubstr(R"("read_only":true)"));
}

TEST_F(OperatorAdd, ReplacesADeviceInUseOnlyByForce) {
  const auto vda = host_.connect();
  const Ran refused = ask(add("vda", {"--replace", "--read-only"}));
  EXPECT_EQ(refused.exit_code, 1);
  EXPECT_THAT(refused.text, HasSubstr("is in use by pid"));
  EXPECT_EQ(ask(add("vda", {"--replace", "--read-only", "--force"})).exit_code, 0);
  EXPECT_THAT(ask({"list", "vda", "--json"}).text, HasSubstr(R"("read_only":true)"));
}

TEST_F(OperatorAdd, OldDeviceIsServedAgainWhereTheNewOneCannotBe) {
  const Ran ran = ask({"add", "blk", "--name=vda", "--socket-path=" + host_.socket("vda"),
                       "--blk-file=" + host_.file("nothing"), "--replace"});
  EXPECT_EQ(ran.exit_code, 1);
  EXPECT_THAT(ran.text, HasSubstr("it is served as before"));
  expect_serves(host_.connect()->queue());
}

// A socket that its manager has opened: the broker could be unable to make it.
TEST_F(OperatorAdd, TakesASocketThatTheClientHasOpened) {
  common::Fd listener(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::ranges::copy(host_.socket("vdb"), address.sun_path);
  fakes::require_call(::bind(listener.ref().number, reinterpret_cast<const sockaddr*>(&address),
                             sizeof(address)) == 0 &&
                          ::listen(listener.ref().number, 4) == 0,
                      "listen");
  make_image(host_.image("vdb"), 4 << 20);
  fakes::BrokerProcess client(
      {.program = BULKHEAD_PROGRAM,
       .arguments = {"add", "blk", "--name=vdb", "--fd=3", "--blk-file=" + host_.image("vdb"),
                     "--engine=fallback", "--control-socket=" + control()},
       .inherit = {listener.ref()},
       .notify = false});
  EXPECT_EQ(client.wait_exit(), 0) << client.log();
  listener.reset();
  expect_serves(host_.connect({}, "vdb")->queue());
  EXPECT_EQ(ask({"stop", "vdb"}).exit_code, 0);
  EXPECT_THAT(ask({"start", "vdb"}).text, HasSubstr("was handed its socket or tap"));
}

// --- across a restart of the broker --------------------------------------------------------------

class OperatorState : public OperatedTest {
 protected:
  void serve_with_state() {
    std::filesystem::create_directories(host_.file("state"));
    serve({{.name = "vda"}}, {"--state-dir=" + host_.file("state")});
  }
  void restart() {
    EXPECT_EQ(ask({"stop", "--all"}).exit_code, 0);
    EXPECT_EQ(host_.broker().wait_exit(), 0);
    serve_with_state();
  }
  void add(const std::string& name) {
    make_image(host_.image(name), 4 << 20);
    EXPECT_EQ(ask({"add", "blk", "--name=" + name, "--socket-path=" + host_.socket(name),
                   "--blk-file=" + host_.image(name), "--engine=fallback"})
                  .exit_code,
              0);
  }
};

TEST_F(OperatorState, AddedDevicesAreServedAgainAfterARestart) {
  serve_with_state();
  add("vdb");
  add("vdc");
  EXPECT_EQ(ask({"remove", "vdc"}).exit_code, 0);
  restart();
  expect_serves(host_.connect({}, "vdb")->queue());
  EXPECT_THAT(ask({"list", "--json"}).text,
              AllOf(HasSubstr(R"("name":"vdb","type":"blk","state":"serving","origin":"operator")"),
                    Not(HasSubstr("vdc"))));
}

TEST_F(OperatorState, DeviceWhoseImageIsGoneKeepsNobodyFromBeingServed) {
  serve_with_state();
  add("vdb");
  std::filesystem::remove(host_.image("vdb"));
  restart();
  EXPECT_NE(host_.broker().wait_for_line({"vdb", "cannot be served any more"}), "");
  expect_serves(host_.connect()->queue());
}

TEST_F(OperatorState, WhatWasStoppedAndDrainedStaysSoAfterARestart) {
  serve_with_state();
  add("vdb");
  add("vdc");
  const auto last = host_.connect({}, "vdb");
  EXPECT_EQ(ask({"drain", "vdb"}).exit_code, 0);
  EXPECT_EQ(ask({"stop", "vda"}).exit_code, 0);
  for (int round = 0; round < 2; ++round) {
    restart();
    EXPECT_THAT(ask({"list", "vda", "--json"}).text, HasSubstr(R"("state":"stopped")"));
    EXPECT_THAT(ask({"list", "vdb", "--json"}).text, HasSubstr(R"("state":"stopped")"));
    expect_serves(host_.connect({}, "vdc")->queue());
  }
  EXPECT_EQ(ask({"start", "vda"}).exit_code, 0);
  EXPECT_EQ(ask({"start", "vdb"}).exit_code, 0);
  restart();
  expect_serves(host_.connect({}, "vda")->queue());
  expect_serves(host_.connect({}, "vdb")->queue());
}

TEST_F(OperatorState, WhatWasStoppedAndRemovedIsServedWhenItIsAddedAgain) {
  serve_with_state();
  add("vdb");
  EXPECT_EQ(ask({"stop", "vdb"}).exit_code, 0);
  EXPECT_EQ(ask({"remove", "vdb"}).exit_code, 0);
  add("vdb");
  restart();
  expect_serves(host_.connect({}, "vdb")->queue());
}

TEST_F(OperatorState, WhatCannotBeKeptIsSaid) {
  serve({{.name = "vda"}}, {"--state-dir=/proc/no-such-directory"});
  make_image(host_.image("vdb"), 4 << 20);
  const Ran ran = ask({"add", "blk", "--name=vdb", "--socket-path=" + host_.socket("vdb"),
                       "--blk-file=" + host_.image("vdb")});
  EXPECT_EQ(ran.exit_code, 1);
  EXPECT_THAT(ran.text, HasSubstr("it was done, but will not outlast the broker"));
}

}  // namespace
}  // namespace integration
