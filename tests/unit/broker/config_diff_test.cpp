#include "broker/config_diff.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace broker {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

DeviceConfig disk(const std::string& name) {
  DeviceConfig device;
  device.name = name;
  device.socket_path = "/" + name + ".sock";
  device.blk_file = "/" + name;
  return device;
}

// "remove a", with "!" where its VMM would be cut off.
std::vector<std::string> words(const std::vector<Change>& changes) {
  std::vector<std::string> list;
  for (const Change& change : changes) {
    list.push_back(std::string(change_name(change.kind)) + " " + change.name +
                   (change.in_use ? "!" : ""));
  }
  return list;
}

TEST(ConfigDiff, IsEmptyWhereNothingHasChanged) {
  EXPECT_THAT(changes_to({disk("a"), disk("b")}, {{"a", {disk("a")}}, {"b", {disk("b")}}}),
              IsEmpty());
}

TEST(ConfigDiff, RemovesBeforeItAdds) {
  EXPECT_THAT(words(changes_to({disk("b"), disk("c")}, {{"a", {disk("a")}}, {"b", {disk("b")}}})),
              ElementsAre("remove a", "add c"));
}

TEST(ConfigDiff, ReplacesWhatNeedsANewDevice) {
  DeviceConfig changed = disk("a");
  changed.read_only = true;
  EXPECT_THAT(words(changes_to({changed}, {{"a", {disk("a")}}})), ElementsAre("replace a"));
}

TEST(ConfigDiff, ChangesInPlaceWhatCanBe) {
  DeviceConfig changed = disk("a");
  changed.tenant = "blue";
  changed.allow_uids = {7};
  EXPECT_THAT(words(changes_to({changed}, {{"a", {disk("a"), Origin::kFile, true}}})),
              ElementsAre("change a"));
}

TEST(ConfigDiff, ChangesLimitsInPlaceAndAGroupNot) {
  DeviceConfig limited = disk("a");
  limited.limits.at(common::Rate::kBytes) = {1'000'000, 0};
  DeviceConfig grouped = disk("b");
  grouped.limit_group = "web";
  EXPECT_THAT(words(changes_to({limited, grouped}, {{"a", {disk("a")}}, {"b", {disk("b")}}})),
              ElementsAre("change a", "replace b"));
}

TEST(ConfigDiff, ReplacesADeviceOfAGroupThatGetsAnotherTenant) {
  DeviceConfig before = disk("a");
  before.limit_group = "web";
  before.tenant = "blue";
  DeviceConfig after = before;
  after.tenant = "red";
  EXPECT_THAT(words(changes_to({after}, {{"a", {before}}})), ElementsAre("replace a"));
}

TEST(ConfigDiff, SaysWhoseVmmWouldBeCutOff) {
  DeviceConfig changed = disk("b");
  changed.num_queues = 2;
  EXPECT_THAT(words(changes_to({changed}, {{"a", {disk("a"), Origin::kFile, true}},
                                           {"b", {disk("b"), Origin::kFile, true}}})),
              ElementsAre("remove a!", "replace b!"));
}

TEST(ConfigDiff, LeavesWhatOperatorsHaveAdded) {
  EXPECT_THAT(changes_to({}, {{"a", {disk("a"), Origin::kOperator, false}}}), IsEmpty());
}

TEST(ConfigDiff, TakesOverWhatOperatorsHaveAddedAndIsListedNow) {
  EXPECT_THAT(words(changes_to({disk("a")}, {{"a", {disk("a"), Origin::kOperator, true}}})),
              ElementsAre("change a"));
}

TEST(ConfigDiff, DoesNotCompareTheNumbersOfDescriptors) {
  DeviceConfig one = disk("a");
  one.socket_path.clear();
  DeviceConfig other = one;
  one.fd = 3;
  other.fd = 17;
  EXPECT_THAT(changes_to({one}, {{"a", {other}}}), IsEmpty());
}

}  // namespace
}  // namespace broker
