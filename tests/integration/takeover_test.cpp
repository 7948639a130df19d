// The broker dies, or another one takes its place, while a guest works: no I/O stops, and what an
// earlier broker has started goes on under the next one.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <future>
#include <memory>
#include <string>
#include <vector>

#include "tests/fakes/process.h"
#include "tests/integration/host.h"
#include "tests/integration/verified_load.h"

namespace integration {
namespace {

using fakes::BlkClient;
using fakes::VhostRequest;
using testing::IsEmpty;
using testing::Not;
using testing::SizeIs;

class Takeover : public EngineTest {
 protected:
  void start(const BlkClient::Options& options = {}) {
    host_.serve();
    client_ = host_.connect(options);
    note_children();
  }
  void note_children() {
    for (const pid_t pid : host_.workers()) born_.push_back(pid);
    for (const pid_t pid : host_.sessions()) born_.push_back(pid);
    for (const pid_t pid : host_.broker().children_named("keeper")) born_.push_back(pid);
  }
  fakes::BlkQueueDriver& queue(std::uint32_t index = 0) { return client_->queue(index); }
  void kill_broker() {
    host_.broker().signal(SIGKILL);
    EXPECT_EQ(host_.broker().wait_exit(), 128 + SIGKILL);
  }
  void start_again() {
    host_.serve({.file = host_.image()});
    expect_adopted();
  }
  void expect_adopted() {
    EXPECT_THAT(host_.broker().wait_for_line({"goes on serving"}), Not(IsEmpty()))
        << host_.broker().log();
  }
  void take_over() {
    host_.take_over({.file = host_.image()});
    expect_adopted();
  }
  // The last broker is told to stop, and nothing is left of any.
  void stop_all() {
    note_children();
    host_.broker().signal(SIGTERM);
    EXPECT_EQ(host_.broker().wait_exit(), 0);
    for (const pid_t pid : born_) EXPECT_TRUE(fakes::wait_gone(pid)) << fakes::command_line_of(pid);
    EXPECT_NE(::access((host_.socket() + ".takeover").c_str(), F_OK), 0);
    EXPECT_NE(::access(host_.socket().c_str(), F_OK), 0);
  }
  [[nodiscard]] std::vector<pid_t> first(const char* what) const {
    std::vector<pid_t> found;
    for (const pid_t pid : born_) {
      if (fakes::command_line_of(pid).find(what) != std::string::npos) found.push_back(pid);
    }
    return found;
  }

  std::vector<pid_t> born_;
  std::unique_ptr<BlkClient> client_;
};
BULKHEAD_FOR_BOTH_ENGINES(Takeover);

TEST_P(Takeover, BrokerIsKilledUnderLoadAndTheGuestGoesOn) {
  start({.queues = 2});
  VerifiedLoad load(queue(0), {.depth = 8});
  VerifiedLoad other(queue(1), {.first_sector = 4096});
  load.expect_progress();
  kill_broker();
  load.expect_progress(200);
  start_again();
  load.expect_progress();
  other.expect_progress();
  load.stop();
  other.stop();
  EXPECT_THAT(first("worker"), SizeIs(2));  // The very same ones.
  stop_all();
}

TEST_P(Takeover, WorkerThatDiesWithoutABrokerIsReplacedByTheNextOne) {
  start({.queues = 2});
  VerifiedLoad load(queue(0), {.depth = 8});
  VerifiedLoad other(queue(1), {.first_sector = 4096});
  load.expect_progress();
  const std::vector<pid_t> victims = host_.broker().children_named("vda/0");
  ASSERT_THAT(victims, SizeIs(1));
  kill_broker();
  ASSERT_EQ(::kill(victims[0], SIGKILL), 0);
  ASSERT_TRUE(fakes::wait_gone(victims[0]));
  other.expect_progress();
  start_again();
  load.expect_progress();
  load.stop();
  other.stop();
  stop_all();
}

TEST_P(Takeover, AdoptedWorkersAreStoppedAndReplacedAsTheFrontEndAsks) {
  start();
  VerifiedLoad load(queue(), {.depth = 8});
  kill_broker();
  start_again();
  load.expect_progress();
  client_->vhost().set_vring_fd(VhostRequest::kSetVringCall, 0, queue().doorbell().replace());
  load.expect_progress();
  const std::uint32_t base = client_->stop_ring(0);
  EXPECT_EQ(base, queue().driver().used_idx());
  client_->restart_ring(0, static_cast<std::uint16_t>(base));
  load.expect_progress();
  load.stop();
  stop_all();
}

TEST_P(Takeover, WhatAFrontEndAsksWithoutABrokerIsDoneByTheNextOne) {
  start();
  VerifiedLoad load(queue(), {.depth = 8});
  load.expect_progress();
  kill_broker();
  // Not answered: the session waits for a broker.
  std::future<std::uint32_t> stopped =
      std::async(std::launch::async, [this] { return client_->stop_ring(0); });
  host_.serve({.file = host_.image()});
  const std::uint32_t base = stopped.get();
  EXPECT_EQ(base, queue().driver().used_idx());
  client_->restart_ring(0, static_cast<std::uint16_t>(base));
  load.expect_progress();
  load.stop();
  stop_all();
}

TEST_P(Takeover, BrokerIsKilledAgainAndAgain) {
  start();
  VerifiedLoad load(queue(), {.depth = 8});
  for (int round = 0; round < 6; ++round) {
    load.expect_progress(20);
    if (round % 2 == 1) {
      for (const pid_t pid : host_.workers()) (void)::kill(pid, SIGKILL);
    }
    kill_broker();
    start_again();
    note_children();
  }
  load.expect_progress();
  load.stop();
  stop_all();
}

TEST_P(Takeover, VmmThatHangsUpWithoutABrokerEndsEverything) {
  start({.queues = 2});
  expect_serves(queue());
  kill_broker();
  client_.reset();
  for (const pid_t pid : born_) EXPECT_TRUE(fakes::wait_gone(pid)) << fakes::command_line_of(pid);
  born_.clear();
  host_.serve({.file = host_.image()});  // The disk's lock is free.
  client_ = host_.connect();
  expect_serves(queue());
  stop_all();
}

TEST_P(Takeover, KeeperAndBrokerThatDieTogetherLeaveNothing) {
  start({.queues = 2});
  VerifiedLoad load(queue(0), {.depth = 8});
  load.expect_progress();
  const std::vector<pid_t> keepers = host_.broker().children_named("keeper");
  ASSERT_THAT(keepers, SizeIs(1));
  host_.broker().signal(SIGSTOP);  // It must not start another one.
  ASSERT_EQ(::kill(keepers[0], SIGKILL), 0);
  kill_broker();
  for (const pid_t pid : born_) EXPECT_TRUE(fakes::wait_gone(pid)) << fakes::command_line_of(pid);
  born_.clear();
  ASSERT_TRUE(client_->vhost().hung_up());
  host_.serve({.file = host_.image()});  // The disk's lock is free.
  ASSERT_TRUE(client_->reconnect(host_.socket()));
  load.expect_progress();
  load.stop();
  stop_all();
}

TEST_P(Takeover, SessionThatDiesWithoutABrokerLetsTheVmmConnectAgain) {
  start();
  VerifiedLoad load(queue(), {.depth = 8});
  load.expect_progress();
  const std::vector<pid_t> sessions = host_.sessions();
  ASSERT_THAT(sessions, SizeIs(1));
  kill_broker();
  ASSERT_EQ(::kill(sessions[0], SIGKILL), 0);
  ASSERT_TRUE(client_->vhost().hung_up());
  for (const pid_t pid : born_) EXPECT_TRUE(fakes::wait_gone(pid)) << fakes::command_line_of(pid);
  born_.clear();
  host_.serve({.file = host_.image()});
  ASSERT_TRUE(client_->reconnect(host_.socket()));
  load.expect_progress();
  load.stop();
  stop_all();
}

TEST_P(Takeover, VmmConnectsAgainToABrokerThatHasAdopted) {
  start();
  expect_serves(queue());
  kill_broker();
  start_again();
  expect_serves(queue());
  client_.reset();
  client_ = host_.connect();
  expect_serves(queue());
  stop_all();
}

TEST_P(Takeover, VmmThatConnectsWithoutABrokerWaitsForTheNextOne) {
  host_.serve_all({{.name = "vda"}, {.name = "vdb"}});
  client_ = host_.connect();
  expect_serves(queue());
  kill_broker();
  auto vmm = std::make_unique<fakes::VhostFrontend>(host_.socket("vdb"));  // In the backlog.
  host_.serve_again();
  expect_adopted();
  EXPECT_NE(vmm->get_features(), 0U);
  expect_serves(queue());
  vmm.reset();
  stop_all();
}

TEST_P(Takeover, TakesOverUnderLoadTwentyTimes) {
  start({.queues = 2});
  VerifiedLoad load(queue(0), {.depth = 8});
  VerifiedLoad other(queue(1), {.first_sector = 4096});
  for (int round = 0; round < 20; ++round) {
    load.expect_progress(10);
    take_over();
  }
  load.expect_progress();
  other.expect_progress();
  load.stop();
  other.stop();
  EXPECT_THAT(first("worker"), SizeIs(2));
  stop_all();
}

TEST_P(Takeover, TakesOverWhileWorkersStartAndStop) {
  start();
  VerifiedLoad load(queue(), {.depth = 8});
  for (int round = 0; round < 8; ++round) {
    for (const pid_t pid : host_.workers()) (void)::kill(pid, SIGKILL);
    host_.take_over({.file = host_.image()});
    note_children();
    client_->vhost().set_vring_fd(VhostRequest::kSetVringCall, 0, queue().doorbell().replace());
    load.expect_progress(10);
  }
  load.stop();
  stop_all();
}

TEST_P(Takeover, TakesOverWhileNobodyIsConnectedAndDescriptorsDoNotAddUp) {
  host_.serve();
  client_ = host_.connect();  // By then there is a keeper.
  client_.reset();
  const std::vector<pid_t> keepers = host_.broker().children_named("keeper");
  ASSERT_THAT(keepers, SizeIs(1));
  const pid_t keeper = keepers[0];
  note_children();
  host_.take_over({.file = host_.image()});
  client_ = host_.connect();
  expect_serves(queue());
  client_.reset();
  host_.take_over({.file = host_.image()});
  const auto held = [&] {
    return fakes::descriptors_of(host_.broker().pid()).size() +
           fakes::descriptors_of(keeper).size();
  };
  const std::size_t before = held();
  for (int round = 0; round < 50; ++round) host_.take_over({.file = host_.image()});
  EXPECT_LE(held(), before + 10);  // Some come and go.
  client_ = host_.connect();
  expect_serves(queue());
  stop_all();
}

TEST_P(Takeover, WorkersAreReplacedUnderLoadOneAfterTheOther) {
  start({.queues = 3});
  VerifiedLoad load(queue(0), {.depth = 8});
  VerifiedLoad other(queue(2), {.first_sector = 4096});
  load.expect_progress();
  take_over();
  host_.run_beside({"upgrade-workers", "--pid=" + std::to_string(host_.broker().pid())});
  EXPECT_EQ(host_.beside().wait_exit(), 0) << host_.beside().log();
  for (const pid_t pid : first("worker")) EXPECT_TRUE(fakes::wait_gone(pid));
  load.expect_progress();
  other.expect_progress();
  load.stop();
  other.stop();
  EXPECT_THAT(host_.workers(), SizeIs(3));
  stop_all();
}

TEST_P(Takeover, OnlyABrokerIsToldToReplaceItsWorkers) {
  host_.run_beside({"upgrade-workers", "--pid=" + std::to_string(::getpid())});
  EXPECT_EQ(host_.beside().wait_exit(), 1);
  EXPECT_THAT(host_.beside().log(), testing::HasSubstr("is no broker"));
}

TEST_P(Takeover, SecondBrokerIsRefusedWhileTheFirstOneServes) {
  start();
  host_.run_beside(host_.blk_arguments({.file = host_.image()}));
  EXPECT_EQ(host_.beside().wait_exit(), 1);
  EXPECT_THAT(host_.beside().log(), testing::HasSubstr("bulkhead takeover"));
  expect_serves(queue());
}

TEST_P(Takeover, NewBrokerThatCannotStartLeavesTheOldOneAlone) {
  start();
  std::vector<std::string> arguments = host_.blk_arguments({.file = host_.image()});
  arguments.insert(arguments.begin(), "takeover");
  arguments.push_back("--read-only");
  host_.run_beside(arguments);
  EXPECT_EQ(host_.beside().wait_exit(), 1);
  EXPECT_THAT(host_.beside().log(), testing::HasSubstr("another --read-only"));
  expect_serves(queue());
  stop_all();
}

TEST_P(Takeover, StrangerIsRefused) {
  start();
  const std::string path = host_.socket() + ".takeover";
  struct stat status {};
  ASSERT_EQ(::stat(path.c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777, 0600U);
  // Even where somebody has opened the file to everybody, the keeper asks who it is.
  ASSERT_EQ(::chmod(path.c_str(), 0666), 0);
  const pid_t stranger = ::fork();
  if (stranger == 0) {
    if (::setgid(65534) != 0 || ::setuid(65534) != 0) ::_exit(1);
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    path.copy(address.sun_path, sizeof(address.sun_path) - 1);
    const int fd = ::socket(AF_UNIX, SOCK_SEQPACKET, 0);
    if (::connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0) {
      ::_exit(2);
    }
    char byte = 0;
    ::_exit(::recv(fd, &byte, 1, 0) == 0 ? 42 : 3);  // Hung up on, without a word.
  }
  int result = 0;
  ASSERT_EQ(::waitpid(stranger, &result, 0), stranger);
  EXPECT_TRUE(WIFEXITED(result));
  EXPECT_EQ(WEXITSTATUS(result), 42);
  expect_serves(queue());
  stop_all();
}

TEST_P(Takeover, BrokerDiesWhileItReplacesWorkersAndRingsAreStopped) {
  start({.queues = 4});
  std::vector<std::unique_ptr<VerifiedLoad>> loads;
  for (std::uint32_t i = 0; i < 4; ++i) {
    loads.push_back(std::make_unique<VerifiedLoad>(
        queue(i), VerifiedLoad::Plan{.first_sector = i * 1024, .depth = 8}));
  }
  for (int round = 0; round < 5; ++round) {
    SCOPED_TRACE(round);
    for (auto& load : loads) load->expect_progress(20);
    for (const pid_t pid : host_.workers()) ASSERT_EQ(::kill(pid, SIGKILL), 0);
    kill_broker();
    start_again();
    note_children();
    for (std::uint32_t i = 0; i < 4; ++i) {
      const std::uint32_t base = client_->stop_ring(i);
      EXPECT_EQ(base, queue(i).driver().used_idx());
      client_->restart_ring(i, static_cast<std::uint16_t>(base));
    }
  }
  for (auto& load : loads) load->expect_progress();
  for (auto& load : loads) load->stop();
  stop_all();
}

TEST_P(Takeover, KeeperThatDiesIsReplaced) {
  start();
  VerifiedLoad load(queue(), {.depth = 8});
  const std::vector<pid_t> keepers = host_.broker().children_named("keeper");
  ASSERT_THAT(keepers, SizeIs(1));
  ASSERT_EQ(::kill(keepers[0], SIGKILL), 0);
  EXPECT_THAT(host_.broker().wait_for_line({"another one keeps"}), Not(IsEmpty()));
  note_children();
  kill_broker();
  load.expect_progress();
  start_again();
  load.expect_progress();
  load.stop();
  stop_all();
}

// It has been told of everything, and takes part in a takeover as the first one would have.
TEST_P(Takeover, KeeperThatReplacedAnotherKeepsForATakeover) {
  start();
  VerifiedLoad load(queue(), {.depth = 8});
  for (const char* what : {"first", "second"}) {
    SCOPED_TRACE(what);
    const std::vector<pid_t> keepers = first("keeper");  // The second time of an earlier broker.
    ASSERT_THAT(keepers, SizeIs(1));
    ASSERT_EQ(::kill(keepers[0], SIGKILL), 0);
    EXPECT_THAT(host_.broker().wait_for_line({"another one keeps"}), Not(IsEmpty()));
    note_children();
    take_over();
    load.expect_progress();
  }
  load.stop();
  stop_all();
}

TEST_P(Takeover, WithOrphansEndNothingOutlivesTheBroker) {
  host_.serve({.options = {"--orphans=end"}});
  client_ = host_.connect();
  expect_serves(queue());
  note_children();
  EXPECT_THAT(host_.broker().children_named("keeper"), IsEmpty());
  kill_broker();
  for (const pid_t pid : born_) EXPECT_TRUE(fakes::wait_gone(pid));
}

TEST_P(Takeover, BrokerThatIsAskedToLeaveLeavesEverything) {
  start();
  VerifiedLoad load(queue(), {.depth = 8});
  load.expect_progress();
  host_.broker().signal(SIGRTMIN + 1);
  EXPECT_EQ(host_.broker().wait_exit(), 75);
  load.expect_progress();
  start_again();
  load.expect_progress();
  load.stop();
  stop_all();
}

}  // namespace
}  // namespace integration
