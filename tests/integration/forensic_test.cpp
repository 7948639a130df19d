// tests/integration/forensic_test.cpp: with --forensic a process that does what its jail forbids is
// stopped by the kernel, written down by the broker with the arguments, and killed; and what its
// jail allows is the same as without.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/syscall.h>

#include <memory>
#include <string>
#include <vector>

#include "tests/fakes/hijack.h"
#include "tests/fakes/process.h"
#include "tests/integration/host.h"

namespace integration {
namespace {

using fakes::BlkClient;
using testing::IsEmpty;
using testing::Not;
using testing::SizeIs;

class Forensic : public EngineTest {
 protected:
  void start(std::vector<std::string> options = {}) {
    options.insert(options.end(), {"--forensic=on", "--log-level=info"});
    host_.serve({.options = std::move(options)});
    client_ = host_.connect();
    expect_serves(client_->queue());
  }
  // It sleeps, so that it stands right behind a system call.
  void hijack(pid_t victim, long system_call) {
    fakes::make_it_call(victim, system_call);
    ASSERT_TRUE(fakes::wait_gone(victim));
  }
  [[nodiscard]] std::string wait_for(const std::vector<std::string>& words) {
    return host_.broker().wait_for_line(words);
  }
  std::unique_ptr<BlkClient> client_;
};
BULKHEAD_FOR_BOTH_ENGINES(Forensic);

TEST_P(Forensic, WorkerIsKilledAndItsArgumentsAreToldAndItIsNotReplaced) {
  start();
  ASSERT_THAT(host_.workers(), SizeIs(1));
  hijack(host_.workers().at(0), SYS_socket);
  EXPECT_THAT(wait_for({"worker vda/0", "killed by seccomp: system call socket at 0x",
                        ", with arguments 0x0 0x0 0x0 "}),
              Not(IsEmpty()));
  EXPECT_THAT(wait_for({"not served any more", "--on-worker-violation"}), Not(IsEmpty()));
  EXPECT_TRUE(client_->queue().error_signalled());
  EXPECT_THAT(host_.workers(), IsEmpty());
}

TEST_P(Forensic, WorkerIsReplacedWhereTheOperatorWantsThat) {
  start({"--on-worker-violation=restart"});
  hijack(host_.workers().at(0), SYS_getppid);
  EXPECT_THAT(wait_for({"queue 0 is served again"}), Not(IsEmpty()));
  expect_serves(client_->queue());
  // The next one is watched as well.
  ASSERT_THAT(host_.workers(), SizeIs(1));
  hijack(host_.workers().at(0), SYS_getsid);
  EXPECT_THAT(wait_for({"system call getsid at 0x", "with arguments"}), Not(IsEmpty()));
}

TEST_P(Forensic, SessionIsKilledAndItsArgumentsAreTold) {
  start();
  hijack(host_.sessions().at(0), SYS_execve);
  EXPECT_THAT(wait_for({"session of", "killed by seccomp: system call execve at 0x",
                        ", with arguments 0x0 0x0 0x0 "}),
              Not(IsEmpty()));
  EXPECT_TRUE(client_->vhost().hung_up());
}

// Nobody asks the broker whether it may install one more filter: that was for the one moment.
TEST_P(Forensic, WhatHandingOverNeededIsDeathAfterwards) {
  start();
  const pid_t worker = host_.workers().at(0);
  hijack(worker, SYS_seccomp);
  const std::string line = wait_for({"worker vda/0", "killed by seccomp"});
  EXPECT_THAT(line, Not(IsEmpty()));
  EXPECT_THAT(line, Not(testing::HasSubstr("with arguments"))) << "the kernel had to do it";
}

// What the jail allows is what it allows without: a worker that nobody hijacks never waits for us.
TEST_P(Forensic, BrokerThatIsKilledTakesItsChildrenAlong) {
  start();
  const std::vector<pid_t> tree = fakes::tree_of(host_.broker().pid());
  host_.broker().signal(SIGKILL);
  (void)host_.broker().wait_exit();
  for (const pid_t pid : tree) EXPECT_TRUE(fakes::wait_gone(pid));
}

}  // namespace
}  // namespace integration
