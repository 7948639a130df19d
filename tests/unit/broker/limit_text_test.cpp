// Rate limits as people write them.
#include "broker/limit_text.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

namespace broker {
namespace {

using common::DeviceKind;
using common::Rate;
using ::testing::HasSubstr;

DeviceLimits limits_of(std::string_view text, DeviceKind kind = DeviceKind::kBlk) {
  const auto limits = parse_limits(text, kind);
  EXPECT_TRUE(limits) << text << ": " << (limits ? "" : limits.error());
  return limits.value_or(DeviceLimits{});
}

std::string error_of(std::string_view text, DeviceKind kind = DeviceKind::kBlk) {
  const auto limits = parse_limits(text, kind);
  return limits ? "(no error)" : limits.error();
}

RateLimit one(std::string_view text, Rate rate) { return limits_of(text).at(rate); }

TEST(LimitText, ReadsEachLimitOfADiskAndOfACard) {
  const DeviceLimits disk =
      limits_of("iops=6,read-iops=1,write_iops=2,bps=70000,read-bps=80000,write-bps=90000");
  const DeviceLimits card = limits_of(
      "packets=6,rx-packets=1,tx_packets=2,bps=70000,rx-bps=80000,tx-bps=90000", DeviceKind::kNet);
  EXPECT_EQ(disk, card);
  EXPECT_EQ(disk.at(Rate::kOperations), (RateLimit{6, 0}));
  EXPECT_EQ(disk.at(Rate::kWriteBytes), (RateLimit{90000, 0}));
}

TEST(LimitText, ReadsSuffixes) {
  EXPECT_EQ(one("bps=50M", Rate::kBytes).per_second, 50'000'000U);
  EXPECT_EQ(one("bps=50Mi", Rate::kBytes).per_second, 50U << 20);
  EXPECT_EQ(one("iops=2k", Rate::kOperations).per_second, 2000U);
  EXPECT_EQ(one("bps=1T", Rate::kBytes).per_second, kBytesPerSecondMax);
}

TEST(LimitText, ReadsBurstsAsAmountsAndAsTimes) {
  EXPECT_EQ(one("iops=1000,iops-burst=50", Rate::kOperations), (RateLimit{1000, 50}));
  EXPECT_EQ(one("iops=1000,burst=50", Rate::kOperations), (RateLimit{1000, 50}));
  EXPECT_EQ(one("iops=1000,burst=2s", Rate::kOperations), (RateLimit{1000, 2000}));
  const DeviceLimits both = limits_of("iops=1000,bps=1M,burst=200ms,iops-burst=7");
  EXPECT_EQ(both.at(Rate::kOperations), (RateLimit{1000, 7}));
  EXPECT_EQ(both.at(Rate::kBytes), (RateLimit{1'000'000, 200'000}));
}

TEST(LimitText, TakesWhatPassesIn100MsForABurstThatIsNotGiven) {
  EXPECT_EQ(burst_of({1000, 0}), 100U);
  EXPECT_EQ(burst_of({1, 0}), 1U);
  EXPECT_EQ(burst_of({1000, 7}), 7U);
}

TEST(LimitText, WritesWhatItReads) {
  constexpr std::string_view kText = "iops=1000,iops-burst=50,write-bps=65536";
  EXPECT_EQ(limits_text(limits_of(kText), DeviceKind::kBlk), kText);
  EXPECT_EQ(limits_text(limits_of("packets=5", DeviceKind::kNet), DeviceKind::kNet), "packets=5");
  EXPECT_EQ(limits_text(limits_of("none"), DeviceKind::kBlk), "");
}

TEST(LimitText, RefusesZeroAndSaysWhatToDo) {
  EXPECT_THAT(error_of("iops=0"), HasSubstr("must not be 0"));
  EXPECT_THAT(error_of("iops=0"), HasSubstr("say none"));
  EXPECT_THAT(error_of("iops=1,iops-burst=0"), HasSubstr("must not be 0"));
}

TEST(LimitText, RefusesAbsurdLimits) {
  EXPECT_THAT(error_of("iops=9223372036854775808"), HasSubstr("must be from 1 to 100000000"));
  EXPECT_THAT(error_of("iops=18446744073709551615"), HasSubstr("must be from"));
  EXPECT_THAT(error_of("iops=18446744073709551616"), HasSubstr("must be a number"));
  EXPECT_THAT(error_of("bps=2T"), HasSubstr("must be from 65536"));
  EXPECT_THAT(error_of("bps=99999999999T"), HasSubstr("must be a number"));
  EXPECT_THAT(error_of("bps=65535"), HasSubstr("must be from 65536"));
  EXPECT_THAT(error_of("iops=1,iops-burst=3601"), HasSubstr("in 3600 s, 3600, not 3601"));
  EXPECT_THAT(error_of("iops=18446744073709551615,burst=3600s"), HasSubstr("must be from"));
}

TEST(LimitText, RefusesWhatItDoesNotKnow) {
  EXPECT_THAT(error_of("iosp=1"), HasSubstr("'iosp' is no limit; there are iops, read-iops"));
  EXPECT_THAT(error_of("iops=1", DeviceKind::kNet), HasSubstr("packets"));
  EXPECT_THAT(error_of("iops"), HasSubstr("must be like iops=1000"));
  EXPECT_THAT(error_of(""), HasSubstr("must be like"));
  EXPECT_THAT(error_of("iops=-1"), HasSubstr("must be a number"));
  EXPECT_THAT(error_of("iops=1.5"), HasSubstr("must be a number"));
  EXPECT_THAT(error_of("iops=1,iops=2"), HasSubstr("twice"));
  EXPECT_THAT(error_of("iops-burst=5"), HasSubstr("needs iops"));
  EXPECT_THAT(error_of("burst=5"), HasSubstr("no limit that it is for"));
  EXPECT_THAT(error_of("iops=1,bps=1M,burst=5"), HasSubstr("one burst for several limits"));
  EXPECT_THAT(error_of("iops=1,burst=0s"), HasSubstr("burst must be a time"));
}

TEST(LimitText, ChangesWhatIsNamedAndKeepsTheRest) {
  const DeviceLimits before = limits_of("iops=1000,iops-burst=50,bps=1M");
  const auto changed = [&before](std::string_view text) {
    const auto after =
        changed_limits(before, *parse_limit_change(text, DeviceKind::kBlk), DeviceKind::kBlk);
    return after ? limits_text(*after, DeviceKind::kBlk) : after.error();
  };
  EXPECT_EQ(changed("bps=2M"), "iops=1000,iops-burst=50,bps=2000000");
  EXPECT_EQ(changed("iops=2000"), "iops=2000,bps=1000000") << "the burst was of another rate";
  EXPECT_EQ(changed("iops-burst=60"), "iops=1000,iops-burst=60,bps=1000000");
  EXPECT_EQ(changed("iops=none,read-iops=7"), "read-iops=7,bps=1000000");
  EXPECT_EQ(changed("none"), "");
  EXPECT_EQ(changed("none,bps=3M"), "bps=3000000");
  EXPECT_THAT(changed("read-iops-burst=7"), HasSubstr("needs read-iops"));
}

}  // namespace
}  // namespace broker
