#include "broker/state_dir.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "tests/fakes/temp_dir.h"
#include "tests/unit/broker/device_fixtures.h"

namespace broker {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

class StateDirTest : public testing::Test {
 protected:
  fakes::TempDir dir_ = fakes::TempDir::for_sockets();
  StateDir state_{dir_.path()};
};

TEST_F(StateDirTest, KeepsDevicesUntilTheyAreForgotten) {
  ASSERT_TRUE(state_.keep(plain_disk("a")));
  ASSERT_TRUE(state_.keep(plain_disk(".b")));
  EXPECT_THAT(state_.read().devices, ElementsAre(plain_disk(".b"), plain_disk("a")));
  ASSERT_TRUE(state_.forget("a"));
  ASSERT_TRUE(state_.forget("a"));
  EXPECT_THAT(state_.read().devices, ElementsAre(plain_disk(".b")));
}

TEST_F(StateDirTest, KeepsTheLastOfAName) {
  ASSERT_TRUE(state_.keep(plain_disk("a")));
  DeviceConfig other = plain_disk("a");
  other.tenant = "blue";
  ASSERT_TRUE(state_.keep(other));
  EXPECT_THAT(state_.read().devices, ElementsAre(other));
}

TEST_F(StateDirTest, ComplainsOfABrokenFileAndReadsTheRest) {
  ASSERT_TRUE(state_.keep(plain_disk("a")));
  std::ofstream(dir_.file("broken.toml")) << "[[device]]\nnonsense = 1\n";
  const StateDir::Kept kept = state_.read();
  EXPECT_THAT(kept.devices, ElementsAre(plain_disk("a")));
  EXPECT_THAT(kept.complaints, ElementsAre(HasSubstr("broken.toml:2:1: there is no key")));
}

TEST_F(StateDirTest, IgnoresWhatACrashHasLeft) {
  std::ofstream(dir_.file("device-a.toml~")) << "[[dev";
  EXPECT_THAT(state_.read().devices, IsEmpty());
  ASSERT_TRUE(state_.keep(plain_disk("a")));
  EXPECT_FALSE(std::filesystem::exists(dir_.file("device-a.toml~")));
}

TEST_F(StateDirTest, FollowsNoLinkWhereItWrites) {
  std::filesystem::create_symlink("/no-such-directory/x", dir_.file("device-a.toml~"));
  EXPECT_TRUE(state_.keep(plain_disk("a")));
  EXPECT_THAT(state_.read().devices, ElementsAre(plain_disk("a")));
}

TEST_F(StateDirTest, SaysWhereItCannotWrite) {
  const StateDir nowhere(dir_.file("missing"));
  const auto kept = nowhere.keep(plain_disk("a"));
  ASSERT_FALSE(kept);
  EXPECT_THAT(kept.error(), HasSubstr("cannot make"));
  EXPECT_THAT(nowhere.read().devices, IsEmpty());
}

TEST(StateDir, KeepsNothingWithoutADirectoryAndNoDescriptors) {
  EXPECT_FALSE(StateDir("").keeps(plain_disk("a")));
  DeviceConfig handed = plain_disk("a");
  handed.socket_path.clear();
  handed.fd = 3;
  EXPECT_FALSE(StateDir("/d").keeps(handed));
  EXPECT_TRUE(StateDir("/d").keeps(plain_disk("a")));
}

}  // namespace
}  // namespace broker
