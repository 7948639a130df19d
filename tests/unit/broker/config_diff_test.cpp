#include "broker/config_diff.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/unit/broker/device_fixtures.h"

namespace broker {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

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
  EXPECT_THAT(changes_to({plain_disk("a"), plain_disk("b")},
                         {{"a", {plain_disk("a")}}, {"b", {plain_disk("b")}}}),
              IsEmpty());
}

TEST(ConfigDiff, RemovesBeforeItAdds) {
  EXPECT_THAT(words(changes_to({plain_disk("b"), plain_disk("c")},
                               {{"a", {plain_disk("a")}}, {"b", {plain_disk("b")}}})),
              ElementsAre("remove a", "add c"));
}

TEST(ConfigDiff, ReplacesWhatNeedsANewDevice) {
  DeviceConfig changed = plain_disk("a");
  changed.read_only = true;
  EXPECT_THAT(words(changes_to({changed}, {{"a", {plain_disk("a")}}})), ElementsAre("replace a"));
}

TEST(ConfigDiff, ChangesInPlaceWhatCanBe) {
  DeviceConfig changed = plain_disk("a");
  changed.tenant = "blue";
  changed.allow_uids = {7};
  EXPECT_THAT(words(changes_to({changed}, {{"a", {plain_disk("a"), Origin::kFile, true}}})),
              ElementsAre("change a"));
}

TEST(ConfigDiff, ChangesLimitsInPlaceAndAGroupNot) {
  DeviceConfig limited = plain_disk("a");
  limited.limits.at(common::Rate::kBytes) = {1'000'000, 0};
  DeviceConfig grouped = plain_disk("b");
  grouped.limit_group = "web";
  EXPECT_THAT(
      words(changes_to({limited, grouped}, {{"a", {plain_disk("a")}}, {"b", {plain_disk("b")}}})),
      ElementsAre("change a", "replace b"));
}

TEST(ConfigDiff, ReplacesADeviceOfAGroupThatGetsAnotherTenant) {
  DeviceConfig before = plain_disk("a");
  before.limit_group = "web";
  before.tenant = "blue";
  DeviceConfig after = before;
  after.tenant = "red";
  EXPECT_THAT(words(changes_to({after}, {{"a", {before}}})), ElementsAre("replace a"));
}

TEST(ConfigDiff, SaysWhoseVmmWouldBeCutOff) {
  DeviceConfig changed = plain_disk("b");
  changed.num_queues = 2;
  EXPECT_THAT(words(changes_to({changed}, {{"a", {plain_disk("a"), Origin::kFile, true}},
                                           {"b", {plain_disk("b"), Origin::kFile, true}}})),
              ElementsAre("remove a!", "replace b!"));
}

TEST(ConfigDiff, LeavesWhatOperatorsHaveAdded) {
  EXPECT_THAT(changes_to({}, {{"a", {plain_disk("a"), Origin::kOperator, false}}}), IsEmpty());
}

TEST(ConfigDiff, TakesOverWhatOperatorsHaveAddedAndIsListedNow) {
  EXPECT_THAT(
      words(changes_to({plain_disk("a")}, {{"a", {plain_disk("a"), Origin::kOperator, true}}})),
      ElementsAre("change a"));
}

TEST(ConfigDiff, DoesNotCompareTheNumbersOfDescriptors) {
  DeviceConfig one = plain_disk("a");
  one.socket_path.clear();
  DeviceConfig other = one;
  one.fd = 3;
  other.fd = 17;
  EXPECT_THAT(changes_to({one}, {{"a", {other}}}), IsEmpty());
}

DeviceConfig disk_on(const std::string& name, const std::string& image) {
  DeviceConfig device = plain_disk(name);
  device.blk_file = image;
  return device;
}

TEST(ConfigDiff, SwapsImagesByMakingWayFirst) {
  EXPECT_THAT(
      words(changes_to(
          {disk_on("a", "/b"), disk_on("b", "/a"), plain_disk("c")},
          {{"a", {plain_disk("a")}}, {"b", {plain_disk("b")}}, {"x", {plain_disk("x")}}})),
      ElementsAre("remove x", "make way a", "make way b", "replace a", "replace b", "add c"));
}

TEST(ConfigDiff, MovesImagesOnAlongAChainWhateverTheOrderOfTheFile) {
  const RunningDevices running = {{"a", {plain_disk("a")}}, {"b", {plain_disk("b")}}};
  EXPECT_THAT(words(changes_to({disk_on("a", "/b"), disk_on("b", "/new")}, running)),
              ElementsAre("make way a", "make way b", "replace a", "replace b"));
  EXPECT_THAT(words(changes_to({disk_on("b", "/new"), disk_on("a", "/b")}, running)),
              ElementsAre("make way b", "make way a", "replace b", "replace a"));
}

TEST(ConfigDiff, HoldsBackAllThatSwapWhereOneIsInUse) {
  const auto changes = changes_to({disk_on("a", "/b"), disk_on("b", "/a"), disk_on("c", "/new")},
                                  {{"a", {plain_disk("a")}},
                                   {"b", {plain_disk("b"), Origin::kFile, true}},
                                   {"c", {plain_disk("c")}}});
  EXPECT_THAT(words(changes),
              ElementsAre("make way a!", "make way b!", "replace c", "replace a!", "replace b!"));
  EXPECT_THAT(swap_objection(changes[0]),
              testing::HasSubstr("'a', 'b' can only be replaced together"));
  EXPECT_EQ(swap_objection(changes[2]), "");
}

TEST(ConfigDiff, KeepsWhatATakenPlaceGoesBackTo) {
  const auto changes = changes_to({disk_on("a", "/b"), disk_on("b", "/a")},
                                  {{"a", {plain_disk("a")}}, {"b", {plain_disk("b")}}});
  ASSERT_EQ(changes.size(), 4U);
  EXPECT_EQ(changes[2].before, plain_disk("a"));
  EXPECT_EQ(changes[2].wanted, disk_on("a", "/b"));
}

TEST(ConfigDiff, TakesReadersOfOneImageForNoSwap) {
  DeviceConfig reader = disk_on("a", "/iso");
  DeviceConfig other = disk_on("b", "/iso");
  reader.read_only = other.read_only = true;
  DeviceConfig changed = reader;
  DeviceConfig changed_too = other;
  changed.num_queues = changed_too.num_queues = 2;
  EXPECT_THAT(words(changes_to({changed, changed_too}, {{"a", {reader}}, {"b", {other}}})),
              ElementsAre("replace a", "replace b"));
}

TEST(ConfigDiff, LeavesDevicesWhoseDescriptorsAreUsedUpToTheOrdinaryWay) {
  DeviceConfig handed = plain_disk("a");
  handed.fd = 5;
  EXPECT_THAT(words(changes_to({disk_on("a", "/b"), disk_on("b", "/a")},
                               {{"a", {handed}}, {"b", {plain_disk("b")}}})),
              ElementsAre("replace a", "replace b"));
}

}  // namespace
}  // namespace broker
