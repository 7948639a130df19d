// Limits that operators have set, kept over a restart.
#include "broker/limit_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "broker/limit_text.h"
#include "tests/fakes/temp_dir.h"

namespace broker {
namespace {

using common::DeviceKind;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

LimitEntry entry(std::string_view configured, std::string_view now) {
  return {false, "vda", DeviceKind::kBlk, *parse_limits(configured, DeviceKind::kBlk),
          *parse_limits(now, DeviceKind::kBlk)};
}

BrokerConfig lists_vda(std::string_view limits) {
  BrokerConfig config;
  config.devices.emplace_back();
  config.devices.front().name = "vda";
  config.devices.front().limits = *parse_limits(limits, DeviceKind::kBlk);
  return config;
}

TEST(LimitFile, GivesBackWhatItWasGiven) {
  const fakes::TempDir directory = fakes::TempDir::for_sockets();
  const LimitFile file(directory.path());
  LimitEntry group = entry("none", "iops=5,iops-burst=2");
  group.group = true;
  ASSERT_TRUE(file.keep({entry("iops=1000", "none"), group}));
  const LimitFile::Kept kept = file.read();
  EXPECT_EQ(kept.complaint, "");
  ASSERT_THAT(kept.entries, SizeIs(2));
  EXPECT_EQ(limit_line(kept.entries[0]), "device vda blk iops=1000 none");
  EXPECT_EQ(limit_line(kept.entries[1]), "group vda blk none iops=5,iops-burst=2");
}

TEST(LimitFile, IsEmptyWhereThereIsNoFileOrNoDirectory) {
  const fakes::TempDir directory = fakes::TempDir::for_sockets();
  EXPECT_THAT(LimitFile(directory.path()).read().entries, IsEmpty());
  EXPECT_THAT(LimitFile("").read().entries, IsEmpty());
  EXPECT_TRUE(LimitFile("").keep({}));
}

TEST(LimitFile, ComplainsOfALineThatIsWrongAndKeepsTheOthers) {
  const fakes::TempDir directory = fakes::TempDir::for_sockets();
  std::ofstream(directory.path() + "/limits")
      << "# head\ndevice vda blk none iops=0\ndevice vdb blk none iops=5\n";
  const LimitFile::Kept kept = LimitFile(directory.path()).read();
  EXPECT_THAT(kept.complaint, HasSubstr("must not be 0"));
  EXPECT_THAT(kept.entries, SizeIs(1));
}

TEST(LimitFile, RefusesLinesThatAreNone) {
  EXPECT_FALSE(parse_limit_line("device vda blk none"));
  EXPECT_FALSE(parse_limit_line("device vda blk none none more"));
  EXPECT_FALSE(parse_limit_line("device ../x blk none none"));
  EXPECT_FALSE(parse_limit_line("disk vda blk none none"));
  EXPECT_FALSE(parse_limit_line("device vda net none iops=5"));
}

TEST(LimitFile, CountsWhileTheConfigurationSaysTheSame) {
  const auto valid = [](std::string_view configured) {
    return still_valid({entry("iops=1000", "iops=5")}, lists_vda(configured)).size();
  };
  EXPECT_EQ(valid("iops=1000"), 1U);
  EXPECT_EQ(valid("iops=2000"), 0U);
  EXPECT_EQ(still_valid({entry("iops=1000", "iops=5")}, {}).size(), 0U);
}

}  // namespace
}  // namespace broker
