// The audit trail of the real programs: what is granted, refused and dies is in it, once, and it
// shows what was done to it since.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <linux/capability.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <memory>
#include <sstream>
#include <string>
#include <vector>

#include "tests/fakes/hijack.h"
#include "tests/fakes/process.h"
#include "tests/integration/host.h"

namespace integration {
namespace {

using fakes::BlkClient;
using testing::AllOf;
using testing::Contains;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;
using testing::UnorderedElementsAre;

bool may_write_kernels_log(pid_t pid) {
  std::ifstream status("/proc/" + std::to_string(pid) + "/status");
  for (std::string line; std::getline(status, line);) {
    if (!line.starts_with("CapEff:")) continue;
    return ((std::stoull(line.substr(7), nullptr, 16) >> CAP_AUDIT_WRITE) & 1) != 0;
  }
  return false;
}

class Audit : public testing::Test {
 protected:
  [[nodiscard]] std::string log_path() const { return log_dir_.file("audit.log"); }
  [[nodiscard]] Disk disk(const std::vector<std::string>& options = {}) const {
    Disk disk{.options = {"--audit-log=" + log_path(), "--audit=required"}};
    disk.options.insert(disk.options.end(), options.begin(), options.end());
    return disk;
  }
  // One VMM that comes, uses the disk, and goes.
  void serve_one_vmm() {
    auto client = host_.connect();
    expect_serves(client->queue());
    client.reset();
    EXPECT_THAT(host_.broker().wait_for_line({"closed by the VMM"}), Not(IsEmpty()));
    EXPECT_THAT(host_.broker().wait_for_line({"worker vda/0 stopped: drained"}), Not(IsEmpty()));
  }
  // The same, until its session is gone.
  void visit() {
    auto client = host_.connect();
    expect_serves(client->queue());
    const std::vector<pid_t> sessions = host_.sessions();
    ASSERT_EQ(sessions.size(), 1U);
    client.reset();
    ASSERT_TRUE(fakes::wait_gone(sessions.front()));
  }
  void stop() {
    host_.broker().signal(SIGTERM);
    EXPECT_EQ(host_.broker().wait_exit(), 0);
  }
  [[nodiscard]] pid_t worker() {
    const std::vector<pid_t> all = host_.broker().children_named("vda/0");
    return all.empty() ? -1 : all.front();
  }
  // "vmm-connected", … in order.
  [[nodiscard]] static std::vector<std::string> events(const std::string& path) {
    const std::string mark = R"("event":")";
    std::vector<std::string> names;
    std::ifstream file(path);
    for (std::string line; std::getline(file, line);) {
      const std::size_t at = line.find(mark) + mark.size();
      names.push_back(line.substr(at, line.find('"', at) - at));
    }
    return names;
  }
  [[nodiscard]] std::vector<std::string> events() const { return events(log_path()); }
  [[nodiscard]] std::string text() const {
    std::stringstream text;
    text << std::ifstream(log_path()).rdbuf();
    return text.str();
  }
  // `bulkhead audit verify`: the exit status, and what it prints.
  [[nodiscard]] std::string verified(const std::vector<std::string>& files, int status) {
    std::vector<std::string> arguments = {"audit", "verify"};
    arguments.insert(arguments.end(), files.begin(), files.end());
    host_.run(arguments);
    EXPECT_EQ(host_.broker().wait_exit(), status) << host_.broker().log();
    return host_.broker().log();
  }

  Host host_{kAuto};
  fakes::TempDir log_dir_{BULKHEAD_TEST_IMAGES};
};

TEST_F(Audit, HasTheLifeOfADevice) {
  host_.serve(disk({"--vm-name=web", "--vm-uuid=6BA7B810-9dad-11d1-80b4-00c04fd430c8"}));
  serve_one_vmm();
  stop();
  const std::vector<std::string> all = events();
  EXPECT_THAT(
      all, UnorderedElementsAre("audit-opened", "broker-started", "device-added", "backing-opened",
                                "vmm-connected", "session-started", "process-jailed",
                                "worker-started", "process-jailed", "worker-ended", "session-ended",
                                "vmm-disconnected", "device-removed", "broker-stopped"));
  const auto place = [&](const char* name) { return std::find(all.begin(), all.end(), name); };
  EXPECT_LT(place("backing-opened"), place("vmm-connected"));
  EXPECT_LT(place("vmm-connected"), place("session-started"));
  EXPECT_LT(place("session-started"), place("worker-started"));
  EXPECT_LT(place("worker-ended"), place("vmm-disconnected"));
  EXPECT_LT(place("vmm-disconnected"), place("device-removed"));
  EXPECT_THAT(text(), HasSubstr(R"("vm":"web","uuid":"6ba7b810-9dad-11d1-80b4-00c04fd430c8")"));
  EXPECT_THAT(text(), HasSubstr("\"path\":\"" + host_.image() + "\",\"access\":\"read-write\""));
  EXPECT_THAT(text(), HasSubstr("\"pid\":" + std::to_string(::getpid()) +
                                ",\"uid\":" + std::to_string(::getuid())));
  EXPECT_THAT(verified({log_path()}, 0), HasSubstr("The chain is whole."));
}

TEST_F(Audit, NamesTheFileThatALinkLedTo) {
  const Disk real = disk();
  (void)host_.blk_arguments(real);  // Makes the image.
  const std::string link = log_dir_.file("by-id");
  std::filesystem::create_symlink(host_.image(), link);
  host_.serve({.options = real.options, .file = link});
  stop();
  EXPECT_THAT(text(), HasSubstr("\"path\":\"" + host_.image() + "\""));
}

TEST_F(Audit, HasTheVmmThatWasTurnedAway) {
  host_.serve(disk({"--allow-uid=4294967000"}));
  (void)host_.connect_raw();
  EXPECT_THAT(host_.broker().wait_for_line({"refused", "--allow-uid"}), Not(IsEmpty()));
  stop();
  EXPECT_THAT(events(), AllOf(Contains("vmm-refused"), Not(Contains("vmm-connected"))));
}

TEST_F(Audit, HasTheDeathOfAWorkerAndItsRestart) {
  host_.serve(disk());
  const auto client = host_.connect();
  expect_serves(client->queue());
  ASSERT_EQ(::kill(worker(), SIGKILL), 0);
  EXPECT_THAT(host_.broker().wait_for_line({"queue 0 is served again"}), Not(IsEmpty()));
  stop();
  EXPECT_THAT(events(), AllOf(Contains("worker-restarted"), Contains("worker-started").Times(2),
                              Contains("worker-ended").Times(2)));
  EXPECT_THAT(text(), HasSubstr(R"("outcome":"died","cause":"killed by SIGKILL)"));
}

TEST_F(Audit, HasTheWorkerThatDidWhatItMustNot) {
  host_.serve(disk());
  const auto client = host_.connect();
  expect_serves(client->queue());
  fakes::make_it_call(worker(), SYS_getppid);
  EXPECT_THAT(host_.broker().wait_for_line({"queue 0 is not served any more"}), Not(IsEmpty()));
  // Its explanation may come from the kernel a little later.
  EXPECT_THAT(host_.broker().wait_for_line({"worker vda/0", "killed by seccomp"}), Not(IsEmpty()));
  stop();
  EXPECT_THAT(events(), AllOf(Contains("policy-violation"), Contains("queue-given-up")));
}

TEST_F(Audit, HasTheDiskThatWasRefused) {
  Disk missing = disk();
  missing.file = log_dir_.file("none.img");
  host_.run(host_.blk_arguments(missing));
  EXPECT_EQ(host_.broker().wait_exit(), 1);
  EXPECT_THAT(events(), testing::ElementsAre("audit-opened", "broker-started", "device-refused",
                                             "broker-stopped"));
}

TEST_F(Audit, IsOneChainThroughRotationsRestartsAndAKilledBroker) {
  host_.serve(disk());
  serve_one_vmm();
  std::filesystem::rename(log_path(), log_path() + ".1");
  host_.broker().signal(SIGUSR2);
  stop();
  EXPECT_THAT(events(), Contains("audit-opened"));  // In the new file.
  host_.serve(disk());
  host_.broker().signal(SIGKILL);
  EXPECT_EQ(host_.broker().wait_exit(), 128 + SIGKILL);
  host_.serve(disk());
  stop();
  EXPECT_THAT(verified({log_path(), log_path() + ".1"}, 0), HasSubstr("The chain is whole."));
}

TEST_F(Audit, ShowsThatALineIsMissing) {
  host_.serve(disk());
  stop();
  std::string lines = text();
  const std::size_t second = lines.find('\n') + 1;
  lines.erase(second, lines.find('\n', second) + 1 - second);
  std::ofstream(log_path()) << lines;
  EXPECT_THAT(verified({log_path()}, 1), HasSubstr("event 2 is missing before event 3"));
}

TEST_F(Audit, ShowsThatItsEndWasCutOffByTheHeadInTheBrokersLog) {
  host_.serve(disk());
  stop();
  const std::string line = host_.broker().wait_for_line({"the audit log ends at event"});
  const std::string head = line.substr(line.find(", head ") + 7);
  const std::string lines = text();
  std::ofstream(log_path()) << lines.substr(0, lines.find('\n') + 1);
  EXPECT_THAT(verified({"--head=" + head, log_path()}, 1), HasSubstr("the log was cut off"));
}

TEST_F(Audit, SaysWhatAFullDiskHasLost) {
  // 8 KiB: what is behind the filler belongs to the log.
  const std::string small = log_dir_.file("small");
  std::filesystem::create_directory(small);
  ASSERT_EQ(::mount("tmpfs", small.c_str(), "tmpfs", 0, "size=8k,mode=0755"), 0);
  const std::string log = small + "/audit.log";
  const std::string filler = small + "/filler";
  host_.serve({.options = {"--audit-log=" + log, "--audit=required"}});
  std::ofstream(filler) << std::string(4096, 'x');
  for (int vmm = 0; vmm < 4; ++vmm) visit();
  EXPECT_THAT(host_.broker().wait_for_line({"events are lost to the audit log", "No space left"}),
              Not(IsEmpty()));
  visit();  // The broker goes on.
  std::filesystem::remove(filler);
  stop();
  // Once for each gap: what says that events were lost may fit in where none of them did.
  EXPECT_THAT(events(log), Contains("events-lost"));
  EXPECT_EQ(events(log).back(), "broker-stopped");
  EXPECT_THAT(verified({log}, 0), HasSubstr("events were lost before event"));
  EXPECT_EQ(::umount2(small.c_str(), MNT_DETACH), 0);
}

TEST_F(Audit, HasTheRightToWriteTheKernelsLogKeptOnlyForThat) {
  host_.serve();
  ASSERT_THAT(host_.broker().wait_for_line({"vda: serving"}), Not(IsEmpty()));
  EXPECT_FALSE(may_write_kernels_log(host_.broker().pid()));
  host_.serve({.options = {"--audit-kernel=resources"}});
  ASSERT_THAT(host_.broker().wait_for_line({"vda: serving"}), Not(IsEmpty()));
  EXPECT_EQ(may_write_kernels_log(host_.broker().pid()), may_write_kernels_log(::getpid()));
}

TEST_F(Audit, KeepsABrokerFromStartingWhereItIsRequiredAndCannotBeHad) {
  std::ofstream(log_path()) << "";
  std::filesystem::permissions(log_path(), std::filesystem::perms::all);
  host_.run(host_.blk_arguments(disk()));
  EXPECT_EQ(host_.broker().wait_exit(), 1);
  EXPECT_THAT(host_.broker().log(), HasSubstr("too wide"));
}

}  // namespace
}  // namespace integration
