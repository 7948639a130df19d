#include "broker/control/device_record.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "broker/control/wire.h"

namespace broker::control {
namespace {

using ::testing::HasSubstr;

DeviceConfig disk() {
  DeviceConfig device;
  device.name = "vda";
  device.socket_path = "/run/vda.sock";
  device.socket_mode = 0640;
  device.socket_owner = "root";
  device.socket_group = "kvm";
  device.client = true;
  device.allow_uids = {0, 107};
  device.blk_file = "/" + std::string(4094, 'f');
  device.read_only = true;
  device.direct = true;
  device.discard = false;
  device.write_zeroes = false;
  device.block_size = 4096;
  device.serial = std::string(20, 's');
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
  device.lock = false;
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
  device.tap_name = "tap0";
  device.tap_create = true;
  device.mac = MacAddress{0x52, 0x54, 0, 0x12, 0x34, 0x56};
  device.mtu = 9000;
  device.offload_csum = false;
  device.offload_tso = false;
  device.offload_uso = false;
  device.mrg_rxbuf = false;
  device.engine = EngineChoice::kIoUring;
  return device;
}

// A change to a record that is right.
template <typename Change>
std::string error_after(Change change) {
  DeviceRecord record = record_of(disk());
  change(record);
  const auto device = config_of(record);
  return device ? "(no error)" : device.error();
}

TEST(DeviceRecord, CarriesEverySetting) {
  const auto blk = config_of(record_of(disk()));
  ASSERT_TRUE(blk) << blk.error();
  EXPECT_EQ(*blk, disk());
  const auto net = config_of(record_of(card()));
  ASSERT_TRUE(net) << net.error();
  EXPECT_EQ(*net, card());
}

TEST(DeviceRecord, CountsDescriptors) {
  DeviceConfig device = card();
  device.fd = 7;
  device.tap_fds = {8, 9};
  EXPECT_EQ(record_of(device).socket_fds, 1u);
  EXPECT_EQ(record_of(device).tap_fds, 2u);
}

TEST(DeviceRecord, RefusesATypeThatIsNone) {
  EXPECT_THAT(error_after([](auto& record) { record.type = 0; }), HasSubstr("no type"));
  EXPECT_THAT(error_after([](auto& record) { record.type = 3; }), HasSubstr("no type"));
}

TEST(DeviceRecord, RefusesNumbersBeyondTheLimitsOfTheCommandLine) {
  EXPECT_THAT(error_after([](auto& record) { record.num_queues = 65; }), HasSubstr("num_queues"));
  EXPECT_THAT(error_after([](auto& record) { record.queue_size = 100; }), HasSubstr("queue_size"));
  EXPECT_THAT(error_after([](auto& record) { record.block_size = 1; }), HasSubstr("block_size"));
  EXPECT_THAT(error_after([](auto& record) { record.poll_us = ~0U; }), HasSubstr("poll_us"));
  EXPECT_THAT(error_after([](auto& record) { record.uid = ~0U; }), HasSubstr("uid"));
  EXPECT_THAT(error_after([](auto& record) { record.socket_mode = 01000; }),
              HasSubstr("socket_mode"));
  EXPECT_THAT(error_after([](auto& record) { record.engine = 3; }), HasSubstr("engine"));
}

TEST(DeviceRecord, RefusesACountBeyondItsRoom) {
  EXPECT_THAT(error_after([](auto& record) { record.allow_uid_count = 65; }),
              HasSubstr("allow_uid"));
  EXPECT_THAT(error_after([](auto& record) { record.socket_fds = 2; }), HasSubstr("descriptors"));
  EXPECT_THAT(error_after([](auto& record) { record.tap_fds = 1; }), HasSubstr("descriptors"));
}

TEST(DeviceRecord, RefusesSwitchesThatAreNeitherOnNorOff) {
  EXPECT_THAT(error_after([](auto& record) { record.read_only = 2; }), HasSubstr("read_only"));
  EXPECT_THAT(error_after([](auto& record) { record.restart_after_violation = 2; }),
              HasSubstr("on_worker_violation"));
}

TEST(DeviceRecord, RefusesTextThatGoesOnAfterItsEnd) {
  EXPECT_THAT(error_after([](auto& record) { record.serial[23] = 'x'; }), HasSubstr("serial"));
}

TEST(DeviceRecord, RefusesWhatIsNoName) {
  EXPECT_THAT(error_after([](auto& record) { put_text(record.name, "a/b"); }), HasSubstr("name"));
  EXPECT_THAT(error_after([](auto& record) { record.name.fill('\0'); }), HasSubstr("no name"));
  EXPECT_THAT(error_after([](auto& record) { put_text(record.vm_name, "a\nb"); }),
              HasSubstr("vm_name"));
}

TEST(DeviceRecord, RefusesRelativePaths) {
  EXPECT_THAT(error_after([](auto& record) { put_text(record.blk_file, "disk.img"); }),
              HasSubstr("begin with '/'"));
  EXPECT_THAT(error_after([](auto& record) { put_text(record.socket_path, "../s"); }),
              HasSubstr("begin with '/'"));
}

TEST(DeviceRecord, RefusesASocketPathThatFillsItsRoom) {
  EXPECT_THAT(error_after([](auto& record) { record.socket_path.fill('/'); }),
              HasSubstr("socket_path"));
}

TEST(DeviceRecord, RefusesBytesAfterAnAddress) {
  EXPECT_THAT(error_after([](auto& record) { record.mac[7] = 1; }), HasSubstr("mac"));
}

}  // namespace
}  // namespace broker::control
