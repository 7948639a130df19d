#include "broker/device_text.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "broker/config_file.h"
#include "tests/unit/broker/device_fixtures.h"

namespace broker {
namespace {

using ::testing::HasSubstr;
using ::testing::SizeIs;

DeviceConfig read_back(const DeviceConfig& device) {
  const std::string group = "[[group]]\nname = \"web\"\ntenant = \"blue\"\n";
  const FileAnswer answer = parse_config(group + device_toml(device), "state.toml");
  if (answer && answer->devices.size() == 1) return answer->devices.front();
  ADD_FAILURE() << device_toml(device) << (answer ? "" : ::testing::PrintToString(answer.error()));
  return {};
}

TEST(DeviceText, ReadsBackAsItWasWritten) {
  EXPECT_EQ(read_back(full_disk()), full_disk());
  EXPECT_EQ(read_back(full_card()), full_card());
}

TEST(DeviceText, LeavesOutWhatIsAsByDefault) {
  DeviceConfig device;
  device.name = "a";
  device.socket_path = "/s";
  device.blk_file = "/d";
  EXPECT_EQ(device_toml(device),
            "[[device]]\ntype = \"blk\"\nsocket_path = \"/s\"\nblk_file = \"/d\"\nname = \"a\"\n");
}

// A setting that is added to the table and not here would be lost by a restart.
TEST(DeviceText, KnowsEverySetting) {
  DeviceConfig device = full_disk();
  device.fd = 3;
  device.socket_owner = "root";
  device.socket_group = "kvm";
  std::size_t of_blk = 0;
  for (const Setting& setting : all_settings()) {
    if (setting.scope == Scope::kDevice && setting.is_for(common::DeviceKind::kBlk)) ++of_blk;
  }
  EXPECT_THAT(settings_of(device), SizeIs(of_blk));
  device = full_card();
  device.fd = 3;
  device.client = true;
  device.socket_mode = 0600;
  device.allow_uids = {1};
  device.tap_fds = {4, 5};
  device.macvtap = "m";
  device.num_queues = 2;
  device.queue_size = 64;
  device.engine = EngineChoice::kIoUring;
  device.poll_us = 1;
  device.restart_after_violation = true;
  device.packed_rings = true;
  device.tenant = device.vm_name = device.limit_group = "t";
  device.limits.at(common::Rate::kReadOperations) = {1000, 10};
  device.vm_uuid = "u";
  device.uid = 1;
  device.memory_max_mib = device.cpu_max_percent = 1;
  device.pids_max = 4;
  std::size_t of_net = 0;
  for (const Setting& setting : all_settings()) {
    if (setting.scope == Scope::kDevice && setting.is_for(common::DeviceKind::kNet)) ++of_net;
  }
  EXPECT_THAT(settings_of(device), SizeIs(of_net));
}

}  // namespace
}  // namespace broker
