// What a spawned program finds. This very program is what is spawned: called by kTitle, it does not
// get as far as main().
#include "policy/spawn.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <fstream>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

#include "common/sys.h"
#include "policy/sanitizer.h"

namespace policy {
namespace {

using common::Fd;

constexpr char kTitle[] = "a title";
constexpr int kReady = 30;

// In the spawned copy: says that the loader is done with its descriptors, and waits to be killed.
[[gnu::constructor]] void be_the_spawned_program(int, char** arguments, char**) {
  if (std::string_view(arguments[0]) != kTitle) return;
  const std::uint64_t ready = 1;
  (void)!::write(kReady, &ready, sizeof(ready));
  while (true) ::pause();
}

Fd open_program(const char* path) { return Fd(::open(path, O_PATH | O_CLOEXEC)); }
Fd own_program() { return open_program("/proc/self/exe"); }

int exit_code_of(const Child& child) {
  int status = -1;
  EXPECT_EQ(::waitpid(child.pid, &status, 0), child.pid);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

std::string read_proc(pid_t pid, const std::string& name) {
  std::ifstream file("/proc/" + std::to_string(pid) + "/" + name);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

class Spawned : public testing::Test {
 protected:
  void start(std::vector<DescriptorAt> descriptors, std::uint32_t namespaces = 0,
             common::FdRef network = {}) {
    const Fd program = own_program();
    auto ready = common::make_eventfd();
    ASSERT_TRUE(ready);
    descriptors.push_back({ready->ref(), kReady});
    SpawnRequest request;
    request.program = program.ref();
    request.title = kTitle;
    request.descriptors = descriptors;
    request.namespaces = namespaces;
    request.uid = request.gid = 100200;
    request.net_namespace = network;
    auto spawned = spawn(request);
    ASSERT_TRUE(spawned) << spawned.error().what << " " << spawned.error().os_errno;
    child_ = std::move(*spawned);
    pollfd waiting{ready->ref().number, POLLIN, 0};
    ASSERT_EQ(::poll(&waiting, 1, 20'000), 1);
  }
  void TearDown() override {
    if (!child_.pidfd.valid()) return;
    ::kill(child_.pid, SIGKILL);
    (void)exit_code_of(child_);
  }
  [[nodiscard]] std::string read(const std::string& name) const {
    return read_proc(child_.pid, name);
  }
  [[nodiscard]] bool has_descriptor(int number) const {
    struct stat status {};
    const std::string path =
        "/proc/" + std::to_string(child_.pid) + "/fd/" + std::to_string(number);
    return ::lstat(path.c_str(), &status) == 0;
  }
  [[nodiscard]] bool same_file(int number, common::FdRef mine) const {
    struct stat theirs {};
    struct stat ours {};
    const std::string path =
        "/proc/" + std::to_string(child_.pid) + "/fd/" + std::to_string(number);
    return ::stat(path.c_str(), &theirs) == 0 && ::fstat(mine.number, &ours) == 0 &&
           theirs.st_dev == ours.st_dev && theirs.st_ino == ours.st_ino;
  }
  Child child_;
};

Fd unlinked_file() { return Fd(::open("/tmp", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600)); }

TEST_F(Spawned, HasExactlyTheDescriptorsItWasGiven) {
  const Fd three = unlinked_file();
  const Fd seven = unlinked_file();
  start({{three.ref(), 3}, {seven.ref(), 7}});
  EXPECT_TRUE(same_file(3, three.ref()));
  EXPECT_TRUE(same_file(7, seven.ref()));
  for (const int number : {4, 5, 6, 8, 9, 10, 11, 12, 20, 100}) {
    EXPECT_FALSE(has_descriptor(number)) << number;
  }
}

TEST_F(Spawned, SortsOutDescriptorsThatSitOnEachOthersNumbers) {
  const Fd first = unlinked_file();
  const Fd second = unlinked_file();
  // Each wants the number that the other has.
  start({{first.ref(), second.ref().number}, {second.ref(), first.ref().number}});
  EXPECT_TRUE(same_file(second.ref().number, first.ref()));
  EXPECT_TRUE(same_file(first.ref().number, second.ref()));
}

TEST_F(Spawned, KeepsADescriptorThatIsInItsPlaceAlready) {
  const Fd file = unlinked_file();
  start({{file.ref(), file.ref().number}});
  EXPECT_TRUE(same_file(file.ref().number, file.ref()));
}

TEST_F(Spawned, GetsTheSameDescriptorTwiceIfAsked) {
  const Fd file = unlinked_file();
  start({{file.ref(), 3}, {file.ref(), 4}});
  EXPECT_TRUE(same_file(3, file.ref()));
  EXPECT_TRUE(same_file(4, file.ref()));
}

TEST_F(Spawned, HasNullDevicesForItsStandardStreams) {
  start({});
  const Fd null(::open("/dev/null", O_RDWR | O_CLOEXEC));
  EXPECT_TRUE(same_file(0, null.ref()));
  EXPECT_TRUE(same_file(1, null.ref()));
  EXPECT_EQ(same_file(2, null.ref()), !kSanitizerBuild);
}

TEST_F(Spawned, IsCalledByItsTitle) {
  start({});
  EXPECT_EQ(read("cmdline"), std::string("a title") + '\0');
}

TEST_F(Spawned, HasNoEnvironment) {
  start({});
  EXPECT_EQ(read("environ").empty(), !kSanitizerBuild);
}

TEST_F(Spawned, IgnoresAndBlocksNoSignal) {
  sigset_t blocked;
  sigset_t before;
  ::sigemptyset(&blocked);
  ::sigaddset(&blocked, SIGTERM);
  ::pthread_sigmask(SIG_BLOCK, &blocked, &before);
  const auto old = ::signal(SIGPIPE, SIG_IGN);
  start({});
  ::signal(SIGPIPE, old);
  ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
  const std::string status = read("status");
  EXPECT_THAT(status, testing::HasSubstr("SigBlk:\t0000000000000000\n"));
  EXPECT_THAT(status, testing::HasSubstr("SigIgn:\t0000000000000000\n"));
}

TEST_F(Spawned, LeavesTheCallersSignalsAsTheyWere) {
  sigset_t before;
  sigset_t after;
  ::pthread_sigmask(SIG_SETMASK, nullptr, &before);
  start({});
  ::pthread_sigmask(SIG_SETMASK, nullptr, &after);
  EXPECT_EQ(::sigismember(&before, SIGTERM), ::sigismember(&after, SIGTERM));
  EXPECT_EQ(::sigismember(&after, SIGSEGV), 0);
}

TEST_F(Spawned, LeadsASessionOfItsOwn) {
  start({});
  EXPECT_EQ(::getsid(child_.pid), child_.pid);
}

TEST_F(Spawned, IsRootOfItsNamespacesAndSomebodyElseOutside) {
  start({}, CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNS);
  EXPECT_THAT(read("status"), testing::HasSubstr("Uid:\t100200\t100200\t100200\t100200\n"));
  EXPECT_THAT(read("status"), testing::HasSubstr("Gid:\t100200\t100200\t100200\t100200\n"));
  EXPECT_THAT(read("uid_map"), testing::ContainsRegex("^ +0 +100200 +1\n$"));
  EXPECT_THAT(read("gid_map"), testing::ContainsRegex("^ +0 +100200 +1\n$"));
}

TEST(Spawn, SaysWhichStepFailed) {
  const Fd program = open_program("/dev/null");
  SpawnRequest request;
  request.program = program.ref();
  const auto spawned = spawn(request);
  ASSERT_FALSE(spawned);
  EXPECT_STREQ(spawned.error().what, "spawn: exec");
  EXPECT_EQ(spawned.error().os_errno, EACCES);
}

TEST(Spawn, LeavesNoChildBehindWhereItFails) {
  const Fd program = open_program("/dev/null");
  SpawnRequest request;
  request.program = program.ref();
  ASSERT_FALSE(spawn(request));
  EXPECT_EQ(::waitpid(-1, nullptr, WNOHANG), -1);
  EXPECT_EQ(errno, ECHILD);
}

TEST(Spawn, RefusesTheNumbersOfStandardStreams) {
  const Fd program = own_program();
  const DescriptorAt wrong[] = {{program.ref(), 2}};
  SpawnRequest request;
  request.program = program.ref();
  request.descriptors = wrong;
  const auto spawned = spawn(request);
  ASSERT_FALSE(spawned);
  EXPECT_EQ(spawned.error().os_errno, EINVAL);
}

TEST(Spawn, RefusesOneNumberForTwo) {
  const Fd program = own_program();
  const DescriptorAt wrong[] = {{program.ref(), 3}, {program.ref(), 3}};
  SpawnRequest request;
  request.program = program.ref();
  request.descriptors = wrong;
  EXPECT_FALSE(spawn(request));
}

TEST(Spawn, RefusesAProgramThatIsNotThere) {
  const auto spawned = spawn({});
  ASSERT_FALSE(spawned);
  EXPECT_EQ(spawned.error().os_errno, EBADF);
}

TEST(Spawn, ReportsADescriptorThatIsClosed) {
  const Fd program = own_program();
  const DescriptorAt closed[] = {{common::FdRef{900}, 3}};
  SpawnRequest request;
  request.program = program.ref();
  request.descriptors = closed;
  const auto spawned = spawn(request);
  ASSERT_FALSE(spawned);
  EXPECT_STREQ(spawned.error().what, "spawn: move descriptors");
  EXPECT_EQ(spawned.error().os_errno, EBADF);
}

struct stat network_of(const std::string& process) {
  struct stat status {};
  EXPECT_EQ(::stat(("/proc/" + process + "/ns/net").c_str(), &status), 0);
  return status;
}

TEST(EmptyNetwork, LeavesTheCallerWhereItIs) {
  const auto before = network_of("thread-self");
  const auto network = make_empty_network();
  ASSERT_TRUE(network) << network.error().what;
  EXPECT_EQ(network_of("thread-self").st_ino, before.st_ino);
}

TEST_F(Spawned, StartsInTheNetworkItIsGiven) {
  const auto before = network_of("thread-self");
  const auto network = make_empty_network();
  ASSERT_TRUE(network) << network.error().what;
  start({}, CLONE_NEWUSER, network->ref());

  struct stat wanted {};
  ASSERT_EQ(::fstat(network->ref().number, &wanted), 0);
  EXPECT_EQ(network_of(std::to_string(child_.pid)).st_ino, wanted.st_ino);
  EXPECT_EQ(network_of("thread-self").st_ino, before.st_ino);
}

TEST(ProbeNamespaces, FindsAllSevenForRoot) {
  const NamespaceSupport support = probe_namespaces();
  EXPECT_EQ(support.os_errno, 0);
  EXPECT_EQ(support.flags,
            static_cast<std::uint32_t>(CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWNET |
                                       CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWCGROUP));
}

}  // namespace
}  // namespace policy
