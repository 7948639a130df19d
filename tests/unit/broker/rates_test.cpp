// The limits of devices and groups, as their workers find them in memory.
#include "broker/rates.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>

#include "broker/limit_text.h"
#include "common/ipc/worker_messages.h"

namespace broker {
namespace {

using common::DeviceKind;
using common::Rate;
using common::ipc::WorkerFd;
using ::testing::HasSubstr;

DeviceLimits limits(std::string_view text) { return *parse_limits(text, DeviceKind::kBlk); }

DeviceConfig device(const std::string& group = {}) {
  DeviceConfig config;
  config.name = "vda";
  config.tenant = "blue";
  config.limit_group = group;
  return config;
}

GroupConfig group(std::string_view text = "none") {
  return {"web", "blue", DeviceKind::kBlk, limits(text)};
}

// As a worker maps it.
class Mapped {
 public:
  Mapped(const WorkerRecipe& recipe, WorkerFd number) {
    for (const auto& descriptor : recipe.descriptors) {
      if (descriptor.number != static_cast<int>(number)) continue;
      region_ = *common::SharedRegion::map(descriptor.from, 0, common::kRateMemoryBytes,
                                           common::SharedRegion::Access::kReadWrite);
    }
  }
  [[nodiscard]] const common::RateSettings& settings() const {
    return *reinterpret_cast<const common::RateSettings*>(region_.bytes().data());
  }
  [[nodiscard]] common::RateBuckets& buckets() const {
    return *reinterpret_cast<common::RateBuckets*>(region_.bytes().data() + common::kRatePageBytes);
  }
  [[nodiscard]] std::uint64_t iops() const { return settings().per_second[0]; }

 private:
  common::SharedRegion region_;
};

struct RatesTest : testing::Test {
  std::shared_ptr<DeviceRates> make(const DeviceConfig& config) { return *groups.make(config); }
  RateGroups groups;
  WorkerRecipe recipe;
};

TEST_F(RatesTest, SayNothingWhereNothingIsLimited) {
  const auto rates = make(device());
  ASSERT_TRUE(rates->add_to(recipe));
  EXPECT_EQ(recipe.rate_memories, 1U);
  EXPECT_EQ(Mapped(recipe, WorkerFd::kRates).settings().state, 0U);
}

TEST_F(RatesTest, ReachWorkersThatRunAndThoseThatComeLater) {
  const auto rates = make(device());
  rates->set(limits("iops=1000,iops-burst=5"));
  ASSERT_TRUE(rates->add_to(recipe));
  const Mapped worker(recipe, WorkerFd::kRates);
  EXPECT_EQ(worker.iops(), 1000U);
  EXPECT_EQ(worker.settings().burst[0], 5U);
  const std::uint32_t state = worker.settings().state;
  EXPECT_NE(state, 0U);
  rates->set(limits("iops=2000"));
  EXPECT_EQ(worker.iops(), 2000U);
  EXPECT_EQ(worker.settings().burst[0], 200U);
  EXPECT_NE(worker.settings().state, state);
  rates->set({});
  EXPECT_EQ(worker.iops(), 0U);
  EXPECT_EQ(worker.settings().state, 0U);
}

TEST_F(RatesTest, AreOneMemoryForAllWorkersOfADevice) {
  const auto rates = make(device());
  ASSERT_TRUE(rates->add_to(recipe));
  WorkerRecipe another;
  ASSERT_TRUE(rates->add_to(another));
  Mapped(recipe, WorkerFd::kRates).buckets().full_at[3] = 77;
  EXPECT_EQ(Mapped(another, WorkerFd::kRates).buckets().full_at[3], 77U);
}

TEST_F(RatesTest, BeginABucketAnewWithItsLimitOnly) {
  const auto rates = make(device());
  rates->set(limits("iops=1000,bps=1M"));
  ASSERT_TRUE(rates->add_to(recipe));
  const Mapped worker(recipe, WorkerFd::kRates);
  worker.buckets().full_at[0] = 1'000'000;
  worker.buckets().full_at[3] = 2'000'000;
  worker.buckets().seen = 500;
  rates->set(limits("iops=10,bps=1M"));
  EXPECT_EQ(worker.buckets().full_at[0], 500U);
  EXPECT_EQ(worker.buckets().full_at[3], 2'000'000U);
}

TEST_F(RatesTest, CannotBeMadeShorterByAWorker) {
  const auto rates = make(device());
  ASSERT_TRUE(rates->add_to(recipe));
  const int seals = ::fcntl(recipe.descriptors.front().from.number, F_GET_SEALS);
  EXPECT_EQ(seals, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL);
}

TEST_F(RatesTest, OfAGroupAreInTheMemoryOfAllItsDevices) {
  groups.follow({group()});
  const auto first = make(device("web"));
  const auto second = make(device("web"));
  WorkerRecipe another;
  ASSERT_TRUE(first->add_to(recipe));
  ASSERT_TRUE(second->add_to(another));
  EXPECT_EQ(recipe.rate_memories, 2U);
  const Mapped own(another, WorkerFd::kRates);
  EXPECT_EQ(own.settings().state, 0U);
  groups.find("web")->set(limits("iops=100"));
  EXPECT_NE(own.settings().state, 0U) << "it is what a worker looks at";
  EXPECT_EQ(own.iops(), 0U);
  EXPECT_EQ(Mapped(recipe, WorkerFd::kGroupRates).iops(), 100U);
  EXPECT_EQ(Mapped(another, WorkerFd::kGroupRates).iops(), 100U);
  EXPECT_EQ(groups.find("web")->members(), 2U);
}

TEST_F(RatesTest, OfAnOperatorHoldUntilTheConfigurationSaysOthers) {
  groups.follow({group("iops=100")});
  groups.find("web")->set(limits("iops=7"));
  groups.follow({group("iops=100")});
  EXPECT_EQ(groups.find("web")->limits(), limits("iops=7"));
  groups.follow({group("iops=200")});
  EXPECT_EQ(groups.find("web")->limits(), limits("iops=200"));
  EXPECT_FALSE(groups.find("web")->by_operator());
}

TEST_F(RatesTest, RefuseADeviceThatCannotBeInItsGroup) {
  groups.follow({group()});
  DeviceConfig other = device("web");
  other.tenant = "red";
  EXPECT_THAT(groups.make(other).error(), HasSubstr("must be of one tenant"));
  other = device("web");
  other.kind = DeviceKind::kNet;
  EXPECT_THAT(groups.make(other).error(), HasSubstr("make a group for each type"));
  EXPECT_THAT(groups.make(device("mail")).error(), HasSubstr("add a [[group]] table"));
}

TEST_F(RatesTest, KeepAGroupWithDevicesInItsTenant) {
  groups.follow({group()});
  const auto member = make(device("web"));
  GroupConfig red = group();
  red.tenant = "red";
  EXPECT_FALSE(groups.put(red));
  EXPECT_TRUE(groups.put(group("iops=9")));
  EXPECT_EQ(groups.find("web")->limits(), limits("iops=9"));
}

}  // namespace
}  // namespace broker
