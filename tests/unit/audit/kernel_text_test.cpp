#include "broker/audit/kernel_text.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace broker::audit {
namespace {

using ::testing::ElementsAre;
using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::SizeIs;

const Subject kDisk{.device = "vda",
                    .type = "blk",
                    .vm = "web",
                    .uuid = "6ba7b810-9dad-11d1-80b4-00c04fd430c8",
                    .tenant = ""};
const Subject kCard{.device = "eth0",
                    .type = "net",
                    .vm = "web",
                    .uuid = "6ba7b810-9dad-11d1-80b4-00c04fd430c8",
                    .tenant = ""};
const std::string kVm = R"(vm="web" uuid=6ba7b810-9dad-11d1-80b4-00c04fd430c8)";

std::vector<std::string> texts(const std::vector<KernelRecord>& records) {
  std::vector<std::string> all;
  for (const KernelRecord& record : records) {
    all.push_back(std::to_string(static_cast<int>(record.type)) + " " + record.text +
                  (record.success ? "" : " FAILED"));
  }
  return all;
}

std::vector<std::string> written(const Subject& subject, Event event, VmTurn turn = VmTurn::kNone) {
  return texts(kernel_records(about(subject, std::move(event)), turn));
}

Event vmm(Kind kind) {
  return Event(kind).with(Key::kPid, std::uint64_t{812}).with(Key::kPath, "/srv/a.img");
}

TEST(AuditKernelText, AttachesADiskAsLibvirtDoes) {
  EXPECT_THAT(written(kDisk, vmm(Kind::kVmmConnected)),
              ElementsAre("2501 virt=vhost-user resrc=disk reason=attach " + kVm +
                          R"( old-disk="?" new-disk="/srv/a.img")"));
}

TEST(AuditKernelText, DetachesADiskAsLibvirtDoes) {
  EXPECT_THAT(written(kDisk, vmm(Kind::kVmmDisconnected)),
              ElementsAre("2501 virt=vhost-user resrc=disk reason=detach " + kVm +
                          R"( old-disk="/srv/a.img" new-disk="?")"));
}

TEST(AuditKernelText, AttachesACardByItsAddress) {
  const auto records =
      written(kCard, Event(Kind::kVmmConnected).with(Key::kMac, "52:54:00:12:34:56"));
  EXPECT_THAT(records, ElementsAre("2501 virt=vhost-user resrc=net reason=attach " + kVm +
                                   " old-net=? new-net=52:54:00:12:34:56"));
}

TEST(AuditKernelText, SaysThatARefusedVmmGotNothing) {
  EXPECT_THAT(written(kDisk, vmm(Kind::kVmmRefused)), ElementsAre(EndsWith(" FAILED")));
}

TEST(AuditKernelText, StartsTheVmWithItsFirstDevice) {
  const auto event = vmm(Kind::kVmmConnected).with(Key::kLabel, "system_u:system_r:svirt_t:s0:c1");
  EXPECT_THAT(written(kDisk, event, VmTurn::kFirstDevice),
              ElementsAre("2502 virt=vhost-user " + kVm +
                              " vm-ctx=system_u:system_r:svirt_t:s0:c1 img-ctx=? model=selinux",
                          HasSubstr("resrc=disk reason=attach"),
                          "2500 virt=vhost-user op=start reason=connected " + kVm + " vm-pid=812"));
}

TEST(AuditKernelText, StopsTheVmWithItsLastDevice) {
  EXPECT_THAT(
      written(kDisk, vmm(Kind::kVmmDisconnected), VmTurn::kLastDevice),
      ElementsAre(HasSubstr("reason=detach"),
                  "2500 virt=vhost-user op=stop reason=disconnected " + kVm + " vm-pid=812"));
}

TEST(AuditKernelText, OpensACardAsLibvirtDoes) {
  const auto records = written(kCard, Event(Kind::kBackingOpened)
                                          .with(Key::kPath, "/dev/net/tun")
                                          .with(Key::kMac, "52:54:00:12:34:56")
                                          .with(Key::kRdev, "10:200"));
  EXPECT_THAT(records, ElementsAre("2501 virt=vhost-user resrc=net reason=open " + kVm +
                                   R"( net=52:54:00:12:34:56 path="/dev/net/tun" rdev=0A:C8)"));
}

TEST(AuditKernelText, WritesWhatLibvirtHasNoFormForWithFieldsOfItsOwn) {
  const auto records = written(kDisk, Event(Kind::kPolicyViolation)
                                          .with(Key::kRole, "worker")
                                          .with(Key::kQueue, std::uint64_t{3})
                                          .with(Key::kPid, std::uint64_t{77}));
  EXPECT_THAT(records,
              ElementsAre("2501 virt=vhost-user resrc=vhost-user reason=policy-violation " + kVm +
                          R"( device="vda" type="blk" role="worker" queue=3 child-pid=77 FAILED)"));
}

TEST(AuditKernelText, WritesTheBrokersOwnEventsAsATrustedProgramsOwn) {
  EXPECT_THAT(texts(kernel_records(Event(Kind::kBrokerStarted).with(Key::kVersion, "0.1.0"),
                                   VmTurn::kNone)),
              ElementsAre(R"(1121 op=broker-started version="0.1.0")"));
}

TEST(AuditKernelText, WritesWhatAnOperatorWantsAsAChangeOfConfiguration) {
  const auto records = kernel_records(Event(Kind::kOperatorRefused)
                                          .with(Key::kUid, std::uint64_t{1000})
                                          .with(Key::kCommand, "remove vda"),
                                      VmTurn::kNone);
  EXPECT_THAT(texts(records), ElementsAre("1111 op=operator-refused peer-uid=1000 "
                                          "command=72656D6F766520766461 FAILED"));
}

TEST(AuditKernelText, GivesADeviceWithoutAVmItsOwnName) {
  const auto records = written({.device = "vda", .type = "blk", .vm = "", .uuid = "", .tenant = ""},
                               vmm(Kind::kVmmConnected));
  EXPECT_THAT(records, ElementsAre(HasSubstr(R"(vm="vda" uuid=? old-disk)")));
}

TEST(AuditKernelText, CannotBeForgedByAName) {
  EXPECT_EQ(nv_string("vm", "web\" res=success"), "vm=77656222207265733D73756363657373");
  EXPECT_EQ(nv_string("vm", "a\nb"), "vm=610A62");
  EXPECT_EQ(nv_string("vm", "it's"), "vm=69742773");
  EXPECT_EQ(nv_string("vm",
                      "gr\xc3\xb6\xc3\x9f"
                      "e"),
            "vm=6772C3B6C39F65");
}

TEST(AuditKernelText, WritesALabelWithBlanksInHexadecimal) {
  const auto event = vmm(Kind::kVmmConnected).with(Key::kLabel, "libvirt (enforce)");
  const auto records = written(kDisk, event, VmTurn::kFirstDevice);
  ASSERT_THAT(records, SizeIs(3));
  EXPECT_THAT(records[0], HasSubstr("vm-ctx=6C6962766972742028656E666F72636529 "));
  EXPECT_THAT(records[0], EndsWith("model=apparmor"));
}

TEST(AuditKernelText, FitsARecordWhateverThePath) {
  const auto records =
      written(kDisk, Event(Kind::kBackingOpened).with(Key::kPath, std::string(4095, '\xff')));
  constexpr std::size_t kRecordBytesMax = 8970;
  ASSERT_THAT(records, SizeIs(1));
  EXPECT_LT(records[0].size(), kRecordBytesMax);
}

}  // namespace
}  // namespace broker::audit
