// tests/unit/broker/orphans_test.cpp: what cannot be gone on with ends, as gently as it may.
#include "broker/orphans.h"

#include <gtest/gtest.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <functional>
#include <utility>
#include <vector>

#include "common/stop_pipe.h"

namespace broker {
namespace {

using common::Fd;
using common::ipc::KeptRole;
using std::chrono::milliseconds;

constexpr milliseconds kPatience{60'000};

struct Child {
  pid_t pid;
  std::vector<Fd> fds;  // As they are kept.
};

Child start(const std::function<void(common::FdRef stop)>& body) {
  common::StopPipe stop = *common::make_stop_pipe();
  const pid_t pid = ::fork();
  if (pid == 0) {
    stop.writing.reset();
    body(stop.reading.ref());
    ::_exit(7);
  }
  Child child{pid, {}};
  child.fds.emplace_back(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)));
  child.fds.push_back(std::move(stop.writing));
  return child;
}

int status_of(const Child& child) {
  int status = 0;
  EXPECT_EQ(::waitpid(child.pid, &status, 0), child.pid);
  return status;
}

void wait_for_ever(common::FdRef) {
  while (true) ::pause();
}

TEST(Orphans, AreNoneWhereNothingIsAProcess) {
  Orphans orphans;
  const std::vector<Fd> none;
  orphans.add(KeptRole::kSession, none);
  std::vector<Fd> some;
  some.push_back(std::move(common::make_stop_pipe()->writing));
  orphans.add(KeptRole::kPlain, some);
  EXPECT_TRUE(orphans.empty());
  EXPECT_TRUE(orphans.end(milliseconds(0)));
}

TEST(Orphans, SessionIsKilled) {
  const Child session = start(wait_for_ever);
  Orphans orphans;
  orphans.add(KeptRole::kSession, session.fds);
  EXPECT_TRUE(orphans.end(kPatience));
  EXPECT_EQ(WTERMSIG(status_of(session)), SIGKILL);
}

TEST(Orphans, WorkerIsToldAndMayFinish) {
  const Child worker = start([](common::FdRef stop) {
    char word = 0;
    while (::read(stop.number, &word, 1) < 0) ::usleep(1000);
  });
  Orphans orphans;
  orphans.add(KeptRole::kWorker, worker.fds);
  EXPECT_TRUE(orphans.end(kPatience));
  const int status = status_of(worker);
  EXPECT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 7);
}

TEST(Orphans, WorkerThatDoesNotFinishIsKilled) {
  const Child worker = start(wait_for_ever);
  Orphans orphans;
  orphans.add(KeptRole::kWorker, worker.fds);
  EXPECT_TRUE(orphans.end(milliseconds(1)));
  EXPECT_EQ(WTERMSIG(status_of(worker)), SIGKILL);
}

TEST(Orphans, WorkerThatHasEndedIsNoTrouble) {
  struct sigaction ignore {};
  struct sigaction before {};
  ignore.sa_handler = SIG_IGN;
  ASSERT_EQ(::sigaction(SIGPIPE, &ignore, &before), 0);
  const Child worker = start([](common::FdRef) {});
  EXPECT_EQ(WEXITSTATUS(status_of(worker)), 7);
  Orphans orphans;
  orphans.add(KeptRole::kWorker, worker.fds);
  EXPECT_TRUE(orphans.end(kPatience));
  ASSERT_EQ(::sigaction(SIGPIPE, &before, nullptr), 0);
}

}  // namespace
}  // namespace broker
