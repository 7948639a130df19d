#include "broker/posture_probe.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cerrno>

namespace broker {
namespace {

using common::Layer;
using State = common::LayerResult::State;

common::LayerResults all_enforced() {
  common::LayerResults results{};
  results.fill({State::kEnforced, 0, 0});
  return results;
}

common::LayerResult& at(common::LayerResults& results, Layer layer) {
  return results[static_cast<std::size_t>(layer)];
}

TEST(PostureSummary, IsShortWhereAllHolds) {
  EXPECT_EQ(posture_summary(all_enforced()), "posture: 20 of 20 layers enforced");
}

TEST(PostureSummary, NamesWhatIsMissingAndWhy) {
  auto results = all_enforced();
  at(results, Layer::kOwnUid) = {State::kDegraded, 0, 0};
  at(results, Layer::kMseal) = {State::kAbsent, 0, ENOSYS};
  at(results, Layer::kLandlock) = {State::kAbsent, 0, 0};
  EXPECT_EQ(posture_summary(results),
            "posture: 17 of 20 layers enforced; degraded: own uid (the broker's own: it may "
            "not give another); absent: landlock, mseal (Function not implemented)");
}

TEST(PostureSummary, TellsALayerThatWasSwitchedOffFromOneThatFailed) {
  auto results = all_enforced();
  at(results, Layer::kCoreScheduling) = {State::kAbsent, 0, 0};
  EXPECT_EQ(posture_summary(results),
            "posture: 19 of 20 layers enforced; absent: core scheduling (switched off)");
  at(results, Layer::kCoreScheduling) = {State::kAbsent, 0, ENODEV};
  EXPECT_EQ(posture_summary(results),
            "posture: 19 of 20 layers enforced; absent: core scheduling (No such device)");
}

TEST(PostureSummary, CanLeaveOutWhatNobodyKnowsYet) {
  auto results = all_enforced();
  at(results, Layer::kCgroupLimits) = {};
  at(results, Layer::kMseal) = {State::kAbsent, 0, ENOSYS};
  EXPECT_EQ(posture_summary_without(Layer::kCgroupLimits, results),
            "posture: 18 of 19 layers enforced; absent: mseal (Function not implemented)");
}

TEST(PostureSummary, SilenceIsNotALayer) {
  auto results = all_enforced();
  at(results, Layer::kSeccomp) = {};
  EXPECT_EQ(posture_summary(results), "posture: 19 of 20 layers enforced; absent: seccomp");
}

TEST(PostureSummary, NumberThatIsNoStateIsNotALayer) {
  auto results = all_enforced();
  at(results, Layer::kSeccomp) = {static_cast<State>(77), 0, 0};
  EXPECT_EQ(posture_summary(results), "posture: 19 of 20 layers enforced; absent: seccomp");
}

TEST(MissingForStrict, ListsEachLayerNotOnlyTheFirst) {
  auto results = all_enforced();
  at(results, Layer::kNetNamespace) = {State::kAbsent, 0, EPERM};
  at(results, Layer::kOwnUid) = {State::kDegraded, 0, 0};
  EXPECT_THAT(missing_for_strict(results),
              testing::ElementsAre(
                  testing::HasSubstr("net namespace is absent (Operation not permitted): allow"),
                  testing::HasSubstr("own uid is degraded (the broker's own: it may not give "
                                     "another): start it as root")));
}

TEST(MissingForStrict, DoesNotAskForWhatKernelsMostlyHaveNot) {
  auto results = all_enforced();
  at(results, Layer::kMseal) = {State::kAbsent, 0, ENOSYS};
  at(results, Layer::kMdwe) = {State::kAbsent, 0, EINVAL};
  EXPECT_TRUE(missing_for_strict(results).empty());
}

}  // namespace
}  // namespace broker
