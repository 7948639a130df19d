// tests/integration/operator_kept_test.cpp: what operators say, where the state directory is full:
// it holds, and whoever has said it hears that it will not last.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mount.h>

#include <array>
#include <filesystem>
#include <fstream>

#include "tests/fakes/failure.h"
#include "tests/integration/operated.h"

namespace integration {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

class OperatorKept : public OperatedTest {
 protected:
  OperatorKept() {
    std::filesystem::create_directory(state_);
    fakes::require_call(::mount("tmpfs", state_.c_str(), "tmpfs", 0, "size=16k,mode=0755") == 0,
                        "mount");
    serve({{.name = "vda"}, {.name = "vdb"}}, {"--state-dir=" + state_});
  }
  ~OperatorKept() override { (void)::umount2(state_.c_str(), MNT_DETACH); }

  void fill() const {
    std::ofstream filler(state_ + "/filler");
    const std::array<char, 4096> page{};
    while (filler.write(page.data(), page.size()).flush()) {
    }
  }
  void make_room() const { std::filesystem::remove(state_ + "/filler"); }
  void expect_not_lasting(const std::vector<std::string>& arguments) const {
    const Ran ran = ask(arguments);
    EXPECT_EQ(ran.exit_code, 1);
    EXPECT_THAT(ran.text, AllOf(HasSubstr("it was done, but will not outlast the broker: "),
                                HasSubstr("No space left on device"), HasSubstr("say it again")));
  }
  void restart() {
    host_.broker().signal(SIGTERM);
    EXPECT_EQ(host_.broker().wait_exit(), 0);
    host_.serve_again({"--state-dir=" + state_, "--control-socket=" + control()});
  }

  fakes::TempDir parent_{BULKHEAD_TEST_IMAGES};
  std::string state_ = parent_.file("state");
};

TEST_F(OperatorKept, StopAndDrainHoldThoughTheirFilesCannotBeWritten) {
  const auto vda = host_.connect();
  fill();
  expect_not_lasting({"drain", "vda"});
  expect_not_lasting({"stop", "vdb"});
  EXPECT_THAT(ask({"list", "vda", "--json"}).text, HasSubstr(R"("state":"draining")"));
  EXPECT_THAT(ask({"list", "vdb", "--json"}).text, HasSubstr(R"("state":"stopped")"));
  expect_serves(vda->queue());
}

TEST_F(OperatorKept, SayingItAgainKeepsItOnceThereIsRoom) {
  const auto vda = host_.connect();
  fill();
  expect_not_lasting({"drain", "vda"});
  expect_not_lasting({"stop", "vdb"});
  make_room();
  EXPECT_EQ(ask({"drain", "vda"}).exit_code, 0);
  EXPECT_EQ(ask({"stop", "vdb"}).exit_code, 0);
  restart();
  EXPECT_THAT(ask({"list", "--json"}).text, testing::Not(HasSubstr(R"("state":"serving")")));
}

TEST_F(OperatorKept, LimitsHoldThoughTheirFileCannotBeWritten) {
  fill();
  expect_not_lasting({"limit", "vda", "iops=1000"});
  EXPECT_THAT(ask({"limit", "vda"}).text, HasSubstr("iops=1000"));
}

TEST_F(OperatorKept, AddedDeviceIsServedThoughItsFileCannotBeWritten) {
  fill();
  make_image(host_.image("vdc"), 4 << 20);
  expect_not_lasting({"add", "blk", "--name=vdc", "--socket-path=" + host_.socket("vdc"),
                      "--blk-file=" + host_.image("vdc"), "--engine=fallback"});
  expect_serves(host_.connect({}, "vdc")->queue());
}

// A file that cannot go needs no room: what forbids it is its file system.
TEST_F(OperatorKept, StartAndRemoveSayThatTheNextBrokerWillNotKnowOfThem) {
  EXPECT_EQ(ask({"stop", "vda"}).exit_code, 0);
  EXPECT_EQ(ask({"stop", "vdb"}).exit_code, 0);
  ASSERT_EQ(::mount(nullptr, state_.c_str(), nullptr, MS_REMOUNT | MS_RDONLY, nullptr), 0);
  for (const char* const act : {"start", "remove"}) {
    const Ran ran = ask({act, std::string(act) == "start" ? "vda" : "vdb"});
    EXPECT_EQ(ran.exit_code, 1);
    EXPECT_THAT(ran.text, AllOf(HasSubstr("it was done, but will not outlast the broker: "),
                                HasSubstr("Read-only file system")));
  }
  expect_serves(host_.connect()->queue());
  EXPECT_THAT(ask({"list"}).text, testing::Not(HasSubstr("vdb")));
}

}  // namespace
}  // namespace integration
