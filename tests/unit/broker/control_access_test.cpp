#include "broker/control/access.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include "common/sys.h"

namespace broker::control {
namespace {

using ::testing::HasSubstr;

constexpr AccessRules kRules{.own_uid = 990, .change_group = 20, .read_group = 30};

TEST(ControlAccess, LetsRootAndTheBrokersUserChange) {
  EXPECT_EQ(access_of(kRules, 0, {5}), Access::kChange);
  EXPECT_EQ(access_of(kRules, 990, {5}), Access::kChange);
}

TEST(ControlAccess, GoesByEveryGroupOfAProcess) {
  EXPECT_EQ(access_of(kRules, 1000, {5, 6, 20}), Access::kChange);
  EXPECT_EQ(access_of(kRules, 1000, {5, 30, 6}), Access::kRead);
  EXPECT_EQ(access_of(kRules, 1000, {30, 20}), Access::kChange);
  EXPECT_EQ(access_of(kRules, 1000, {5, 6}), Access::kNone);
}

TEST(ControlAccess, NoGroupMayWhereNoneIsConfigured) {
  EXPECT_EQ(access_of({.own_uid = 990, .change_group = {}, .read_group = {}}, 1000, {0}),
            Access::kNone);
}

TEST(ControlAccess, AsksTheKernelForTheGroups) {
  const auto pair = common::make_packet_pair();
  ASSERT_TRUE(pair);
  EXPECT_THAT(groups_of(pair->first.ref(), ::getegid()), ::testing::Contains(::getegid()));
}

TEST(ControlAccess, RefusesAGroupThatDoesNotExist) {
  BrokerConfig config;
  config.control_group = "no-such-group-here";
  const auto rules = access_rules(config);
  ASSERT_FALSE(rules);
  EXPECT_THAT(rules.error(), HasSubstr("--control-group"));
}

}  // namespace
}  // namespace broker::control
