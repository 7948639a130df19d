#include "broker/audit_reader.h"

#include <gtest/gtest.h>

#include "broker/death.h"

namespace broker {
namespace {

TEST(ParseSeccompRecord, FindsPidAndSystemCall) {
  const auto kill = parse_seccomp_record(
      "audit(1700000000.123:45): auid=4294967295 uid=2000000001 gid=2000000001 ses=4294967295 "
      "pid=812 comm=\"bulkhead-worker\" exe=\"/usr/libexec/bulkhead/bulkhead-worker-blk\" sig=31 "
      "arch=c000003e syscall=257 compat=0 ip=0x7f4a code=0x80000000");
  ASSERT_TRUE(kill.has_value());
  EXPECT_EQ(kill->pid, 812);
  EXPECT_EQ(kill->system_call, 257);
  EXPECT_EQ(kill->instruction, 0x7f4aU);
  EXPECT_TRUE(kill->native);
}

TEST(ParseSeccompRecord, IsOfNobodyWhoWasOnlyRefused) {
  EXPECT_FALSE(parse_seccomp_record("audit(1.1:1): pid=812 comm=\"bulkhead\" exe=\"/bin/bulkhead\" "
                                    "sig=0 arch=c000003e syscall=101 compat=0 ip=0x7f4a "
                                    "code=0x50001")
                   .has_value());
}

TEST(DescribeKill, NamesTheCallAndTheInstruction) {
  EXPECT_EQ(describe_kill({812, 257, 0x7f4a12, true}),
            "killed by seccomp: system call openat at 0x7f4a12");
  EXPECT_EQ(describe_kill({812, 5, 0, false}),
            "killed by seccomp: system call 5 of another architecture's table");
}

TEST(ParseSeccompRecord, KnowsInterrupt80) {
  const auto kill = parse_seccomp_record(
      "audit(1.1:1): pid=812 comm=\"x\" exe=\"/a\" sig=31 arch=40000003 syscall=5 compat=1 ip=0x1");
  ASSERT_TRUE(kill.has_value());
  EXPECT_FALSE(kill->native);
}

TEST(ParseSeccompRecord, TakesNoNumberFromTheProcesssOwnWords) {
  const auto kill = parse_seccomp_record(
      "audit(1.1:1): pid=812 comm=\"x pid=1 syscall=59\" exe=\"/a pid=2\" sig=31 syscall=257 "
      "compat=0");
  ASSERT_TRUE(kill.has_value());
  EXPECT_EQ(kill->pid, 812);
  EXPECT_EQ(kill->system_call, 257);
}

TEST(ParseSeccompRecord, KnowsWhatIsNoSuchRecord) {
  EXPECT_FALSE(parse_seccomp_record("").has_value());
  EXPECT_FALSE(parse_seccomp_record("audit(1.1:1): pid=812 res=1").has_value());
  EXPECT_FALSE(parse_seccomp_record("pid= comm= syscall=").has_value());
}

}  // namespace
}  // namespace broker
