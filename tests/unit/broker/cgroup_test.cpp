// Texts only: what a delegated tree does is tried in a guest (guest.host_cgroup).
#include "broker/cgroup.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/sysmacros.h>

namespace broker {
namespace {

using testing::HasSubstr;

TEST(Cgroup, LimitsEachWayToWhatIsAllowedForItOrForBothWithTheBurst) {
  using common::Rate;
  DeviceLimits limits;
  EXPECT_EQ(cgroup_io_max(makedev(8, 0), kernel_rates(limits)),
            "8:0 rbps=max wbps=max riops=max wiops=max");
  limits.at(Rate::kOperations) = {.per_second = 1000, .burst = 0};
  limits.at(Rate::kWriteOperations) = {.per_second = 100, .burst = 50};
  limits.at(Rate::kReadBytes) = {.per_second = 1'000'000, .burst = 500'000};
  EXPECT_EQ(cgroup_io_max(makedev(8, 0), kernel_rates(limits)),
            "8:0 rbps=1500000 wbps=max riops=1100 wiops=150");
}

TEST(Cgroup, NoLimitIsMax) {
  EXPECT_EQ(cgroup_number(0), "max");
  EXPECT_EQ(cgroup_number(7), "7");
}

TEST(Cgroup, ProcessorTimeIsAShareOfEachTenthOfASecond) {
  EXPECT_EQ(cgroup_cpu_max(0), "max 100000");
  EXPECT_EQ(cgroup_cpu_max(50), "50000 100000");
  EXPECT_EQ(cgroup_cpu_max(100'000), "100000000 100000");
}

TEST(Cgroup, RatesOfADiskNameItByItsNumber) {
  EXPECT_EQ(cgroup_io_max(makedev(8, 16), {.write_bytes = 1 << 20, .read_requests = 100}),
            "8:16 rbps=max wbps=1048576 riops=100 wiops=max");
}

TEST(Cgroup, PathIsThatOfVersionTwo) {
  EXPECT_EQ(cgroup_path_in("12:pids:/a\n1:name=systemd:/b\n0::/system.slice/b.service\n"),
            "/system.slice/b.service");
  EXPECT_EQ(cgroup_path_in("0::/\n"), "/");
  EXPECT_EQ(cgroup_path_in("12:pids:/a\n"), "");
  EXPECT_EQ(cgroup_path_in(""), "");
}

TEST(Cgroup, ADirectoryThatIsNoCgroupIsRefused) {
  const auto opened = Cgroups::open("/proc");
  ASSERT_FALSE(opened);
  EXPECT_THAT(opened.error(), HasSubstr("'/proc' is no cgroup of version 2"));
}

TEST(Cgroup, APathThatIsNotThereIsAnError) {
  const auto opened = Cgroups::open("/nonexistent/cgroup");
  ASSERT_FALSE(opened);
  EXPECT_THAT(opened.error(), HasSubstr("No such file or directory"));
}

}  // namespace
}  // namespace broker
