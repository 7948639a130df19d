// Brokers, keepers, sessions and workers of different releases meet (tests/skew): those of the
// release before or after go on, and what is older ends, in words, while all else goes on.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <cstdio>
#include <fstream>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "tests/fakes/blk_client.h"
#include "tests/fakes/broker_process.h"
#include "tests/fakes/process.h"
#include "tests/fakes/temp_dir.h"
#include "tests/integration/image.h"
#include "tests/integration/verified_load.h"

namespace integration {
namespace {

using fakes::BlkClient;
using fakes::BrokerProcess;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;

constexpr const char* kOlder = BULKHEAD_SKEWED_PROGRAMS "/older/bulkhead";
constexpr const char* kNow = BULKHEAD_PROGRAM;
constexpr const char* kNewer = BULKHEAD_SKEWED_PROGRAMS "/newer/bulkhead";

struct Vm {
  Vm(const std::string& socket) : client(socket, {}), load(client.queue(), {.depth = 4}) {}
  BlkClient client;
  VerifiedLoad load;
};

class TakeoverSkew : public testing::Test {
 protected:
  void SetUp() override {
    std::ofstream config(config_);
    for (const char* name : {"vda", "vdb"}) {
      const std::string image = images_.file(std::string(name) + ".img");
      make_image(image, 4 << 20);
      config << "[[device]]\ntype = \"blk\"\nname = \"" << name << "\"\nsocket_path = \""
             << socket(name) << "\"\nblk_file = \"" << image << "\"\n";
    }
  }
  void TearDown() override {
    if (HasFailure() && broker_) std::printf("%s\n", broker_->log().c_str());
  }
  [[nodiscard]] std::string socket(const std::string& name) const {
    return sockets_.file(name + ".sock");
  }
  [[nodiscard]] std::unique_ptr<BrokerProcess> run(const char* program, bool takes_over) const {
    std::vector<std::string> arguments = {"serve", "--config=" + config_, "--control-socket=off",
                                          "--takeover-socket=" + sockets_.file("keeper")};
    if (takes_over) arguments.insert(arguments.begin(), "takeover");
    return std::make_unique<BrokerProcess>(
        BrokerProcess::Setup{.program = program, .arguments = arguments});
  }
  void start(const char* program) {
    broker_ = run(program, false);
    broker_->wait_ready();
  }
  void start_with_vm(const char* program) {
    start(program);
    vda_ = std::make_unique<Vm>(socket("vda"));
    vda_->load.expect_progress();
    note_children();
  }
  void note_children() {
    for (const char* what : {"worker", "session", "keeper"}) {
      for (const pid_t pid : broker_->children_named(what)) born_.insert(pid);
    }
  }
  void kill_broker() {
    broker_->signal(SIGKILL);
    EXPECT_EQ(broker_->wait_exit(), 128 + SIGKILL);
  }
  void take_over(const char* program) {
    auto next = run(program, true);
    next->wait_ready();
    EXPECT_EQ(broker_->wait_exit(), 0);
    broker_ = std::move(next);
  }
  // With what an earlier broker has started.
  void expect_goes_on() {
    EXPECT_NE(broker_->wait_for_line({"vda", "goes on serving"}), "");
    vda_->load.expect_progress();
    for (const pid_t pid : born_) EXPECT_EQ(::kill(pid, 0), 0);
  }
  // The session and a broker of another release understand each other.
  void expect_can_be_changed() {
    BlkClient& client = vda_->client;
    client.vhost().set_vring_fd(fakes::VhostRequest::kSetVringCall, 0,
                                client.queue().doorbell().replace());
    vda_->load.expect_progress();
    client.restart_ring(0, static_cast<std::uint16_t>(client.stop_ring(0)));
    vda_->load.expect_progress();
    for (const pid_t pid : broker_->children_named("worker-blk: vda")) ::kill(pid, SIGKILL);
    vda_->load.expect_progress();
    vda_->load.stop();
  }
  void stop_all() {
    note_children();
    broker_->signal(SIGTERM);
    EXPECT_EQ(broker_->wait_exit(), 0);
    for (const pid_t pid : born_) EXPECT_TRUE(fakes::wait_gone(pid)) << fakes::command_line_of(pid);
  }

  fakes::TempDir sockets_ = fakes::TempDir::for_sockets();
  fakes::TempDir images_{BULKHEAD_TEST_IMAGES};
  std::string config_ = images_.file("bulkhead.toml");
  std::unique_ptr<BrokerProcess> broker_;
  std::unique_ptr<Vm> vda_;
  std::set<pid_t> born_;
};

TEST_F(TakeoverSkew, WhatAnOlderBrokerLeavesGoesOnUnderThisOne) {
  start_with_vm(kOlder);
  kill_broker();
  start(kNow);
  expect_goes_on();
  expect_can_be_changed();
  stop_all();
}

TEST_F(TakeoverSkew, ThisOneTakesTheOlderOnesPlace) {
  start_with_vm(kOlder);
  take_over(kNow);
  expect_goes_on();
  take_over(kNow);
  expect_goes_on();
  expect_can_be_changed();
  stop_all();
}

TEST_F(TakeoverSkew, WhatANewerBrokerLeavesGoesOnUnderThisOne) {
  start_with_vm(kNewer);
  kill_broker();
  start(kNow);
  expect_goes_on();
  expect_can_be_changed();
  stop_all();
}

TEST_F(TakeoverSkew, ThisOneAndANewerOneTakeEachOthersPlaces) {
  start_with_vm(kNow);
  for (const char* program : {kNewer, kNow, kNewer}) {
    take_over(program);
    expect_goes_on();
  }
  expect_can_be_changed();
  stop_all();
}

TEST_F(TakeoverSkew, WhatIsOlderThanTheReleaseBeforeEndsInWordsAndTheOthersGoOn) {
  start_with_vm(kOlder);
  take_over(kNow);
  expect_goes_on();
  const std::set<pid_t> old = std::exchange(born_, {});
  Vm vdb(socket("vdb"));
  vdb.load.expect_progress();
  const std::vector<pid_t> young = broker_->children_named("vdb");
  EXPECT_THAT(young, Not(IsEmpty()));

  const auto refused = run(kNewer, true);
  EXPECT_EQ(refused->wait_exit(), 1);
  EXPECT_THAT(refused->log(), HasSubstr("a process that speaks version "));
  vda_->load.expect_progress();

  kill_broker();
  start(kNewer);
  EXPECT_NE(broker_->wait_for_line({"vda", "has ended", "a process that speaks version "}), "");
  vdb.load.expect_progress();
  for (const pid_t pid : young) EXPECT_EQ(::kill(pid, 0), 0);
  EXPECT_TRUE(vda_->client.vhost().hung_up());
  ASSERT_TRUE(vda_->client.reconnect(socket("vda")));
  vda_->load.expect_progress();
  vda_->load.stop();
  vdb.load.stop();
  stop_all();
}

}  // namespace
}  // namespace integration
