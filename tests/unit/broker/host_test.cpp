#include "broker/host.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cerrno>

namespace broker {
namespace {

using common::EngineKind;

constexpr policy::UringSupport kThere{true, true, "", 0};
constexpr policy::UringSupport kRefused{false, false, "io_uring_setup", EPERM};

TEST(ChooseEngine, AutoTakesIoUringWhereItIsThere) {
  const auto decision = choose_engine(EngineChoice::kAuto, kThere);
  ASSERT_TRUE(decision);
  EXPECT_EQ(decision->kind, EngineKind::kIoUring);
  EXPECT_EQ(decision->why, "");
}

TEST(ChooseEngine, AutoFallsBackAndSaysWhy) {
  const auto decision = choose_engine(EngineChoice::kAuto, kRefused);
  ASSERT_TRUE(decision);
  EXPECT_EQ(decision->kind, EngineKind::kFallback);
  EXPECT_EQ(decision->why, "io_uring_setup: Operation not permitted");
}

TEST(ChooseEngine, DemandedIoUringThatIsNotThereIsAnError) {
  const auto decision = choose_engine(EngineChoice::kIoUring, kRefused);
  ASSERT_FALSE(decision);
  EXPECT_THAT(decision.error(), testing::HasSubstr("io_uring_setup: Operation not permitted"));
  EXPECT_THAT(decision.error(), testing::HasSubstr("--engine=auto"));
}

TEST(ChooseEngine, FallbackIsTakenEvenWhereIoUringIsThere) {
  const auto decision = choose_engine(EngineChoice::kFallback, kThere);
  ASSERT_TRUE(decision);
  EXPECT_EQ(decision->kind, EngineKind::kFallback);
}

}  // namespace
}  // namespace broker
