#include "broker/device_text.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "broker/config_file.h"

namespace broker {
namespace {

using ::testing::HasSubstr;
using ::testing::SizeIs;

// Every setting of a disk, none as it is by default.
DeviceConfig disk() {
  DeviceConfig device;
  device.name = "vda";
  device.socket_path = "/run/a \"b\" \\.sock";
  device.client = true;
  device.socket_mode = 0600;
  device.allow_uids = {0, 107};
  device.blk_file = "/img/\x7f\n.img";
  device.read_only = true;
  device.direct = true;
  device.discard = false;
  device.write_zeroes = false;
  device.block_size = 4096;
  device.serial = "S 1";
  device.num_queues = 4;
  device.queue_size = 128;
  device.engine = EngineChoice::kFallback;
  device.poll_us = 20;
  device.restart_after_violation = true;
  device.tenant = "blue";
  device.limits.at(common::Rate::kOperations) = {1000, 0};
  device.limits.at(common::Rate::kWriteBytes) = {50'000'000, 1'000'000};
  device.limit_group = "web";
  device.vm_name = "web 1";
  device.vm_uuid = "6a2f41a3-c54c-fce8-32d2-0324e1c32e22";
  device.uid = 4000;
  device.memory_max_mib = 512;
  device.cpu_max_percent = 150;
  device.pids_max = 40;
  return device;
}

DeviceConfig card() {
  DeviceConfig device;
  device.kind = common::DeviceKind::kNet;
  device.name = "eth0";
  device.socket_path = "/run/eth0.sock";
  device.socket_owner = "root";
  device.socket_group = "kvm";
  device.tap_name = "tap0";
  device.tap_create = true;
  device.mac = MacAddress{0x52, 0x54, 0, 0x12, 0x34, 0x56};
  device.mtu = 9000;
  device.offload_csum = false;
  device.offload_tso = false;
  device.offload_uso = false;
  device.mrg_rxbuf = false;
  return device;
}

DeviceConfig read_back(const DeviceConfig& device) {
  const std::string group = "[[group]]\nname = \"web\"\ntenant = \"blue\"\n";
  const FileAnswer answer = parse_config(group + device_toml(device), "state.toml");
  if (answer && answer->devices.size() == 1) return answer->devices.front();
  ADD_FAILURE() << device_toml(device) << (answer ? "" : ::testing::PrintToString(answer.error()));
  return {};
}

TEST(DeviceText, ReadsBackAsItWasWritten) {
  EXPECT_EQ(read_back(disk()), disk());
  EXPECT_EQ(read_back(card()), card());
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
  DeviceConfig device = disk();
  device.fd = 3;
  device.socket_owner = "root";
  device.socket_group = "kvm";
  device.lock = false;
  std::size_t of_blk = 0;
  for (const Setting& setting : all_settings()) {
    if (setting.scope == Scope::kDevice && setting.is_for(common::DeviceKind::kBlk)) ++of_blk;
  }
  EXPECT_THAT(settings_of(device), SizeIs(of_blk));
  device = card();
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
