// What becomes of a broker on a host that refuses a step of setting up the jail: each in turn, as a
// kernel without it does (ENOSYS) and as one that forbids it (EPERM). A layer that cannot be had is
// said, and refused where strict asks for it; what must not be missing ends the start in any case.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include <cerrno>
#include <system_error>

#include "tests/integration/host.h"

namespace integration {
namespace {

using testing::HasSubstr;

#ifdef BULKHEAD_SANITIZER
constexpr bool kSanitized = true;  // Its run-time needs some of these calls itself.
#else
constexpr bool kSanitized = false;
#endif

constexpr int kSetMdwe = 65;  // PR_SET_MDWE
constexpr int kMseal = 462;
constexpr std::uint32_t kAnyNamespace = CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWNET |
                                        CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWCGROUP;

enum class Outcome : std::uint8_t {
  kDegraded,  // Serves, and says what is missing; strict refuses.
  kWeaker,    // The same, but strict does not ask for it.
  kRefused,   // Does not start.
};

struct Fault {
  const char* name;
  fakes::RefusedCall call;
  Outcome outcome;
  const char* said;  // The layer, or part of the message.
};

struct Case {
  Fault fault;
  int os_errno;
};
void PrintTo(const Case& each, std::ostream* out) { *out << each.fault.name; }

fakes::RefusedCall any(int number) { return {.number = number}; }
fakes::RefusedCall with(int number, int argument, std::uint32_t value) {
  return {.number = number, .argument = argument, .value = value};
}
// Any of these bits in the first argument: one rule for each would be needed, so one is taken.
fakes::RefusedCall with_flag(int number, std::uint32_t flag) {
  return {.number = number, .argument = 0, .mask = flag, .value = flag};
}

std::vector<Fault> every_fault() {
  using enum Outcome;
  std::vector<Fault> faults = {
      {"UserNamespace", with_flag(SYS_clone, CLONE_NEWUSER), kDegraded, "user namespace"},
      {"Namespaces", with_flag(SYS_clone, CLONE_NEWNET), kDegraded, "net namespace"},
      {"MountOfTheRoot", any(SYS_mount), kDegraded, "empty root"},
      {"PivotRoot", any(SYS_pivot_root), kDegraded, "empty root"},
      {"UnmountOfTheOldRoot", any(SYS_umount2), kDegraded, "empty root"},
      {"Securebits", with(SYS_prctl, 0, PR_SET_SECUREBITS), kDegraded, "securebits"},
      {"LandlockRuleset", any(SYS_landlock_create_ruleset), kDegraded, "landlock"},
      {"LandlockRestriction", any(SYS_landlock_restrict_self), kDegraded, "landlock"},
      {"Mdwe", with(SYS_prctl, 0, kSetMdwe), kWeaker, "mdwe"},
      {"Mseal", any(kMseal), kWeaker, "mseal"},
      {"NoNewPrivs", with(SYS_prctl, 0, PR_SET_NO_NEW_PRIVS), kRefused, "no_new_privs"},
      {"Capabilities", any(SYS_capset), kRefused, "capabilit"},
      {"Groups", any(SYS_setgroups), kRefused, "own uid"},
      {"Uid", any(SYS_setresuid), kRefused, "own uid"},
      {"DeathOfTheBroker", with(SYS_prctl, 0, PR_SET_PDEATHSIG), kRefused, "PDEATHSIG"},
      {"StatusPage", any(SYS_memfd_create), kRefused, "memfd"},
      {"Exec", any(SYS_execveat), kRefused, "exec"},
      {"Filter", with(SYS_seccomp, 0, SECCOMP_SET_MODE_FILTER), kRefused, "seccomp"},
  };
  if (!kSanitized) {
    faults.push_back({"Limits", any(SYS_prlimit64), kDegraded, "rlimits"});
    faults.push_back({"CloseRange", any(SYS_close_range), kRefused, "close"});
  }
  return faults;
}

std::vector<Case> every_case() {
  std::vector<Case> cases;
  for (const Fault& fault : every_fault()) {
    for (const int os_errno : {ENOSYS, EPERM}) cases.push_back({fault, os_errno});
  }
  return cases;
}

std::string case_name(const testing::TestParamInfo<Case>& info) {
  return std::string(info.param.fault.name) +
         (info.param.os_errno == ENOSYS ? "NotThere" : "Forbidden");
}

class SetupFault : public testing::TestWithParam<Case> {
 protected:
  fakes::BrokerProcess& start(const char* posture) {
    fakes::RefusedCall call = GetParam().fault.call;
    call.os_errno = GetParam().os_errno;
    std::vector<std::string> arguments = host_.blk_arguments({});
    arguments.push_back(std::string("--require-posture=") + posture);
    broker_ = std::make_unique<fakes::BrokerProcess>(fakes::BrokerProcess::Setup{
        .program = BULKHEAD_PROGRAM, .arguments = arguments, .refused = {call}});
    return *broker_;
  }
  [[nodiscard]] static Outcome outcome() { return GetParam().fault.outcome; }
  [[nodiscard]] static std::string said() { return GetParam().fault.said; }

  Host host_{kAuto};
  std::unique_ptr<fakes::BrokerProcess> broker_;
};
INSTANTIATE_TEST_SUITE_P(Each, SetupFault, testing::ValuesIn(every_case()), case_name);

TEST_P(SetupFault, IsSaidAndServingGoesOnOrDoesNotStart) {
  fakes::BrokerProcess& broker = start("any");
  if (outcome() == Outcome::kRefused) {
    EXPECT_EQ(broker.wait_exit(), 1) << broker.log();
    EXPECT_THAT(broker.log(), HasSubstr(said()));
    return;
  }
  broker.wait_ready();
  const auto client = host_.connect();
  expect_serves(client->queue());
  const std::string line = broker.wait_for_line({"posture: ", "layers enforced"});
  const std::size_t absent = line.find("; absent: ");
  ASSERT_NE(absent, std::string::npos) << line;
  EXPECT_THAT(line.substr(absent), HasSubstr(said()));
}

TEST_P(SetupFault, IsRefusedByStrictWithTheReason) {
  fakes::BrokerProcess& broker = start("strict");
  if (outcome() == Outcome::kWeaker) {
    broker.wait_ready();
    expect_serves(host_.connect()->queue());
    return;
  }
  EXPECT_EQ(broker.wait_exit(), 1) << broker.log();
  EXPECT_THAT(broker.log(), HasSubstr(said()));
  if (outcome() == Outcome::kDegraded) {
    EXPECT_THAT(broker.log(), HasSubstr("posture is below strict: "));
  }
}

// The layer's own call failed: the operator reads which way. Of namespaces only that they are
// missing is known, since clone() takes all or none.
TEST_P(SetupFault, IsSaidWithTheErrnoOfTheStepThatFailed) {
  if (outcome() == Outcome::kRefused || said().ends_with("namespace")) return;
  fakes::BrokerProcess& broker = start("any");
  broker.wait_ready();
  const std::string reason = std::generic_category().message(GetParam().os_errno);
  EXPECT_NE(broker.wait_for_line({"posture: ", said() + " (" + reason + ")"}), "") << broker.log();
}

// The engine is chosen by what the host has, and the log says why.
TEST(HostWithoutIoUring, GetsTheFallbackEngineAndTheReason) {
  for (const int os_errno : {ENOSYS, EPERM}) {
    Host host(kAuto);
    fakes::BrokerProcess broker(
        {.program = BULKHEAD_PROGRAM,
         .arguments = host.blk_arguments({}),
         .refused = {{.number = SYS_io_uring_setup, .os_errno = os_errno}}});
    broker.wait_ready();
    expect_serves(host.connect()->queue());
    EXPECT_NE(
        broker.wait_for_line({"engine fallback (", std::generic_category().message(os_errno)}), "")
        << broker.log();
  }
}

}  // namespace
}  // namespace integration
