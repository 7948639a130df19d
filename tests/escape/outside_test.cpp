// tests/escape/outside_test.cpp: a sealed process as the kernel shows it to others.
#include <dirent.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <fstream>
#include <set>
#include <sstream>
#include <string>

#include "policy/exporter.h"
#include "policy/keeper.h"
#include "policy/posture.h"
#include "policy/proc_files.h"
#include "policy/sanitizer.h"
#include "policy/session.h"
#include "policy/worker_blk.h"
#include "policy/worker_net.h"
#include "tests/escape/run_escapee.h"

namespace escape {
namespace {

using common::Layer;
using policy::LayerState;
using testing::HasSubstr;

struct Expected {
  const policy::Profile* profile;
  const char* open_files;  // As in /proc/PID/limits; null: as many as this host lets us have.
};
void PrintTo(const Expected& each, std::ostream* out) { *out << each.profile->name; }

class Outside : public testing::TestWithParam<Expected> {
 protected:
  void SetUp() override {
    auto started = Escapee::start({.profile = GetParam().profile}, try_act(Act::kSleep));
    ASSERT_TRUE(started);
    escapee_.emplace(*std::move(started));
    ASSERT_TRUE(escapee_->wait_until_sealed());
  }
  [[nodiscard]] std::string path(const std::string& name) const {
    return "/proc/" + std::to_string(escapee_->pid()) + "/" + name;
  }
  [[nodiscard]] std::string read(const std::string& name) const {
    std::ifstream file(path(name));
    std::ostringstream text;
    text << file.rdbuf();
    return text.str();
  }
  [[nodiscard]] std::set<int> descriptors() const {
    std::set<int> numbers;
    DIR* const directory = ::opendir(path("fd").c_str());
    while (const dirent* const entry = directory == nullptr ? nullptr : ::readdir(directory)) {
      if (entry->d_name[0] != '.') numbers.insert(std::atoi(entry->d_name));
    }
    if (directory != nullptr) ::closedir(directory);
    return numbers;
  }
  std::optional<Escapee> escapee_;
};

// Of the first three, sanitizer builds keep descriptor 2 only, for their report
// (policy/sanitizer.h).
TEST_P(Outside, HasExactlyTheDescriptorsOfItsProfile) {
  const auto& listed = GetParam().profile->descriptors;
  std::set<int> expected(listed.begin(), listed.end());
  if (policy::kSanitizerBuild) {
    expected.erase(STDIN_FILENO);
    expected.erase(STDOUT_FILENO);
    expected.insert(STDERR_FILENO);
  }
  EXPECT_EQ(descriptors(), expected);
}

TEST_P(Outside, HasNoCapabilityInAnySet) {
  const std::string status = read("status");
  EXPECT_THAT(status, HasSubstr("CapInh:\t0000000000000000\n"));
  EXPECT_THAT(status, HasSubstr("CapPrm:\t0000000000000000\n"));
  EXPECT_THAT(status, HasSubstr("CapEff:\t0000000000000000\n"));
  EXPECT_THAT(status, HasSubstr("CapBnd:\t0000000000000000\n"));
  EXPECT_THAT(status, HasSubstr("CapAmb:\t0000000000000000\n"));
}

// Besides the filters that it has from us, where the tests run in a container.
TEST_P(Outside, HasOneFilterAndNoNewPrivileges) {
  const std::string status = read("status");
  const auto ours = policy::read_status(::getpid());
  ASSERT_TRUE(ours);
  const int filters = std::atoi(policy::value_of(*ours, "Seccomp_filters").c_str()) + 1;
  EXPECT_THAT(status, HasSubstr("NoNewPrivs:\t1\n"));
  EXPECT_THAT(status, HasSubstr("Seccomp:\t2\n"));
  EXPECT_THAT(status, HasSubstr("Seccomp_filters:\t" + std::to_string(filters) + "\n"));
}

TEST_P(Outside, RunsUnderItsOwnUidWithoutGroups) {
  const std::string status = read("status");
  const std::string uid = std::to_string(kUid);
  EXPECT_THAT(status, HasSubstr("Uid:\t" + uid + "\t" + uid + "\t" + uid + "\t" + uid + "\n"));
  EXPECT_THAT(status, HasSubstr("Gid:\t" + uid + "\t" + uid + "\t" + uid + "\t" + uid + "\n"));
  EXPECT_THAT(status, testing::ContainsRegex("Groups:\t *\n"));
}

TEST_P(Outside, IsProcessOneOfItsOwnPidNamespace) {
  EXPECT_THAT(read("status"), HasSubstr("NSpid:\t" + std::to_string(escapee_->pid()) + "\t1\n"));
}

TEST_P(Outside, SharesNoNamespaceWithItsBroker) {
  for (const char* const name : {"user", "pid", "mnt", "net", "ipc", "uts", "cgroup"}) {
    struct stat own {};
    struct stat brokers {};
    ASSERT_EQ(::stat(path(std::string("ns/") + name).c_str(), &own), 0) << name;
    ASSERT_EQ(::stat((std::string("/proc/self/ns/") + name).c_str(), &brokers), 0) << name;
    EXPECT_NE(own.st_ino, brokers.st_ino) << name;
  }
}

TEST_P(Outside, SeesAnEmptyReadOnlyRoot) {
  const std::string mounts = read("mountinfo");
  EXPECT_EQ(std::count(mounts.begin(), mounts.end(), '\n'), 1) << mounts;
  EXPECT_THAT(mounts, HasSubstr(" / / ro,nosuid,nodev,noexec"));
  struct stat root {};
  ASSERT_EQ(::stat(path("root/").c_str(), &root), 0);
  EXPECT_EQ(root.st_nlink, 2U);  // No directory in it.
}

TEST_P(Outside, HasItsLimits) {
  const std::string limits = read("limits");
  EXPECT_THAT(limits, testing::ContainsRegex("Max core file size +1 +1 "));
  EXPECT_THAT(limits, testing::ContainsRegex("Max locked memory +0 +0 "));
  rlimit ours{};
  ASSERT_EQ(::getrlimit(RLIMIT_NOFILE, &ours), 0);
  const std::string most =
      std::to_string(std::min<rlim_t>(ours.rlim_max, policy::kKeeperDescriptorsMax));
  const std::string expected = GetParam().open_files != nullptr ? GetParam().open_files : most;
  EXPECT_THAT(limits, testing::ContainsRegex("Max open files +" + expected + " +"));
}

TEST_P(Outside, HasNoMemoryThatIsWritableAndExecutable) {
  const std::string maps = read("maps");
  EXPECT_THAT(maps, HasSubstr("r-xp"));
  EXPECT_THAT(maps, testing::Not(testing::ContainsRegex("wx[ps] ")));
}

TEST_P(Outside, IsNotDumpable) {
  // Its files are those of root inside its namespace, and a core would be skipped; posture_test
  // says how that is known. Here: even its own environment is closed to its own uid.
  const auto posture = policy::read_posture(escapee_->pid(), nullptr);
  ASSERT_TRUE(posture);
  const auto& view = posture->layers[static_cast<std::size_t>(Layer::kNotDumpable)];
  EXPECT_TRUE(view.state == LayerState::kEnforced || view.state == LayerState::kUnknown)
      << view.reason;
}

TEST_P(Outside, HasAPostureThatSaysSo) {
  const auto claimed = escapee_->layers();
  const auto posture = policy::read_posture(escapee_->pid(), &claimed);
  ASSERT_TRUE(posture);
  ASSERT_EQ(posture->layers.size(), common::kLayerCount);
  for (const policy::LayerView& view : posture->layers) {
    if (!common::strict_requires(view.layer)) continue;
    if (view.layer == Layer::kLandlock && !landlock_is_complete()) continue;
    EXPECT_EQ(view.state, LayerState::kEnforced)
        << common::layer_name(view.layer) << ": " << view.reason;
  }
  EXPECT_TRUE(posture->suspicious_maps.empty());
  EXPECT_EQ(posture->title, "bulkhead-escapee");
}

TEST_P(Outside, HasAnEmptyEnvironment) {
  if constexpr (!policy::kSanitizerBuild) {
    EXPECT_EQ(read("environ"), "");
  }
}

INSTANTIATE_TEST_SUITE_P(
    Sealed, Outside,
    testing::Values(Expected{&policy::kSession, "1088"}, Expected{&policy::kKeeper, nullptr},
                    Expected{&policy::kExporter, "64"}, Expected{&policy::kWorkerBlkUring, "0"},
                    Expected{&policy::kWorkerBlkFallback, "11"},
                    Expected{&policy::kWorkerBlkFallbackDirect, "11"},
                    Expected{&policy::kWorkerNetReceiveUring, "0"},
                    Expected{&policy::kWorkerNetTransmitUring, "0"},
                    Expected{&policy::kWorkerNetReceiveFallback, "10"},
                    Expected{&policy::kWorkerNetTransmitFallback, "10"},
                    Expected{&policy::kWorkerNetControl, "10"}),
    [](const auto& each) {
      std::string name(each.param.profile->name);
      std::replace_if(
          name.begin(), name.end(), [](unsigned char c) { return std::isalnum(c) == 0; }, '_');
      return name;
    });

}  // namespace
}  // namespace escape
