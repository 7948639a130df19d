#include "broker/audit_reader.h"

#include <gtest/gtest.h>

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
