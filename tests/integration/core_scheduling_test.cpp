// Cookies of core scheduling: who gets which, on a host whose kernel has them (a fake: no kernel of
// Debian does), on one that refuses, and on this one.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <system_error>

#include "tests/fakes/core_scheduler.h"
#include "tests/integration/host.h"

namespace integration {
namespace {

using fakes::CoreScheduler;
using testing::HasSubstr;
using testing::Not;

constexpr int kSchedCore = 62;  // PR_SCHED_CORE

std::string words(int os_errno) { return std::generic_category().message(os_errno); }

// One broker, on such a host.
class CoreScheduling : public testing::Test {
 protected:
  void serve(const std::vector<std::string>& options = {}) {
    std::vector<std::string> arguments = host_.blk_arguments({});
    arguments.insert(arguments.end(), options.begin(), options.end());
    broker_ = std::make_unique<fakes::BrokerProcess>(
        fakes::BrokerProcess::Setup{.program = BULKHEAD_PROGRAM,
                                    .arguments = arguments,
                                    .before_exec = scheduler_.installer()});
    scheduler_.serve();
    broker_->wait_ready();
  }
  [[nodiscard]] std::vector<std::uint64_t> cookies(const std::string& program) const {
    std::vector<std::uint64_t> found;
    for (const pid_t pid : broker_->children_named(program)) {
      found.push_back(scheduler_.cookie_of(pid));
    }
    return found;
  }

  Host host_{kAuto};
  std::unique_ptr<fakes::BrokerProcess> broker_;
  CoreScheduler scheduler_;
};

TEST_F(CoreScheduling, AllProcessesOfAVmHaveOneCookie) {
  serve({"--core-scheduling=required"});
  const auto client = host_.connect({.queues = 2});
  expect_serves(client->queue(0), 64);
  expect_serves(client->queue(1), 128);

  const auto sessions = cookies("session");
  ASSERT_EQ(sessions.size(), 1U);
  EXPECT_NE(sessions[0], 0U);
  EXPECT_EQ(cookies("worker"), std::vector<std::uint64_t>(2, sessions[0]));
  // What belongs to no VM has none of theirs.
  EXPECT_EQ(scheduler_.cookie_of(broker_->pid()), 0U);
  const auto keepers = cookies("keeper");
  ASSERT_EQ(keepers.size(), 1U);
  EXPECT_NE(keepers[0], sessions[0]);
  EXPECT_THAT(broker_->log(), Not(HasSubstr("core scheduling")));  // Neither degraded nor absent.
}

TEST_F(CoreScheduling, EachConnectionHasACookieOfItsOwn) {
  serve();
  auto first = host_.connect();
  expect_serves(first->queue());
  const auto before = cookies("session");
  first.reset();
  const auto second = host_.connect();
  expect_serves(second->queue());
  const auto after = cookies("worker");
  ASSERT_EQ(after.size(), 1U);
  EXPECT_NE(after[0], 0U);
  EXPECT_NE(after[0], before.at(0));
}

TEST_F(CoreScheduling, WorkerThatReplacesADeadOneGetsTheCookieOfItsVm) {
  serve();
  const auto client = host_.connect();
  expect_serves(client->queue());
  const pid_t worker = broker_->children_named("worker").at(0);
  const std::uint64_t cookie = scheduler_.cookie_of(worker);
  ASSERT_EQ(::kill(worker, SIGKILL), 0);
  expect_serves(client->queue());
  EXPECT_NE(broker_->children_named("worker").at(0), worker);
  EXPECT_EQ(cookies("worker"), std::vector<std::uint64_t>{cookie});
}

// Whoever may not share makes a cookie: alone on its core, which is enough where one is required.
class CookieThatCannotBeShared : public CoreScheduling,
                                 public testing::WithParamInterface<CoreScheduler::Command> {};
INSTANTIATE_TEST_SUITE_P(By, CookieThatCannotBeShared,
                         testing::Values(CoreScheduler::Command::kGet,
                                         CoreScheduler::Command::kShareFrom,
                                         CoreScheduler::Command::kShareTo));

TEST_P(CookieThatCannotBeShared, IsMadeByTheWorkerItself) {
  scheduler_.refuse_about_others(GetParam(), EPERM);
  serve({"--core-scheduling=required"});
  const auto client = host_.connect();
  expect_serves(client->queue());
  const auto session = cookies("session").at(0);
  const auto worker = cookies("worker").at(0);
  EXPECT_NE(session, 0U);
  EXPECT_NE(worker, 0U);
  EXPECT_NE(worker, session);
}

TEST_F(CoreScheduling, IsLeftAloneWhereItIsSwitchedOff) {
  serve({"--core-scheduling=off"});
  expect_serves(host_.connect()->queue());
  EXPECT_EQ(scheduler_.calls(), 0);
  EXPECT_NE(broker_->wait_for_line({"absent: ", "core scheduling (switched off)"}), "");
}

// ENODEV: no core has several threads. EINVAL: a kernel without it. Others: a sandbox around us.
class HostThatRefusesCookies : public testing::TestWithParam<int> {
 protected:
  fakes::BrokerProcess& start(const std::string& option) {
    std::vector<std::string> arguments = host_.blk_arguments({});
    arguments.push_back(option);
    broker_ = std::make_unique<fakes::BrokerProcess>(fakes::BrokerProcess::Setup{
        .program = BULKHEAD_PROGRAM,
        .arguments = arguments,
        .refused = {
            {.number = SYS_prctl, .os_errno = GetParam(), .argument = 0, .value = kSchedCore}}});
    return *broker_;
  }
  Host host_{kAuto};
  std::unique_ptr<fakes::BrokerProcess> broker_;
};
INSTANTIATE_TEST_SUITE_P(With, HostThatRefusesCookies,
                         testing::Values(ENODEV, EINVAL, EPERM, ENOSYS, ENOMEM));

TEST_P(HostThatRefusesCookies, IsServedAndThePostureSaysWhy) {
  fakes::BrokerProcess& broker = start("--core-scheduling=auto");
  broker.wait_ready();
  expect_serves(host_.connect()->queue());
  EXPECT_NE(broker.wait_for_line({"absent: ", "core scheduling (" + words(GetParam()) + ")"}), "")
      << broker.log();
}

TEST_P(HostThatRefusesCookies, IsRefusedWhereTheyAreRequired) {
  fakes::BrokerProcess& broker = start("--core-scheduling=required");
  EXPECT_EQ(broker.wait_exit(), 1);
  EXPECT_THAT(broker.log(), HasSubstr("core scheduling cannot be had: "));
  EXPECT_THAT(broker.log(), HasSubstr(words(GetParam())));
  EXPECT_THAT(broker.log(), HasSubstr("--core-scheduling=auto"));
}

// 0, or the errno of the real call here.
int real_answer() {
  const pid_t pid = ::fork();
  if (pid == 0) ::_exit(::prctl(kSchedCore, 1, 0, 0, 0) == 0 ? 0 : errno);
  int status = -1;
  EXPECT_EQ(::waitpid(pid, &status, 0), pid);
  return WEXITSTATUS(status);
}

TEST(CoreSchedulingHere, IsWhatTheKernelSaysItIs) {
  const int os_errno = real_answer();
  Host host(kAuto);
  host.serve();
  expect_serves(host.connect()->queue());
  const std::string line = host.broker().wait_for_line({"posture: ", "layers enforced"});
  const std::string said = "core scheduling (" + words(os_errno) + ")";
  EXPECT_EQ(line.find(said) != std::string::npos, os_errno != 0) << line << said;
}

}  // namespace
}  // namespace integration
