#include "broker/audit/device_events.h"

#include <gtest/gtest.h>

#include "broker/audit/explain.h"

namespace broker::audit {
namespace {

using State = common::LayerResult::State;

const Peer kPeer{.pid = 812, .uid = 107, .gid = 36, .label = "svirt"};

std::string told(Event event) {
  return in_words(about({.device = "vda", .type = "blk", .vm = "", .uuid = "", .tenant = ""},
                        std::move(event)));
}

TEST(AuditDeviceEvents, SayWhoWasTurnedAwayAndWhy) {
  EXPECT_EQ(
      told(vmm_came(Kind::kVmmRefused, kPeer, "qemu", "another VMM is being served")),
      "a process with pid 812 (qemu), uid 107, gid 36, label svirt was turned away from device "
      "vda: another VMM is being served");
}

TEST(AuditDeviceEvents, SayWhatIsBehindADevice) {
  DeviceModel model;
  model.backing = {
      .path = "/dev/dm-3", .interface = "", .mac = "", .read_only = true, .rdev = 0xfd03};
  model.backing_inode = 5;
  model.backing_device = 6;
  EXPECT_EQ(told(backing_opened(model)),
            "/dev/dm-3 was opened for device vda, read-only: inode 5 on device 0:6, itself device "
            "253:3");
}

TEST(AuditDeviceEvents, SayWhichLayersOfAJailAreWeak) {
  common::LayerResults layers{};
  for (auto& layer : layers) layer.state = State::kEnforced;
  layers[static_cast<std::size_t>(common::Layer::kMdwe)].state = State::kAbsent;
  layers[static_cast<std::size_t>(common::Layer::kMseal)].state = State::kNotTried;
  layers[static_cast<std::size_t>(common::Layer::kLandlock)].state = State::kDegraded;
  EXPECT_EQ(
      told(process_jailed({Role::kWorker, 900, 3}, layers)),
      "the worker with pid 900 of device vda, queue 3, is jailed: 17 layers enforced; degraded: "
      "landlock; absent: mdwe, mseal");
}

TEST(AuditDeviceEvents, SayHowAProcessEnded) {
  EXPECT_EQ(told(process_ended({Role::kWorker, 900, 3}, "died", "killed by SIGBUS")),
            "the worker with pid 900 of queue 3 of device vda ended (died): killed by SIGBUS");
  EXPECT_EQ(told(process_ended({Role::kSession, 901, {}}, "closed by the VMM")),
            "the session with pid 901 of device vda ended (closed by the VMM)");
}

TEST(AuditDeviceEvents, SayWhoChangedWhat) {
  EXPECT_EQ(in_words(operator_asked(kPeer, "remove", "vda")),
            "an operator (uid 107, gid 36, pid 812) had 'remove' done to device vda");
  EXPECT_EQ(
      in_words(operator_refused(kPeer, "remove", "vda", "not in the group")),
      "somebody (uid 107, gid 36, pid 812) was refused 'remove' of device vda: not in the group");
  EXPECT_EQ(told(limit_changed("read-iops", "", "2000")),
            "the limit read-iops of device vda was changed to 2000");
}

}  // namespace
}  // namespace broker::audit
