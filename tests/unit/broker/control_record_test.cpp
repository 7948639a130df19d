#include "broker/control/device_record.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "broker/control/wire.h"
#include "tests/unit/broker/device_fixtures.h"

namespace broker::control {
namespace {

using ::testing::HasSubstr;

// As long as texts may be.
DeviceConfig long_disk() {
  DeviceConfig device = full_disk();
  device.blk_file = "/" + std::string(4094, 'f');
  device.serial = std::string(20, 's');
  return device;
}

// A change to a record that is right.
template <typename Change>
std::string error_after(Change change) {
  DeviceRecord record = record_of(long_disk());
  change(record);
  const auto device = config_of(record);
  return device ? "(no error)" : device.error();
}

TEST(DeviceRecord, CarriesEverySetting) {
  const auto blk = config_of(record_of(long_disk()));
  ASSERT_TRUE(blk) << blk.error();
  EXPECT_EQ(*blk, long_disk());
  const auto net = config_of(record_of(full_card()));
  ASSERT_TRUE(net) << net.error();
  EXPECT_EQ(*net, full_card());
}

TEST(DeviceRecord, CountsDescriptors) {
  DeviceConfig device = full_card();
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
