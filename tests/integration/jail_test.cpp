// What each process of a serving broker holds and may do, as the kernel shows it, and what
// `bulkhead posture` makes of it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <filesystem>
#include <set>
#include <string>

#include "tests/fakes/process.h"
#include "tests/integration/host.h"

namespace integration {
namespace {

using testing::AllOf;
using testing::Contains;
using testing::Each;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;
using testing::SizeIs;

#ifdef BULKHEAD_SANITIZER
constexpr bool kSanitized = true;  // Keeps stderr, and its own system calls.
#else
constexpr bool kSanitized = false;
#endif

class Jail : public DiskTest {
 protected:
  void SetUp() override {
    host_.serve();
    client_ = host_.connect({.queues = 2});
    session_ = host_.sessions().at(0);
    workers_ = host_.workers();
    ASSERT_THAT(workers_, SizeIs(2));
    // A worker looks at its ring only once it is sealed, so an answer says that it is.
    expect_serves(client_->queue(0), 64);
    expect_serves(client_->queue(1), 128);
  }
  std::unique_ptr<fakes::BlkClient> client_;
  pid_t session_ = -1;
  std::vector<pid_t> workers_;
};
BULKHEAD_FOR_ALL_SETTINGS(Jail);

// DESIGN.md section 1: nothing at all with io_uring; with the fallback its disk, eventfds, and
// what stops it.
TEST_P(Jail, WorkerHoldsWhatItsEngineNeedsAndNoMore) {
  const bool uring = std::string(GetParam().engine) == "io_uring";
  const std::size_t most = (uring ? 0U : 6U) + (kSanitized ? 1U : 0U);  // Sanitizers keep stderr.
  for (const pid_t worker : workers_) {
    const std::vector<std::string> table = fakes::descriptors_of(worker);
    EXPECT_LE(table.size(), most);
    if (!kSanitized) {
      EXPECT_THAT(table, Each(testing::AnyOf(HasSubstr(host_.image()), HasSubstr("[eventfd]"),
                                             testing::StartsWith("6 -> pipe:["))));
    }
  }
}

// What ps, top and an audit record's comm= show: 15 bytes are all the kernel keeps.
TEST_P(Jail, EachProcessIsCalledByItsProgramsName) {
  EXPECT_EQ(fakes::status_field(session_, "Name"), "bulkhead-sessio");
  EXPECT_EQ(fakes::status_field(workers_[0], "Name"), "bulkhead-worker");
}

TEST_P(Jail, NoWorkerHoldsASocket) {
  for (const pid_t worker : workers_) {
    EXPECT_THAT(fakes::descriptors_of(worker), Each(Not(HasSubstr("socket"))));
  }
}

TEST_P(Jail, SessionHoldsNoDiskAndMapsNoGuestMemory) {
  EXPECT_THAT(fakes::descriptors_of(session_), Each(Not(HasSubstr(host_.image()))));
  EXPECT_EQ(fakes::maps_with(session_, "bulkhead-guest-ram"), 0);
}

TEST_P(Jail, BrokerMapsNoGuestMemoryAndHoldsNone) {
  const pid_t broker = host_.broker().pid();
  EXPECT_EQ(fakes::maps_with(broker, "bulkhead-guest-ram"), 0);
  EXPECT_THAT(fakes::descriptors_of(broker), Each(Not(HasSubstr("bulkhead-guest-ram"))));
}

TEST_P(Jail, EveryJailedProcessHasItsFilterAndNoPrivileges) {
  for (const pid_t pid : {session_, workers_[0], workers_[1]}) {
    EXPECT_EQ(fakes::status_field(pid, "Seccomp"), "2");
    EXPECT_EQ(fakes::status_field(pid, "NoNewPrivs"), "1");
    for (const char* set : {"CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"}) {
      EXPECT_EQ(fakes::status_field(pid, set), "0000000000000000") << set << " of " << pid;
    }
  }
}

// The rights to give each device a uid of its own, to start a keeper (in whose user namespace we
// are root, too), and to make rings beyond what a user may lock: nothing that reaches another
// process or another's file.
TEST_P(Jail, BrokerKeepsItsFilterAndTheCapabilitiesThatItsConfigurationNeeds) {
  const pid_t broker = host_.broker().pid();
  const bool rings = std::string(GetParam().engine) == "io_uring";
  const std::string kept = rings ? "00000000800040c0" : "00000000800000c0";
  for (const char* set : {"CapPrm", "CapEff", "CapBnd"}) {
    EXPECT_EQ(fakes::status_field(broker, set), kept) << set;
  }
  for (const char* set : {"CapInh", "CapAmb"}) {
    EXPECT_EQ(fakes::status_field(broker, set), "0000000000000000") << set;
  }
  EXPECT_EQ(fakes::status_field(broker, "NoNewPrivs"), "1");
  EXPECT_EQ(fakes::status_field(broker, "Seccomp"), kSanitized ? "0" : "2");
  EXPECT_EQ(fakes::maps_with(broker, "rwx"), 0);
}

TEST_P(Jail, EveryJailedProcessIsInNamespacesOfItsOwn) {
  for (const char* kind : {"pid", "mnt", "net", "ipc", "uts", "cgroup", "user"}) {
    const auto ours = std::filesystem::read_symlink(std::string("/proc/self/ns/") + kind);
    for (const pid_t pid : {session_, workers_[0]}) {
      const auto theirs =
          std::filesystem::read_symlink("/proc/" + std::to_string(pid) + "/ns/" + kind);
      EXPECT_NE(ours, theirs) << kind << " of " << pid;
    }
  }
}

TEST_P(Jail, RootOfAJailedProcessIsEmpty) {
  for (const pid_t pid : {session_, workers_[0]}) {
    std::error_code error;
    EXPECT_TRUE(std::filesystem::is_empty("/proc/" + std::to_string(pid) + "/root", error));
  }
}

TEST_P(Jail, NothingIsWritableAndExecutable) {
  for (const pid_t pid : {session_, workers_[0]}) EXPECT_EQ(fakes::maps_with(pid, "rwx"), 0);
}

// The audit log is what names the system call; without it the line says that there was one.
TEST_P(Jail, DeathByTheFilterIsLoggedWithTheSystemCallAndOtherQueuesGoOn) {
  constexpr unsigned long long kCapAuditRead = 1ULL << 37;
  const std::string ours = fakes::status_field(::getpid(), "CapEff");
  const bool named = (std::stoull(ours, nullptr, 16) & kCapAuditRead) != 0;
  if (!fakes::inject_system_call(workers_[1], SYS_socket)) GTEST_SKIP() << "needs ptrace";
  EXPECT_NE(host_.broker().wait_for_line({"error", "worker vda/1 killed by seccomp: ",
                                          named ? "system call socket at 0x" : "system call"}),
            "");
  expect_serves(client_->queue(0));
  ASSERT_TRUE(fakes::inject_system_call(session_, SYS_execve));
  EXPECT_NE(host_.broker().wait_for_line({"error", "session of pid ", "killed by seccomp: ",
                                          named ? "system call execve at 0x" : "system call"}),
            "");
  expect_serves(host_.connect()->queue());
}

TEST_P(Jail, PostureCommandShowsEveryProcess) {
  Host operator_of(kAuto);
  operator_of.run({"posture", "--pid=" + std::to_string(host_.broker().pid())});
  EXPECT_EQ(operator_of.broker().wait_exit(), 0);
  const std::string table = operator_of.broker().log();
  EXPECT_THAT(
      table,
      AllOf(HasSubstr(std::to_string(host_.broker().pid())), HasSubstr(std::to_string(session_)),
            HasSubstr(std::to_string(workers_[0])), HasSubstr("seccomp"), HasSubstr("enforced")));
}

TEST_P(Jail, PostureOfAProcessThatIsNotThereIsAnError) {
  Host operator_of(kAuto);
  operator_of.run({"posture", "--pid=999999999"});
  EXPECT_EQ(operator_of.broker().wait_exit(), 1);
}

TEST_P(Jail, Sigusr1PrintsThePostureAndServingGoesOn) {
  host_.broker().signal(SIGUSR1);
  EXPECT_THAT(host_.broker().wait_for_line({"seccomp"}), Not(IsEmpty()));
  EXPECT_THAT(host_.broker().wait_for_line({"r-xp", "bulkhead-worker-blk"}), Not(IsEmpty()));
  EXPECT_EQ(host_.broker().count_lines("cannot look: Perm"), 0) << host_.broker().log();
  expect_serves(client_->queue());
}

TEST_P(Jail, StrictPostureServesWhereEveryLayerIsThere) {
  Host strict(GetParam());
  strict.serve({.options = {"--require-posture=strict"}});
  expect_serves(strict.connect()->queue());
  EXPECT_EQ(strict.broker().count_lines("is missing"), 0) << strict.broker().log();
}

TEST(UidRange, ProcessesHaveTheUidsOfTheRangeAndOneDeviceTooManyIsRefused) {
  Host host(kAuto);
  host.serve_all({{.name = "vda"}, {.name = "vdb"}}, {"--uid-range=300000-300001"});
  const auto vda = host.connect({}, "vda");
  const auto vdb = host.connect({}, "vdb");
  std::set<std::string> uids;
  for (const pid_t pid : host.workers()) uids.insert(fakes::status_field(pid, "Uid"));
  EXPECT_THAT(uids, testing::UnorderedElementsAre(testing::StartsWith("300000"),
                                                  testing::StartsWith("300001")));

  host.broker().signal(SIGTERM);
  EXPECT_EQ(host.broker().wait_exit(), 0);
  host.run({"serve", "--config=" + host.file("bulkhead.toml"), "--uid-range=300000-300000"});
  EXPECT_EQ(host.broker().wait_exit(), 1);
  EXPECT_THAT(host.broker().log(), HasSubstr("make uid-range larger"));
}

}  // namespace
}  // namespace integration
