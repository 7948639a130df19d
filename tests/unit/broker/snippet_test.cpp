#include "broker/control/snippet.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace broker::control {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

DeviceConfig disk(const std::string& socket = "/run/bulkhead/vda.sock") {
  DeviceConfig device;
  device.name = "vda";
  device.socket_path = socket;
  device.blk_file = "/images/vda.img";
  return device;
}

DeviceConfig card() {
  DeviceConfig device;
  device.kind = common::DeviceKind::kNet;
  device.name = "eth0";
  device.socket_path = "/run/bulkhead/eth0.sock";
  return device;
}

std::string of(const DeviceConfig& device, std::string_view vmm) {
  return snippet_for(device, vmm).value_or("");
}

TEST(Snippet, AsksForNoMoreQueuesThanThereAre) {
  DeviceConfig small = disk();
  small.num_queues = 2;
  small.queue_size = 64;
  EXPECT_THAT(of(small, "qemu"), HasSubstr("num-queues=2,queue-size=64\n"));
  EXPECT_THAT(of(small, "libvirt"), HasSubstr("queues='2' queue_size='64'"));
  EXPECT_THAT(of(disk(), "cloud-hypervisor"), HasSubstr("num_queues=4,queue_size=256\n"));
  EXPECT_THAT(of(card(), "cloud-hypervisor"), HasSubstr("num_queues=4,queue_size=256\n"));
  EXPECT_THAT(of(card(), "qemu"), HasSubstr("queues=2 \\\n"));
}

TEST(Snippet, WritesAPathAsEachOfThemReadsIt) {
  const DeviceConfig odd = disk("/run/a,b'c <d>&");
  EXPECT_THAT(of(odd, "qemu"), HasSubstr(R"('socket,id=bulkhead-vda,path=/run/a,,b'\''c <d>&,)"));
  EXPECT_THAT(of(odd, "libvirt"), HasSubstr("path='/run/a,b&apos;c &lt;d>&amp;'"));
  const auto refused = snippet_for(odd, "crosvm");
  ASSERT_FALSE(refused.has_value());
  EXPECT_THAT(refused.error(), HasSubstr("give the device a socket_path without one"));
}

TEST(Snippet, LetsQemuListenForADeviceThatConnects) {
  DeviceConfig client = disk();
  client.client = true;
  EXPECT_THAT(of(client, "qemu"), HasSubstr("server=on,wait=off"));
  EXPECT_THAT(of(client, "qemu"), Not(HasSubstr("reconnect")));
  EXPECT_FALSE(snippet_for(client, "cloud-hypervisor").has_value());
}

TEST(Snippet, TellsFirecrackersUsersWhereLimitsAre) {
  EXPECT_THAT(of(disk(), "firecracker"),
              AllOf(HasSubstr("'bulkhead limit vda iops=N iops-burst=N"),
                    HasSubstr("one_time_burst"), Not(HasSubstr("\"rate_limiter\""))));
}

TEST(Snippet, SaysWhatAVmmCannotHave) {
  EXPECT_THAT(snippet_for(card(), "firecracker").error(), HasSubstr("give it the tap"));
  EXPECT_FALSE(snippet_for(card(), "kata").has_value());
  EXPECT_THAT(snippet_for(disk(""), "qemu").error(), HasSubstr("was handed its socket"));
  EXPECT_THAT(snippet_for(disk(), "bhyve").error(), HasSubstr("--for=qemu|libvirt|"));
}

}  // namespace
}  // namespace broker::control
