// Postures of processes that are in no jail, and the table. Those of jailed ones: tests/escape.
#include "policy/posture.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>

#include "common/fd.h"
#include "common/sys.h"
#include "policy/jail.h"

namespace policy {
namespace {

using common::Layer;
using common::LayerResult;
using testing::HasSubstr;

const LayerView& view_of(const ProcessPosture& posture, Layer layer) {
  return posture.layers[static_cast<std::size_t>(layer)];
}

// A child that does nothing, seen while it lives.
class Child {
 public:
  Child() : pid_(::fork()) {
    while (pid_ == 0) ::pause();
  }
  ~Child() {
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
  }
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;
  [[nodiscard]] pid_t pid() const { return pid_; }

 private:
  pid_t pid_;
};

TEST(Posture, CallsNothingEnforcedInAnOrdinaryProcess) {
  const Child child;
  const auto posture = read_posture(child.pid(), nullptr);
  ASSERT_TRUE(posture);
  ASSERT_EQ(posture->layers.size(), common::kLayerCount);
  for (const LayerView& view : posture->layers) {
    EXPECT_NE(view.state, LayerState::kEnforced) << common::layer_name(view.layer) << view.reason;
    EXPECT_FALSE(view.reason.empty()) << common::layer_name(view.layer);
  }
}

TEST(Posture, HasEachLayerInItsPlace) {
  const auto posture = read_posture(::getpid(), nullptr);
  ASSERT_TRUE(posture);
  for (std::size_t i = 0; i < posture->layers.size(); ++i) {
    EXPECT_EQ(posture->layers[i].layer, static_cast<Layer>(i));
  }
}

TEST(Posture, ListsDescriptorsByNumber) {
  const auto event = common::make_eventfd();
  ASSERT_TRUE(event);
  const auto posture = read_posture(::getpid(), nullptr);
  ASSERT_TRUE(posture);
  const std::string expected = std::to_string(event->ref().number) + " anon_inode:[eventfd]";
  EXPECT_THAT(posture->descriptors, testing::Contains(expected));
}

TEST(Posture, TakesTheProcessesWordOnlyForWhatTheKernelDoesNotShow) {
  common::LayerResults claimed{};
  claimed.fill({LayerResult::State::kEnforced, 7, 0});
  const Child child;
  const auto posture = read_posture(child.pid(), &claimed);
  ASSERT_TRUE(posture);
  EXPECT_EQ(view_of(*posture, Layer::kLandlock).state, LayerState::kEnforced);
  EXPECT_THAT(view_of(*posture, Layer::kLandlock).reason, HasSubstr("reported by the process"));
  EXPECT_THAT(view_of(*posture, Layer::kLandlock).reason, HasSubstr("ABI 7"));
  EXPECT_EQ(view_of(*posture, Layer::kSeccomp).state, LayerState::kAbsent);
  EXPECT_EQ(view_of(*posture, Layer::kUserNamespace).state, LayerState::kAbsent);
  EXPECT_EQ(view_of(*posture, Layer::kNoNewPrivs).state, LayerState::kAbsent);
}

TEST(Posture, SeesNoNewPrivs) {
  const pid_t pid = ::fork();
  if (pid == 0) {
    ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    const auto own = read_posture(::getpid(), nullptr);
    ::_exit(own && view_of(*own, Layer::kNoNewPrivs).state == LayerState::kEnforced ? 0 : 1);
  }
  int status = -1;
  ::waitpid(pid, &status, 0);
  EXPECT_EQ(status, 0);
}

TEST(Posture, FailsForAProcessThatIsNotThere) { EXPECT_FALSE(read_posture(0x7fffffff, nullptr)); }

TEST(ProcessTree, HasParentsBeforeChildren) {
  const Child first;
  const Child second;
  const auto tree = process_tree(::getpid());
  ASSERT_GE(tree.size(), 3U);
  EXPECT_EQ(tree.front(), ::getpid());
  EXPECT_THAT(tree, testing::Contains(first.pid()));
  EXPECT_THAT(tree, testing::Contains(second.pid()));
}

TEST(ProcessTree, IsEmptyForAProcessThatIsNotThere) {
  EXPECT_TRUE(process_tree(0x7fffffff).empty());
}

ProcessPosture worker(pid_t pid, LayerState seccomp) {
  ProcessPosture posture;
  posture.pid = pid;
  posture.role = ProcessRole::kWorker;
  posture.title = "bulkhead-worker-blk: vda/0";
  posture.layers = {{Layer::kNoNewPrivs, LayerState::kEnforced, "NoNewPrivs: 1"},
                    {Layer::kSeccomp, seccomp, "Seccomp: 2"}};
  return posture;
}

TEST(PostureTable, CountsEnforcedLayersOfEachProcess) {
  const std::string text = format_postures({worker(10, LayerState::kAbsent)});
  EXPECT_THAT(text, HasSubstr("bulkhead-worker-blk: vda/0"));
  EXPECT_THAT(text, HasSubstr("1/2"));
  EXPECT_THAT(text, HasSubstr("seccomp           absent    Seccomp: 2\n"));
}

TEST(PostureTable, PrintsProcessesThatAreAlikeOnce) {
  const std::string text =
      format_postures({worker(10, LayerState::kEnforced), worker(11, LayerState::kEnforced)});
  EXPECT_THAT(text, HasSubstr("worker 10 (bulkhead-worker-blk: vda/0), and alike 11\n"));
  EXPECT_THAT(text, testing::Not(HasSubstr("worker 11 (")));
}

TEST(PostureTable, NamesManyProcessesThatAreAlikeByRanges) {
  std::vector<ProcessPosture> postures;
  for (const pid_t pid : {10, 11, 12, 13, 15, 16}) {
    postures.push_back(worker(pid, LayerState::kEnforced));
  }
  EXPECT_THAT(format_postures(postures), HasSubstr(", and alike 11-13, 15, 16\n"));
}

TEST(PostureTable, ListsDescriptorsOfOneKindTogether) {
  ProcessPosture posture = worker(10, LayerState::kEnforced);
  posture.descriptors = {
      "0 /dev/null",           "3 socket:[11]",          "4 anon_inode:[eventfd]",
      "5 socket:[12]",         "6 anon_inode:[eventfd]", "7 anon_inode:[eventfd]",
      "8 anon_inode:[eventfd]"};
  EXPECT_THAT(format_postures({posture}),
              HasSubstr("  descriptors       0 /dev/null\n"
                        "                    3, 5 socket\n"
                        "                    4, 6-8 anon_inode:[eventfd]\n"));
}

TEST(PostureTable, ListsASocketThatIsAloneWithItsNumber) {
  ProcessPosture posture = worker(10, LayerState::kEnforced);
  posture.descriptors = {"3 socket:[11]"};
  EXPECT_THAT(format_postures({posture}), HasSubstr("  descriptors       3 socket:[11]\n"));
}

TEST(PostureTable, SaysWhereDescriptorsCannotBeLookedAt) {
  ProcessPosture posture = worker(10, LayerState::kEnforced);
  posture.descriptors = {"cannot look: Permission denied"};
  EXPECT_THAT(format_postures({posture}), HasSubstr("cannot look: Permission denied\n"));
}

TEST(PostureTable, PrintsAProcessThatDiffersByItself) {
  const std::string text =
      format_postures({worker(10, LayerState::kEnforced), worker(11, LayerState::kAbsent)});
  EXPECT_THAT(text, HasSubstr("worker 11 ("));
}

TEST(PostureTable, NamesMemoryThatIsWritableAndExecutable) {
  ProcessPosture posture = worker(10, LayerState::kEnforced);
  posture.suspicious_maps = {"1000-2000 rwxp"};
  EXPECT_THAT(format_postures({posture}), HasSubstr("WRITABLE AND EXEC 1000-2000 rwxp\n"));
}

TEST(BelowStrict, NamesTheFirstLayerThatDoesNotHold) {
  common::LayerResults results{};
  results.fill({LayerResult::State::kEnforced, 0, 0});
  results[static_cast<std::size_t>(Layer::kLandlock)].state = LayerResult::State::kDegraded;
  results[static_cast<std::size_t>(Layer::kSeccomp)].state = LayerResult::State::kAbsent;
  Layer missing{};
  EXPECT_TRUE(below_strict(results, missing));
  EXPECT_EQ(missing, Layer::kLandlock);
}

TEST(BelowStrict, DoesNotAskForWhatNewKernelsAloneHave) {
  common::LayerResults results{};
  results.fill({LayerResult::State::kEnforced, 0, 0});
  results[static_cast<std::size_t>(Layer::kMseal)].state = LayerResult::State::kAbsent;
  results[static_cast<std::size_t>(Layer::kMdwe)].state = LayerResult::State::kAbsent;
  Layer missing{};
  EXPECT_FALSE(below_strict(results, missing));
}

TEST(BelowStrict, IsContentWithTheLandlockOfAnOlderKernel) {
  common::LayerResults results{};
  results.fill({LayerResult::State::kEnforced, 0, 0});
  results[static_cast<std::size_t>(Layer::kLandlock)] = {LayerResult::State::kDegraded, 2, 0};
  Layer missing{};
  EXPECT_FALSE(below_strict(results, missing));
}

TEST(BelowStrict, TakesALayerThatNobodyTriedForMissing) {
  Layer missing{};
  EXPECT_TRUE(below_strict({}, missing));
  EXPECT_EQ(missing, Layer::kUserNamespace);
}

}  // namespace
}  // namespace policy
