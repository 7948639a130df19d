#include "policy/exec_label.h"

#include <gtest/gtest.h>

#include <string>

namespace {

constexpr const char* kBroker = "system_u:system_r:bulkhead_t:s0";
constexpr const char* kType = "bulkhead_session_t";

TEST(ExecLabel, TakesTheCategoriesOfTheVmmAndAllElseFromTheBroker) {
  EXPECT_EQ(policy::label_for(kBroker, kType, "system_u:object_r:svirt_t:s0:c12,c345"),
            "system_u:system_r:bulkhead_session_t:s0:c12,c345");
}

TEST(ExecLabel, TakesTheLowerLevelOfARange) {
  EXPECT_EQ(
      policy::label_for(kBroker, kType, "unconfined_u:unconfined_r:unconfined_t:s0-s0:c0.c1023"),
      "system_u:system_r:bulkhead_session_t:s0");
  EXPECT_EQ(policy::level_in("u:r:t:s0:c1,c5.c8-s15:c0.c1023"), "s0:c1,c5.c8");
}

TEST(ExecLabel, KnowsALevelWhenItSeesOne) {
  for (const char* level : {"s0", "s15", "s0:c0", "s0:c1,c2", "s0:c0.c1023", "s1:c1.c3,c7"}) {
    EXPECT_EQ(policy::level_in(std::string("u:r:t:") + level), level);
  }
}

TEST(ExecLabel, TakesNothingFromWhatIsNoLevel) {
  for (const char* level : {"",
                            ":",
                            "s",
                            "c0",
                            "S0",
                            "s0:",
                            "s0:c",
                            "s0:c1,",
                            "s0:,c1",
                            "s0:c1.",
                            "s0:c1..c2",
                            "s0:c1;c2",
                            "s0 :c1",
                            "s0:c1 ",
                            "s0:c1\n",
                            "s-1",
                            "s00",
                            "s0:c01",
                            "s0:c99999999999",
                            "s0:c1.c2.c3",
                            "-s0",
                            "SystemLow",
                            "s0:c1/../x",
                            "s0:c1:c2"}) {
    EXPECT_FALSE(policy::level_in(std::string("u:r:t:") + level)) << level;
  }
}

TEST(ExecLabel, TakesNothingFromWhatIsNoLabel) {
  for (const char* label : {"", ":", "::", ":::", "unconfined", "u:r:t", "bulkhead (enforce)",
                            "libvirt-12 (enforce)", "/usr/bin/x//&y (enforce)"}) {
    EXPECT_FALSE(policy::level_in(label)) << label;
    EXPECT_EQ(policy::label_for(kBroker, kType, label), "") << label;
  }
}

TEST(ExecLabel, TakesNoLevelThatIsEndless) {
  std::string label = "u:r:t:s0:c1";
  for (int i = 0; i < 1000; ++i) label += ",c1";
  EXPECT_FALSE(policy::level_in(label));
}

TEST(ExecLabel, TakesNoByteOfAVmmsLabelButItsLevel) {
  const std::string peer = std::string("evil\nuser:r:bulkhead_t:s0:c1", 28);
  EXPECT_EQ(policy::label_for(kBroker, kType, peer), "system_u:system_r:bulkhead_session_t:s0:c1");
  EXPECT_EQ(policy::label_for(kBroker, kType, std::string("u:r:t:s0:c1\0x", 13)), "");
}

TEST(ExecLabel, LeavesItToThePolicyWhereTheBrokerIsNotInItsDomain) {
  const std::string peer = "system_u:system_r:svirt_t:s0:c1,c2";
  for (const char* own : {"", "unconfined", "bulkhead (enforce)", "system_u:system_r:bulkhead_t",
                          "unconfined_u:unconfined_r:unconfined_t:s0-s0:c0.c1023"}) {
    EXPECT_EQ(policy::label_for(own, kType, peer), "") << own;
  }
}

TEST(ExecLabel, NeedsNoSecurityModuleWhereThereIsNothingToSet) {
  EXPECT_TRUE(policy::ExecLabel::set("").has_value());
}

// On a host with SELinux this label is none of its policy; on others the attribute is not there.
TEST(ExecLabel, SaysSoWhereTheHostRefusesTheLabel) {
  const auto set = policy::ExecLabel::set("no_such_u:no_such_r:no_such_t:s0");
  ASSERT_FALSE(set.has_value());
  EXPECT_NE(set.error().os_errno, 0);
}

}  // namespace
