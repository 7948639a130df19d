// What others' tools make of our records: auvirt and ausearch know libvirt's.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <cstdio>
#include <string>

#include "broker/audit/kernel_text.h"
#include "tests/unit/broker/scratch.h"

namespace broker::audit {
namespace {

using ::testing::AllOf;
using ::testing::ContainsRegex;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr const char* kUuid = "6ba7b810-9dad-11d1-80b4-00c04fd430c8";

class AuditTools : public testing::Test {
 protected:
  // As auditd writes down what audit_log_user_message() sends.
  void write(Event event, VmTurn turn) {
    event.about({.device = "vda", .type = "blk", .vm = "web", .uuid = kUuid, .tenant = ""});
    for (const KernelRecord& record : kernel_records(event, turn)) {
      const std::string number = std::to_string(++count_);
      const char* type = record.type == RecordType::kVirtControl     ? "VIRT_CONTROL"
                         : record.type == RecordType::kVirtMachineId ? "VIRT_MACHINE_ID"
                                                                     : "VIRT_RESOURCE";
      log_ += std::string("type=") + type + " msg=audit(17000000" + (count_ < 10 ? "0" : "") +
              number + ".000:" + number + "): pid=10 uid=0 auid=4294967295 ses=4294967295 msg='" +
              record.text + R"( exe="/usr/bin/bulkhead" hostname=? addr=? terminal=? res=)" +
              (record.success ? "success'\n" : "failed'\n");
    }
  }
  std::string run(const std::string& command) const {
    const std::string file = scratch_.write("audit.log", log_);
    FILE* pipe = ::popen(("TZ=UTC LC_ALL=C " + command + " " + file + " 2>&1").c_str(), "r");
    std::string text;
    std::array<char, 4096> buffer{};
    while (std::fgets(buffer.data(), buffer.size(), pipe) != nullptr) text += buffer.data();
    EXPECT_EQ(::pclose(pipe), 0) << text;
    return text;
  }
  static Event vmm(Kind kind) {
    return Event(kind)
        .with(Key::kPid, std::uint64_t{812})
        .with(Key::kLabel, "system_u:system_r:svirt_t:s0:c1,c2")
        .with(Key::kPath, "/srv/a disk.img");
  }

  Scratch scratch_;
  std::string log_;
  int count_ = 9;
};

TEST_F(AuditTools, AuvirtShowsWhenAVmHadItsDisk) {
  write(vmm(Kind::kVmmConnected), VmTurn::kFirstDevice);
  write(vmm(Kind::kVmmDisconnected), VmTurn::kLastDevice);
  EXPECT_THAT(run(std::string("auvirt --all-events --uuid ") + kUuid + " --file"),
              AllOf(ContainsRegex("start +web"), ContainsRegex("stop +web"),
                    ContainsRegex("resrc +web.*disk.*attach.*/srv/a disk.img")));
}

TEST_F(AuditTools, AuvirtKnowsADiskOfAVmThatLibvirtStarted) {
  write(vmm(Kind::kVmmConnected), VmTurn::kNone);
  EXPECT_THAT(run(std::string("auvirt --all-events --uuid ") + kUuid + " --file"),
              AllOf(ContainsRegex("resrc +web.*disk.*attach"), Not(HasSubstr("start"))));
}

TEST_F(AuditTools, AusearchFindsWhatHasNoFormOfLibvirts) {
  write(Event(Kind::kPolicyViolation).with(Key::kCause, "killed by seccomp: system call openat"),
        VmTurn::kNone);
  EXPECT_THAT(run(std::string("ausearch --uuid ") + kUuid + " --success no --interpret -if"),
              HasSubstr("reason=policy-violation"));
}

}  // namespace
}  // namespace broker::audit
