#include "broker/doctor.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <sstream>

namespace broker {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;
using testing::SizeIs;

std::string explained(const std::string& line) {
  std::istringstream lines(line + "\n");
  return findings_text(explain_lines(lines));
}

TEST(Doctor, TellsADeathBySeccompFromTheKernelsLog) {
  EXPECT_THAT(
      explained(
          "kernel: audit: type=1326 audit(1700000000.123:45): auid=4294967295 uid=2000000001 "
          "gid=2000000001 ses=4294967295 pid=812 comm=\"bulkhead-worker\" "
          "exe=\"/usr/libexec/bulkhead/bulkhead-worker-blk\" sig=31 arch=c000003e syscall=257 "
          "compat=0 ip=0x7f4a code=0x80000000"),
      AllOf(HasSubstr("bulkhead-worker was killed by seccomp: system call openat at 0x7f4a"),
            HasSubstr("keep the guest's disk and the log")));
}

TEST(Doctor, SuspectsNoGuestOfADeathOfTheExporter) {
  EXPECT_THAT(explained("kernel: audit: type=1326 audit(1.1:1): auid=0 pid=812 "
                        "comm=\"bulkhead-export\" exe=\"/usr/bin/bulkhead-exporter\" sig=31 "
                        "arch=c000003e syscall=257 compat=0 ip=0x1 code=0x80000000"),
              AllOf(HasSubstr("bulkhead-export was killed by seccomp: system call openat"),
                    HasSubstr("whoever can reach its port"), Not(HasSubstr("guest"))));
}

TEST(Doctor, TellsWhatTheBrokerWasRefused) {
  EXPECT_THAT(explained("type=SECCOMP msg=audit(1.1:1): auid=0 pid=812 comm=\"bulkhead\" "
                        "exe=\"/usr/bin/bulkhead\" sig=0 arch=c000003e syscall=101 compat=0 ip=0x1 "
                        "code=0x50001"),
              HasSubstr("refused system call number 101 by the broker's own list"));
}

TEST(Doctor, LeavesOtherProgramsDeathsAlone) {
  EXPECT_FALSE(
      explain_line("type=1326 audit(1.1:1): pid=812 comm=\"chrome\" exe=\"/opt/chrome\" "
                   "sig=31 arch=c000003e syscall=257 compat=0 ip=0x1"));
}

TEST(Doctor, TellsAnAppArmorDenialAndTheRuleThatIsMissing) {
  EXPECT_THAT(explained("audit: type=1400 audit(1.1:1): apparmor=\"DENIED\" operation=\"open\" "
                        "profile=\"bulkhead\" name=\"/srv/vda.img\" pid=812 comm=\"bulkhead\" "
                        "requested_mask=\"rw\" denied_mask=\"rw\" fsuid=0 ouid=0"),
              AllOf(HasSubstr("AppArmor kept bulkhead from open of /srv/vda.img"),
                    HasSubstr("/etc/apparmor.d/local/bulkhead with the line '/srv/vda.img rw,'")));
}

TEST(Doctor, TellsThatAConfinedVmmMayNotConnect) {
  EXPECT_THAT(explained("audit: type=1400 audit(1.1:1): apparmor=\"DENIED\" operation=\"connect\" "
                        "profile=\"libvirt-1234\" name=\"/run/bulkhead/vda.sock\" pid=900 "
                        "comm=\"qemu-system-x86\" requested_mask=\"wr\" denied_mask=\"wr\""),
              AllOf(HasSubstr("AppArmor kept a VMM (libvirt-1234)"),
                    HasSubstr("abstractions/bulkhead-vmm")));
}

TEST(Doctor, TellsAnSelinuxDenial) {
  EXPECT_THAT(
      explained("type=AVC msg=audit(1.1:1): avc:  denied  { connectto } for  pid=900 comm=\"qemu\" "
                "path=\"/run/bulkhead/vda.sock\" scontext=system_u:system_r:other_t:s0 "
                "tcontext=system_u:system_r:bulkhead_t:s0 tclass=unix_stream_socket permissive=0"),
      AllOf(HasSubstr("SELinux kept system_u:system_r:other_t:s0 from { connectto }"),
            HasSubstr("bulkhead_serve(DOMAIN)")));
  EXPECT_THAT(explained("type=AVC msg=audit(1.1:1): avc:  denied  { read write } for  pid=812 "
                        "comm=\"bulkhead\" path=\"/srv/vda.img\" "
                        "scontext=system_u:system_r:bulkhead_t:s0 "
                        "tcontext=system_u:object_r:default_t:s0 tclass=file permissive=0"),
              HasSubstr("restorecon"));
}

TEST(Doctor, TakesNoDenialForOursBecauseTheHostIsCalledSo) {
  EXPECT_THAT(
      explained("Nov 20 23:00:01 bulkhead-1 audit[9]: AVC avc:  denied  { read } for  pid=9 "
                "comm=\"udevd\" scontext=system_u:system_r:udev_t:s0 "
                "tcontext=system_u:object_r:sysctl_fs_t:s0 tclass=file permissive=0"),
      Not(HasSubstr("SELinux")));
}

TEST(Doctor, TellsThatTheVmmMayNotOpenTheSocket) {
  EXPECT_THAT(
      explained("qemu-system-x86_64: -chardev socket,id=c,path=/run/bulkhead/vda.sock: Failed "
                "to connect to '/run/bulkhead/vda.sock': Permission denied"),
      HasSubstr("--socket-group=GROUP"));
  EXPECT_THAT(explained("qemu-system-x86_64: Failed to connect to '/tmp/vda.sock': No such file or "
                        "directory"),
              HasSubstr("nobody listens"));
}

// As broker/event_text.cpp says it, whatever the words before and after.
TEST(Doctor, TellsThatMemoryIsNotShared) {
  EXPECT_THAT(
      explained("error vda: queue 0 starts, and the guest's memory is not shared; start QEMU"),
      AllOf(HasSubstr("does not share the guest's memory"), HasSubstr("share=on")));
}

TEST(Doctor, TellsMissingLayersAndStrictRefusals) {
  EXPECT_THAT(explained("info vda: serving …; posture: 16 of 18 layers enforced; absent: landlock "
                        "(Function not implemented), mseal (Function not implemented)"),
              AllOf(HasSubstr("the jail lacks layers: absent: landlock"), HasSubstr("strict")));
  EXPECT_THAT(explained("error posture is below strict: own uid is absent: start it as root"),
              HasSubstr("refused to start"));
  EXPECT_FALSE(explain_line("info vda: posture: 18 of 18 layers enforced"));
}

TEST(Doctor, TellsAUserWhoIsNotListed) {
  EXPECT_THAT(explained("warning vda: connection from pid 9 uid 1000 refused: its uid is not among "
                        "those of --allow-uid"),
              HasSubstr("add its uid"));
}

TEST(Doctor, TellsEachThingOnceAndHowOften) {
  std::istringstream lines(
      "error posture is below strict: x\nnothing\nerror posture is below strict: x\n");
  const auto findings = explain_lines(lines);
  ASSERT_THAT(findings, SizeIs(1));
  EXPECT_EQ(findings[0].lines, 2U);
  EXPECT_THAT(findings_text(findings), HasSubstr("(2 times)"));
}

TEST(Doctor, KeepsWithinItsLimit) {
  std::stringstream lines;
  for (int i = 0; i < 200; ++i) lines << "error cannot open x" << i << "\n";
  EXPECT_THAT(explain_lines(lines), SizeIs(kFindingsMax));
}

TEST(Doctor, ShowsNoControlCharacters) {
  const std::string text = explained("error cannot open \x1b[31m/x\x07");
  EXPECT_EQ(text.find('\x1b'), std::string::npos);
  EXPECT_EQ(text.find('\x07'), std::string::npos);
}

TEST(Doctor, SaysSoWhereItFindsNothing) {
  std::istringstream none("all is well\n");
  const auto findings = explain_lines(none);
  EXPECT_THAT(findings, IsEmpty());
  EXPECT_THAT(findings_text(findings), HasSubstr("Nothing in these lines"));
}

TEST(Doctor, FailsWhereItCannotRead) { EXPECT_EQ(run_doctor("/nonexistent/log"), 1); }

}  // namespace
}  // namespace broker
