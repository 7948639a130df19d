// tests/integration/exporter_test.cpp: bulkhead-exporter, as systemd starts it, beside a broker.
#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <linux/seccomp.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <fstream>
#include <iterator>
#include <memory>
#include <set>
#include <sstream>

#include "policy/exporter.h"
#include "policy/sanitizer.h"
#include "tests/fakes/failure.h"
#include "tests/fakes/process.h"
#include "tests/fakes/vhost_frontend.h"
#include "tests/integration/operated.h"

namespace integration {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

constexpr auto kPatienceMs = static_cast<int>(std::chrono::milliseconds(fakes::kPatience).count());

common::Fd tcp_socket() { return common::Fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)); }

class Exporter : public OperatedTest {
 protected:
  Exporter() : listener_(tcp_socket()) {
    sockaddr_in loopback{};
    loopback.sin_family = AF_INET;
    loopback.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    auto* const raw = reinterpret_cast<sockaddr*>(&address_);
    socklen_t bytes = sizeof(address_);
    const int fd = listener_.ref().number;
    fakes::require_call(::bind(fd, reinterpret_cast<const sockaddr*>(&loopback), bytes) == 0 &&
                            ::listen(fd, 8) == 0 && ::getsockname(fd, raw, &bytes) == 0,
                        "listen");
  }

  void launch_exporter(const std::string& posture = "any",
                       const std::vector<fakes::RefusedCall>& refused = {}) {
    exporter_ = std::make_unique<fakes::BrokerProcess>(fakes::BrokerProcess::Setup{
        .program = "/bin/sh",
        .arguments = {"-c", R"(LISTEN_PID=$$ exec "$0" "$@")", BULKHEAD_EXPORTER,
                      "--control-socket=" + control(), "--require-posture=" + posture},
        .environment = {"LISTEN_FDS=1"},
        .inherit = {listener_.ref()},
        .drop_root = true,
        .refused = refused});
  }
  void start_exporter() {
    launch_exporter();
    exporter_->wait_ready();
  }

  [[nodiscard]] std::string get_metrics(const common::Fd& client = tcp_socket()) const {
    const auto* const raw = reinterpret_cast<const sockaddr*>(&address_);
    const int fd = client.ref().number;
    const std::string request = "GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n";
    fakes::require_call(::connect(fd, raw, sizeof(address_)) == 0 &&
                            ::send(fd, request.data(), request.size(), MSG_NOSIGNAL) > 0,
                        "connect to the exporter");
    std::string all;
    std::array<char, 4096> part{};
    while (true) {
      pollfd waiting{fd, POLLIN, 0};
      fakes::require(::poll(&waiting, 1, kPatienceMs) == 1, "the exporter does not answer");
      const ssize_t got = ::recv(fd, part.data(), part.size(), 0);
      if (got <= 0) return all;
      all.append(part.data(), static_cast<std::size_t>(got));
    }
  }

  common::Fd listener_;
  sockaddr_in address_{};
  std::unique_ptr<fakes::BrokerProcess> exporter_;
};

TEST_F(Exporter, GivesWhatABrokerCounts) {
  serve({{.name = "vda"}}, {"--control-read-group=65534"});
  const auto vda = host_.connect();
  expect_serves(vda->queue());
  start_exporter();
  const std::string answer = get_metrics();
  EXPECT_THAT(answer, StartsWith("HTTP/1.1 200 "));
  EXPECT_THAT(answer, HasSubstr("bulkhead_block_requests_total{device=\"vda\",op=\"read\"} 2\n"));
  EXPECT_THAT(answer, HasSubstr("bulkhead_request_duration_seconds_count{device=\"vda\","
                                "queue=\"0\",op=\"write\"} 1\n"));
}

TEST_F(Exporter, SaysThatItMayNotLook) {
  serve({{.name = "vda"}});
  start_exporter();
  const std::string answer = get_metrics();
  EXPECT_THAT(answer, StartsWith("HTTP/1.1 503 "));
  EXPECT_THAT(answer, HasSubstr("--control-read-group"));
}

TEST_F(Exporter, SaysThatItsBrokerHasGone) {
  serve({{.name = "vda"}}, {"--control-read-group=65534"});
  start_exporter();
  EXPECT_EQ(ask({"stop", "--all"}).exit_code, 0);
  EXPECT_EQ(host_.broker().wait_exit(), 0);
  const std::string answer = get_metrics();
  EXPECT_THAT(answer, StartsWith("HTTP/1.1 503 "));
  EXPECT_THAT(answer, HasSubstr("start bulkhead serve"));
}

TEST_F(Exporter, SaysThatItsBrokerIsStoppedAndGoesOnWithIt) {
  serve({{.name = "vda"}}, {"--control-read-group=65534"});
  start_exporter();
  host_.broker().signal(SIGSTOP);
  siginfo_t info{};
  ASSERT_EQ(::waitid(P_PID, static_cast<id_t>(host_.broker().pid()), &info, WSTOPPED), 0);
  const std::string answer = get_metrics();
  EXPECT_THAT(answer, StartsWith("HTTP/1.1 503 "));
  EXPECT_THAT(answer, HasSubstr("has not answered for 5 s"));
  host_.broker().signal(SIGCONT);
  // The same page answers all who ask within a second.
  std::string later;
  do {
    later = get_metrics();
  } while (later.starts_with("HTTP/1.1 503 "));
  EXPECT_THAT(later, StartsWith("HTTP/1.1 200 "));
}

// More than fits on its way: the exporter's list has what it takes to go on later.
TEST_F(Exporter, GivesAllOfALongPageToASlowClient) {
  constexpr int kDisks = 80;
  std::vector<Disk> disks;
  for (int i = 0; i < kDisks; ++i)
    disks.push_back({.name = "vd" + std::to_string(i), .bytes = 1 << 16});
  serve(disks, {"--control-read-group=65534"});
  const int least = 1;  // The kernel makes it some KiB.
  ::setsockopt(listener_.ref().number, SOL_SOCKET, SO_SNDBUF, &least, sizeof(least));
  start_exporter();
  const common::Fd client = tcp_socket();
  ::setsockopt(client.ref().number, SOL_SOCKET, SO_RCVBUF, &least, sizeof(least));
  const std::string answer = get_metrics(client);
  const std::size_t announced = answer.find("Content-Length: ");
  const std::size_t body = answer.find("\r\n\r\n");
  ASSERT_NE(announced, std::string::npos);
  ASSERT_NE(body, std::string::npos);
  EXPECT_EQ(std::stoul(answer.substr(announced + 16)), answer.size() - body - 4);
  EXPECT_TRUE(exporter_->running());
}

TEST_F(Exporter, DoesNotRunAsRoot) {
  if (::geteuid() != 0) GTEST_SKIP() << "needs root to be refused as root";
  fakes::BrokerProcess exporter({.program = BULKHEAD_EXPORTER, .notify = false});
  EXPECT_EQ(exporter.wait_exit(), 1);
  EXPECT_THAT(exporter.log(), HasSubstr("must not run as root"));
}

TEST_F(Exporter, RefusesToListenForOthers) {
  fakes::BrokerProcess exporter({.program = BULKHEAD_EXPORTER,
                                 .arguments = {"--listen=0.0.0.0:9821"},
                                 .notify = false,
                                 .drop_root = true});
  EXPECT_EQ(exporter.wait_exit(), 1);
  EXPECT_THAT(exporter.log(), HasSubstr("--listen must be a loopback address"));
}

// --- its jail: policy/exporter.h
// -------------------------------------------------------------------

std::set<int> descriptors_of(pid_t pid) {
  std::set<int> numbers;
  for (const std::string& each : fakes::descriptors_of(pid)) numbers.insert(std::stoi(each));
  return numbers;
}

TEST_F(Exporter, HasExactlyTheDescriptorsOfItsPage) {
  serve({{.name = "vda"}}, {"--control-read-group=65534"});
  start_exporter();
  EXPECT_THAT(get_metrics(), StartsWith("HTTP/1.1 200 "));
  const std::set<int> page(std::begin(policy::kExporterFds), std::end(policy::kExporterFds));
  // Between waits for its death: it has yet to close what that client was.
  const auto until = std::chrono::steady_clock::now() + fakes::kPatience;
  const common::Fd pidfd(static_cast<int>(::syscall(SYS_pidfd_open, exporter_->pid(), 0)));
  pollfd ended{pidfd.ref().number, POLLIN, 0};
  while (descriptors_of(exporter_->pid()) != page && std::chrono::steady_clock::now() < until) {
    ASSERT_EQ(::poll(&ended, 1, 1), 0);
  }
  EXPECT_EQ(descriptors_of(exporter_->pid()), page);
}

TEST_F(Exporter, HasNoRightsAndItsOwnFilter) {
  serve({{.name = "vda"}}, {"--control-read-group=65534"});
  start_exporter();
  const auto field = [&](const char* name) { return fakes::status_field(exporter_->pid(), name); };
  const std::string none(16, '0');
  for (const char* const set : {"CapInh", "CapPrm", "CapEff", "CapAmb"}) {
    EXPECT_EQ(field(set), none) << set;
  }
  EXPECT_EQ(field("NoNewPrivs"), "1");
  EXPECT_EQ(field("Threads"), "1");
  if (!policy::kSanitizerBuild) {
    EXPECT_EQ(field("Seccomp"), "2");
  }
  // Its files are root's, whoever it runs as: not dumpable.
  struct stat environment {};
  const std::string path = "/proc/" + std::to_string(exporter_->pid()) + "/environ";
  ASSERT_EQ(::stat(path.c_str(), &environment), 0);
  EXPECT_EQ(environment.st_uid, 0U);
}

// As somebody would who has taken it over by what he sent.
TEST_F(Exporter, DiesOfACallThatIsNotOnItsPage) {
  if (policy::kSanitizerBuild) return;  // Which has no filter.
  start_exporter();
  ASSERT_TRUE(fakes::inject_system_call(exporter_->pid(), SYS_openat));
  EXPECT_EQ(exporter_->wait_exit(), 128 + SIGSYS);
}

TEST_F(Exporter, HasItsLimits) {
  serve({{.name = "vda"}}, {"--control-read-group=65534"});
  start_exporter();
  std::ifstream file("/proc/" + std::to_string(exporter_->pid()) + "/limits");
  std::ostringstream limits;
  limits << file.rdbuf();
  EXPECT_THAT(limits.str(), testing::ContainsRegex("Max core file size +1 +1 "));
  EXPECT_THAT(limits.str(), testing::ContainsRegex("Max processes +0 +0 "));
  EXPECT_THAT(limits.str(), testing::ContainsRegex("Max locked memory +0 +0 "));
  EXPECT_THAT(limits.str(), testing::ContainsRegex("Max open files +64 +64 "));
}

// Each step of its setting up fails in turn.
struct Fault {
  const char* name;
  fakes::RefusedCall call;
  bool serves;         // Without that layer, and says so.
  bool strict_serves;  // Strict does not ask for it.
  const char* said;
};
void PrintTo(const Fault& fault, std::ostream* out) { *out << fault.name; }

fakes::RefusedCall refused_prctl(std::uint32_t option) {
  return {.number = SYS_prctl, .os_errno = EPERM, .argument = 0, .value = option};
}

std::vector<Fault> every_fault() {
  constexpr std::uint32_t kSetMdwe = 65;
  std::vector<Fault> faults = {
      {"Capabilities", {.number = SYS_capset, .os_errno = EPERM}, false, false, "capabilities"},
      {"NoNewPrivs", refused_prctl(PR_SET_NO_NEW_PRIVS), false, false, "no_new_privs"},
      {"Dumpable", refused_prctl(PR_SET_DUMPABLE), false, false, "dumpable"},
      {"Landlock",
       {.number = SYS_landlock_create_ruleset, .os_errno = ENOSYS},
       true,
       false,
       "landlock (Function not implemented)"},
      {"Mdwe", refused_prctl(kSetMdwe), true, true, "mdwe (Operation not permitted)"},
  };
  if (!policy::kSanitizerBuild) {  // Whose run-time needs these calls itself, or has no filter.
    faults.push_back(
        {"Limits", {.number = SYS_prlimit64, .os_errno = EPERM}, true, false, "rlimits ("});
    faults.push_back({"Filter",
                      {.number = SYS_seccomp,
                       .os_errno = EPERM,
                       .argument = 0,
                       .value = SECCOMP_SET_MODE_FILTER},
                      false,
                      false,
                      "seccomp"});
    faults.push_back(
        {"CloseRange", {.number = SYS_close_range, .os_errno = ENOSYS}, false, false, "close"});
  }
  return faults;
}

class ExporterFault : public Exporter, public testing::WithParamInterface<Fault> {};
INSTANTIATE_TEST_SUITE_P(Each, ExporterFault, testing::ValuesIn(every_fault()),
                         [](const auto& each) { return each.param.name; });

TEST_P(ExporterFault, IsSaidAndItServesOrDoesNotStart) {
  serve({{.name = "vda"}}, {"--control-read-group=65534"});
  launch_exporter("any", {GetParam().call});
  if (GetParam().serves) {
    exporter_->wait_ready();
    EXPECT_THAT(get_metrics(), StartsWith("HTTP/1.1 200 "));
  } else {
    EXPECT_EQ(exporter_->wait_exit(), 1);
  }
  EXPECT_NE(exporter_->wait_for_line({"bulkhead-exporter: ", GetParam().said}), "");
}

TEST_P(ExporterFault, EndsAStrictOne) {
  launch_exporter("strict", {GetParam().call});
  if (GetParam().strict_serves) {
    exporter_->wait_ready();
    return;
  }
  EXPECT_EQ(exporter_->wait_exit(), 1);
  EXPECT_NE(exporter_->wait_for_line({"bulkhead-exporter: ", GetParam().said}), "");
}

}  // namespace
}  // namespace integration
