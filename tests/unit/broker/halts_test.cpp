#include "broker/halts.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "broker/state_dir.h"
#include "tests/fakes/temp_dir.h"

namespace broker {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Pair;

class HaltsTest : public testing::Test {
 protected:
  fakes::TempDir dir_ = fakes::TempDir::for_sockets();
  Halts halts_{dir_.path()};
};

TEST_F(HaltsTest, AreKeptUntilTheDeviceIsServedAgain) {
  ASSERT_TRUE(halts_.keep("vda", Halt::kDrain));
  ASSERT_TRUE(halts_.keep("vda", Halt::kStop));
  ASSERT_TRUE(halts_.keep(".vdb", Halt::kDrain));
  EXPECT_THAT(halts_.read().halts,
              ElementsAre(Pair(".vdb", Halt::kDrain), Pair("vda", Halt::kStop)));
  ASSERT_TRUE(halts_.keep("vda", Halt::kNone));
  ASSERT_TRUE(halts_.keep("vda", Halt::kNone));
  EXPECT_THAT(halts_.read().halts, ElementsAre(Pair(".vdb", Halt::kDrain)));
}

TEST_F(HaltsTest, AreNoDevicesToTheirNeighbour) {
  ASSERT_TRUE(halts_.keep("a.toml", Halt::kStop));
  const StateDir::Kept devices = StateDir(dir_.path()).read();
  EXPECT_THAT(devices.devices, IsEmpty());
  EXPECT_THAT(devices.complaints, IsEmpty());
}

TEST_F(HaltsTest, ComplainOfABrokenFileAndReadTheRest) {
  ASSERT_TRUE(halts_.keep("vda", Halt::kStop));
  std::ofstream(dir_.file("halted-vdb.state")) << "stopp";
  const Halts::Kept kept = halts_.read();
  EXPECT_THAT(kept.halts, ElementsAre(Pair("vda", Halt::kStop)));
  EXPECT_THAT(kept.complaints, ElementsAre(HasSubstr("halted-vdb.state' does not say")));
}

TEST_F(HaltsTest, IgnoreWhatACrashHasLeft) {
  std::ofstream(dir_.file("halted-vda.state~")) << "stopped\n";
  const Halts::Kept kept = halts_.read();
  EXPECT_THAT(kept.halts, IsEmpty());
  EXPECT_THAT(kept.complaints, IsEmpty());
}

TEST_F(HaltsTest, AreKeptNowhereWithoutADirectory) {
  const Halts nowhere("");
  EXPECT_TRUE(nowhere.keep("vda", Halt::kStop));
  EXPECT_THAT(nowhere.read().halts, IsEmpty());
}

TEST_F(HaltsTest, SayWhereTheyCannotBeKept) {
  const auto kept = Halts("/no-such-dir").keep("vda", Halt::kStop);
  ASSERT_FALSE(kept);
  EXPECT_THAT(kept.error(), HasSubstr("cannot make '/no-such-dir/halted-vda.state~'"));
}

}  // namespace
}  // namespace broker
