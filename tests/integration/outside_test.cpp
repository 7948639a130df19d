// Every process of brokers that serve a disk and a network card, as /proc shows it to others:
// status, descriptors, maps, namespaces and limits, exactly.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <set>
#include <sstream>
#include <string>

#include "tests/fakes/process.h"
#include "tests/integration/host.h"
#include "tests/integration/net_host.h"

namespace integration {
namespace {

using testing::ContainsRegex;
using testing::SizeIs;

#ifdef BULKHEAD_SANITIZER
constexpr bool kSanitized = true;  // Keeps stderr; its broker has no filter.
#else
constexpr bool kSanitized = false;
#endif

// What differs between the kinds of processes.
struct Expected {
  std::set<int> descriptors;
  std::string open_files;  // RLIMIT_NOFILE
  std::string program;
  std::string uid = "^20[0-9]{8}$";  // broker/uid_range.h
};

const Expected kRingWorker{{}, "0", "bulkhead-worker-"};
const Expected kBlkFallback{{5, 6, 8, 9}, "11", "bulkhead-worker-blk"};
const Expected kBlkFallbackDirect{{5, 6, 8, 9, 10}, "11", "bulkhead-worker-blk"};
const Expected kNetFallback{{5, 6, 8, 9}, "10", "bulkhead-worker-net"};

std::string text_of(pid_t pid, const std::string& name) {
  std::ifstream file("/proc/" + std::to_string(pid) + "/" + name);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

// "5 -> /path"
std::set<int> numbers_of(pid_t pid) {
  std::set<int> numbers;
  for (const std::string& entry : fakes::descriptors_of(pid)) numbers.insert(std::stoi(entry));
  return numbers;
}

void expect_no_privileges(pid_t pid, const std::string& uid) {
  for (const char* set : {"CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"}) {
    EXPECT_EQ(fakes::status_field(pid, set), "0000000000000000") << set;
  }
  EXPECT_EQ(fakes::status_field(pid, "NoNewPrivs"), "1");
  EXPECT_EQ(fakes::status_field(pid, "Seccomp"), "2");
  const int ours = std::stoi(fakes::status_field(::getpid(), "Seccomp_filters"));
  EXPECT_EQ(fakes::status_field(pid, "Seccomp_filters"),
            std::to_string(ours + (kSanitized ? 1 : 3)));  // The broker's two, and its own.
  std::istringstream ids(fakes::status_field(pid, "Uid") + " " + fakes::status_field(pid, "Gid"));
  std::set<std::string> different;
  for (std::string id; ids >> id;) different.insert(id);
  EXPECT_THAT(different, SizeIs(1));
  EXPECT_THAT(*different.begin(), ContainsRegex(uid));
  EXPECT_EQ(fakes::status_field(pid, "Groups"), "");
  EXPECT_THAT(text_of(pid, "status"), ContainsRegex("NSpid:\t[0-9]+\t1\n"));
}

void expect_own_world(pid_t pid) {
  for (const char* kind : {"user", "pid", "mnt", "net", "ipc", "uts", "cgroup"}) {
    const auto ours = std::filesystem::read_symlink(std::string("/proc/self/ns/") + kind);
    EXPECT_NE(std::filesystem::read_symlink("/proc/" + std::to_string(pid) + "/ns/" + kind), ours)
        << kind;
  }
  const std::string mounts = text_of(pid, "mountinfo");
  EXPECT_EQ(std::count(mounts.begin(), mounts.end(), '\n'), 1) << mounts;
  EXPECT_THAT(mounts, ContainsRegex(" / / ro,nosuid,nodev,noexec"));
  EXPECT_EQ(text_of(pid, "environ"), "");
}

void expect_limits(pid_t pid, const std::string& open_files) {
  const std::string limits = text_of(pid, "limits");
  EXPECT_THAT(limits, ContainsRegex("Max core file size +1 +1 "));
  EXPECT_THAT(limits, ContainsRegex("Max locked memory +0 +0 "));
  EXPECT_THAT(limits, ContainsRegex("Max open files +" + open_files + " +" + open_files + " "));
}

// No code but the program's own and the kernel's, and none of it writable.
void expect_code_of(pid_t pid, const std::string& program) {
  std::istringstream maps(text_of(pid, "maps"));
  int executable = 0;
  for (std::string line; std::getline(maps, line);) {
    const std::string mode = line.substr(line.find(' ') + 1, 4);
    if (mode[2] != 'x') continue;
    ++executable;
    EXPECT_NE(mode[1], 'w') << line;
    EXPECT_THAT(line, ContainsRegex(program + "|\\[vdso\\]|\\[vsyscall\\]"));
  }
  EXPECT_GE(executable, 1);
}

void expect_sealed(pid_t pid, const Expected& expected) {
  SCOPED_TRACE(fakes::command_line_of(pid));
  std::set<int> descriptors = expected.descriptors;
  if (kSanitized) descriptors.insert(STDERR_FILENO);
  EXPECT_EQ(numbers_of(pid), descriptors);
  expect_no_privileges(pid, expected.uid);
  expect_limits(pid, expected.open_files);
  if constexpr (!kSanitized) {  // Linked dynamically, with an environment for their options.
    expect_own_world(pid);
    expect_code_of(pid, expected.program);
  }
}

// It is the broker's user, and in a namespace where that is nobody else's.
void expect_sealed_keeper(const fakes::BrokerProcess& broker) {
  const std::vector<pid_t> keepers = broker.children_named("keeper");
  ASSERT_THAT(keepers, SizeIs(1));
  // Its own two, and what it keeps.
  const std::set<int> numbers = numbers_of(keepers.front());
  EXPECT_TRUE(numbers.contains(3) && numbers.contains(4));
  rlimit ours{};
  ASSERT_EQ(::getrlimit(RLIMIT_NOFILE, &ours), 0);
  const std::string most = std::to_string(std::min<rlim_t>(ours.rlim_max, 524288));
  expect_sealed(keepers.front(), {numbers, most, "bulkhead-keeper", "^0$"});
}

class OutsideOfADisk : public DiskTest {};
BULKHEAD_FOR_ALL_SETTINGS(OutsideOfADisk);

TEST_P(OutsideOfADisk, EachWorkerIsExactlyWhatItsProfileSays) {
  host_.serve();
  const auto client = host_.connect({.queues = 2});
  expect_serves(client->queue(0), 64);  // An answer says that the worker is sealed.
  expect_serves(client->queue(1), 128);
  const bool uring = std::string(GetParam().engine) == "io_uring";
  Expected expected = GetParam().direct ? kBlkFallbackDirect : kBlkFallback;
  if (uring) expected = kRingWorker;
  ASSERT_THAT(host_.workers(), SizeIs(2));
  for (const pid_t worker : host_.workers()) {
    // The disk through the page cache: where the file system takes no blocks of 512 past it.
    if (GetParam().direct && !uring && numbers_of(worker).contains(7)) {
      expected.descriptors.insert(7);
    }
    expect_sealed(worker, expected);
  }
}

TEST_P(OutsideOfADisk, TheSessionIsExactlyWhatItsProfileSays) {
  host_.serve();
  const auto client = host_.connect();
  expect_serves(client->queue());
  ASSERT_THAT(host_.sessions(), SizeIs(1));
  const pid_t session = host_.sessions().front();
  // Which numbers are taken depends on what the VMM has sent; what lies behind them does not.
  const std::set<int> numbers = numbers_of(session);
  expect_sealed(session, {numbers, "1088", "bulkhead-session"});
}

TEST_P(OutsideOfADisk, TheKeeperIsExactlyWhatItsProfileSays) {
  host_.serve();
  const auto client = host_.connect();
  expect_serves(client->queue());
  expect_sealed_keeper(host_.broker());
  const pid_t keeper = host_.broker().children_named("keeper").at(0);
  EXPECT_EQ(fakes::maps_with(keeper, "bulkhead-guest-ram"), 0);
}

class OutsideOfACard : public NetTest {};
BULKHEAD_FOR_BOTH_ENGINES(OutsideOfACard);

TEST_P(OutsideOfACard, EachWorkerIsExactlyWhatItsProfileSays) {
  start({.control = true});
  expect_works();
  ASSERT_TRUE(client().control_queue().command(0, 0, {}).has_value());
  const bool uring = std::string(GetParam().engine) == "io_uring";
  int control = 0;
  for (const pid_t worker : host().workers()) {
    const bool is_control = fakes::command_line_of(worker).find("tap0/128") != std::string::npos;
    control += is_control ? 1 : 0;
    expect_sealed(worker, uring && !is_control ? kRingWorker : kNetFallback);
  }
  expect_sealed_keeper(host().broker());
  EXPECT_EQ(control, 1);
  EXPECT_THAT(host().workers(), SizeIs(3));
}

}  // namespace
}  // namespace integration
