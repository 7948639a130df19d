// tests/escape/jail_test.cpp: what becomes of each layer, with and without what the host offers.
#include <grp.h>
#include <gtest/gtest.h>
#include <linux/capability.h>
#include <poll.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <functional>

#include "common/ipc/worker_messages.h"
#include "common/sys.h"
#include "policy/capabilities.h"
#include "policy/jail.h"
#include "policy/session.h"
#include "policy/worker_blk.h"
#include "tests/escape/run_escapee.h"

namespace escape {
namespace {

using common::Layer;
using common::LayerResult;
using policy::kSession;
using policy::kWorkerBlkUring;
using State = LayerResult::State;

constexpr uid_t kOrdinary = 12345;

// Runs `body` in a process of its own, which may give up what it likes. True if it returned true.
bool in_another_process(const std::function<bool()>& body) {
  const pid_t pid = ::fork();
  if (pid == 0) ::_exit(body() ? 0 : 1);
  int status = -1;
  ::waitpid(pid, &status, 0);
  return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

bool become_ordinary() {
  return ::setgroups(0, nullptr) == 0 && ::setresgid(kOrdinary, kOrdinary, kOrdinary) == 0 &&
         ::setresuid(kOrdinary, kOrdinary, kOrdinary) == 0;
}

// Sealed, with `expected` as the state of its uid layer.
bool seals_with_uid_layer(const Setting& setting, State expected) {
  auto escapee = Escapee::start(setting, try_act(Act::kExit));
  return escapee && escapee->wait() == kCameBack &&
         escapee->layer(Layer::kOwnUid).state == expected;
}

// Every layer but, on kernels before 6.12, the newest rights of Landlock.
TEST(Jail, HoldsEveryLayerOnThisHost) {
  const bool complete = landlock_is_complete();
  auto escapee =
      Escapee::start({.profile = &kWorkerBlkUring, .strict = complete}, try_act(Act::kExit));
  ASSERT_TRUE(escapee);
  EXPECT_EQ(escapee->wait(), kCameBack);
  Layer missing{};
  const bool below = policy::below_strict(escapee->layers(), missing);
  EXPECT_TRUE(complete ? !below : missing == Layer::kLandlock) << common::layer_name(missing);
}

TEST(Jail, RefusesStrictlyAndNamesTheFirstMissingLayer) {
  auto escapee = Escapee::start({.profile = &kSession, .no_namespaces = true, .strict = true},
                                try_act(Act::kExit));
  ASSERT_TRUE(escapee);
  EXPECT_EQ(escapee->wait().exit_code, kNotJailed);
  EXPECT_EQ(escapee->page().fault.load(),
            static_cast<std::uint32_t>(common::ipc::WorkerFault::kPosture));
  EXPECT_EQ(escapee->page().fault_detail[0].load(),
            static_cast<std::uint64_t>(Layer::kUserNamespace));
}

TEST(Jail, NamesTheOneNamespaceThatIsMissing) {
  const std::uint32_t all_but_net =
      CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWCGROUP;
  auto escapee = Escapee::start({.profile = &kSession, .namespaces = all_but_net, .strict = true},
                                try_act(Act::kExit));
  ASSERT_TRUE(escapee);
  EXPECT_EQ(escapee->wait().exit_code, kNotJailed);
  EXPECT_EQ(escapee->page().fault_detail[0].load(),
            static_cast<std::uint64_t>(Layer::kNetNamespace));
}

TEST(Jail, GoesOnWithoutNamespacesWhereThatIsAllowed) {
  auto escapee = Escapee::start({.profile = &kSession, .no_namespaces = true}, try_act(Act::kExit));
  ASSERT_TRUE(escapee);
  EXPECT_EQ(escapee->wait(), kCameBack);
  EXPECT_EQ(escapee->layer(Layer::kUserNamespace).state, State::kAbsent);
  EXPECT_EQ(escapee->layer(Layer::kEmptyRoot).state, State::kAbsent);
  EXPECT_EQ(escapee->layer(Layer::kOwnUid).state, State::kEnforced);
  EXPECT_EQ(escapee->layer(Layer::kNoCapabilities).state, State::kEnforced);
  EXPECT_EQ(escapee->layer(Layer::kSeccomp).state, State::kEnforced);
}

TEST(Jail, TakesTheUidItselfWithoutAUserNamespace) {
  const std::uint32_t all_but_user =
      CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWCGROUP;
  auto escapee =
      Escapee::start({.profile = &kSession, .namespaces = all_but_user}, try_act(Act::kExit));
  ASSERT_TRUE(escapee);
  EXPECT_EQ(escapee->wait(), kCameBack);
  EXPECT_EQ(escapee->layer(Layer::kEmptyRoot).state, State::kEnforced);
  EXPECT_EQ(escapee->layer(Layer::kOwnUid).state, State::kEnforced);
}

TEST(Jail, WorksForABrokerWithoutAnyPrivilege) {
  EXPECT_TRUE(in_another_process([] {
    // The first start opens the program, which this uid may not reach by name.
    (void)seals_with_uid_layer({.profile = &kSession}, State::kEnforced);
    return become_ordinary() &&
           seals_with_uid_layer({.profile = &kSession, .uid = kOrdinary}, State::kDegraded) &&
           seals_with_uid_layer({.profile = &kWorkerBlkUring, .uid = kOrdinary}, State::kDegraded);
  }));
}

TEST(Jail, WorksForAnUnprivilegedBrokerThatIsNotDumpable) {
  EXPECT_TRUE(in_another_process([] {
    (void)seals_with_uid_layer({.profile = &kSession}, State::kEnforced);
    return become_ordinary() && ::prctl(PR_SET_DUMPABLE, 0) == 0 &&
           seals_with_uid_layer({.profile = &kSession, .uid = kOrdinary}, State::kDegraded) &&
           ::prctl(PR_GET_DUMPABLE) == 0;
  }));
}

TEST(Jail, WorksForABrokerThatMayOnlyChangeIds) {
  EXPECT_TRUE(in_another_process([] {
    (void)seals_with_uid_layer({.profile = &kSession}, State::kEnforced);
    constexpr unsigned kKept[] = {CAP_SETUID, CAP_SETGID};
    return ::prctl(PR_SET_KEEPCAPS, 1) == 0 && become_ordinary() &&
           policy::keep_capabilities(kKept).has_value() && ::prctl(PR_SET_DUMPABLE, 1) == 0 &&
           policy::has_capability(CAP_SETUID) && !policy::has_capability(CAP_SYS_ADMIN) &&
           seals_with_uid_layer({.profile = &kSession}, State::kEnforced) &&
           seals_with_uid_layer({.profile = &kSession, .uid = kUid + 1}, State::kEnforced);
  }));
}

// A change of uid in a child that shares our memory makes that memory not dumpable.
TEST(Jail, LeavesTheBrokerAsDumpableAsItWas) {
  ASSERT_EQ(::prctl(PR_GET_DUMPABLE), 1);
  EXPECT_TRUE(seals_with_uid_layer({.profile = &kSession}, State::kEnforced));
  EXPECT_EQ(::prctl(PR_GET_DUMPABLE), 1);
}

TEST(Jail, EndsWithTheBroker) {
  auto pair = common::make_packet_pair();
  ASSERT_TRUE(pair);
  const pid_t broker = ::fork();
  if (broker == 0) {
    auto escapee = Escapee::start({.profile = &kSession}, try_act(Act::kSleep));
    if (!escapee || !escapee->wait_until_sealed()) ::_exit(1);
    const pid_t pid = escapee->pid();
    (void)::send(pair->first.ref().number, &pid, sizeof(pid), 0);
    char wait = 0;
    (void)::recv(pair->first.ref().number, &wait, 1, 0);
    ::_exit(0);  // Without the destructor that would kill it.
  }
  pair->first.reset();  // So that a broker that fails is end of file.
  pid_t jailed = -1;
  ASSERT_EQ(::recv(pair->second.ref().number, &jailed, sizeof(jailed), 0),
            static_cast<ssize_t>(sizeof(jailed)));
  const common::Fd pidfd(static_cast<int>(::syscall(SYS_pidfd_open, jailed, 0)));
  ASSERT_TRUE(pidfd.valid());
  ASSERT_EQ(::kill(broker, SIGKILL), 0);
  ASSERT_EQ(::waitpid(broker, nullptr, 0), broker);

  pollfd ended{pidfd.ref().number, POLLIN, 0};
  EXPECT_EQ(::poll(&ended, 1, 20'000), 1);
}

}  // namespace
}  // namespace escape
