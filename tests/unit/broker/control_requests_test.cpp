#include "broker/control/requests.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <vector>

#include "broker/control/device_record.h"
#include "broker/control/wire.h"
#include "common/sys.h"

namespace broker::control {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

std::string name_of_limited(const LimitRequest& request) {
  return (request.group ? "group " : "") + request.name + " " +
         std::to_string(request.change.per_second[0]);
}

// Writes down what it was asked for.
class Recorder final : public Requests {
 public:
  void status(const Caller&) override { asked.emplace_back("status"); }
  void device(const Caller&, const std::string& name, bool next) override {
    asked.push_back((next ? "after " : "device ") + name);
  }
  void process(const Caller&, const std::string& name, std::uint32_t index) override {
    asked.push_back("process " + name + " " + std::to_string(index));
  }
  void queue(const Caller&, const std::string& name, std::uint32_t first) override {
    asked.push_back("queue " + name + " " + std::to_string(first));
  }
  void event(const Caller&, std::uint64_t after, bool wait) override {
    asked.push_back("event " + std::to_string(after) + (wait ? " wait" : ""));
  }
  void settings(const Caller&, const std::string& name) override {
    asked.push_back("settings " + name);
  }
  void add(const Caller&, const AddRequest& request, common::ipc::FdList&) override {
    asked.push_back("add " + request.device.name + (request.force ? " force" : ""));
    added = request.device;
  }
  void order(const Caller&, const std::string& name, Act act, bool force) override {
    asked.push_back("order " + name + " " + std::to_string(static_cast<int>(act)) +
                    (force ? " force" : ""));
  }
  void group(const Caller&, const std::string& name, bool next) override {
    asked.push_back((next ? "after group " : "group ") + name);
  }
  void limit(const Caller&, const LimitRequest& request) override {
    asked.push_back("limit " + name_of_limited(request));
  }
  void put_group(const Caller&, const GroupConfig& group) override {
    asked.push_back("put group " + group.name + " of " + group.tenant);
  }
  void end_broker(const Caller&) override { asked.emplace_back("end"); }

  std::vector<std::string> asked;
  DeviceConfig added;
};

class ControlRequests : public testing::Test {
 protected:
  Refusal take(std::span<const std::byte> packet, Access access = Access::kChange) {
    return take_request(recorder_, {1, access}, packet, fds_);
  }
  template <typename T>
  Refusal take_message(const T& message, Access access = Access::kChange) {
    return take(std::as_bytes(std::span(&message, 1)), access);
  }
  template <typename T>
  Outcome outcome_of(const T& message, Access access = Access::kChange) {
    return take_message(message, access).outcome;
  }

  Recorder recorder_;
  common::ipc::FdList fds_;
};

Order order_of(Act act, std::string_view name = "vda") {
  Order order;
  order.act = static_cast<std::uint32_t>(act);
  put_text(order.name, name);
  return order;
}

TEST_F(ControlRequests, HandsOnWhatIsRight) {
  AskDevice next;
  next.next = 1;
  AskProcess process;
  process.index = 3;
  put_text(process.name, "vda");
  AskQueue queue;
  queue.first = 2;
  put_text(queue.name, "vda");
  Order force = order_of(Act::kRemove);
  force.force = 1;
  EXPECT_FALSE(take_message(AskStatus{}).refused());
  EXPECT_FALSE(take_message(queue).refused());
  EXPECT_FALSE(take_message(next).refused());
  EXPECT_FALSE(take_message(process).refused());
  EXPECT_FALSE(take_message(force).refused());
  EXPECT_FALSE(take_message(EndBroker{}).refused());
  EXPECT_THAT(recorder_.asked, ElementsAre("status", "queue vda 2", "after ", "process vda 3",
                                           "order vda 3 force", "end"));
}

AddDevice add_vda() {
  DeviceConfig device;
  device.name = "vda";
  device.socket_path = "/s";
  device.blk_file = "/d";
  AddDevice add;
  add.device = record_of(device);
  return add;
}

TEST_F(ControlRequests, HandsOnADevice) {
  AddDevice add = add_vda();
  add.force = 1;
  EXPECT_FALSE(take_message(add).refused());
  EXPECT_THAT(recorder_.asked, ElementsAre("add vda force"));
  EXPECT_EQ(recorder_.added.blk_file, "/d");
}

TEST_F(ControlRequests, RefusesADeviceThatIsWrongAndGoesOn) {
  AddDevice add = add_vda();
  add.device.block_size = 7;
  const Refusal refusal = take_message(add);
  EXPECT_EQ(refusal.outcome, Outcome::kFailed);
  EXPECT_THAT(refusal.text, HasSubstr("block_size must be 512 or 4096"));
}

TEST_F(ControlRequests, RefusesADeviceWhoseDescriptorsAreMissing) {
  AddDevice add = add_vda();
  add.device.socket_fds = 1;
  EXPECT_EQ(outcome_of(add), Outcome::kMalformed);
}

TEST_F(ControlRequests, RefusesFlagsThatAreNone) {
  AddDevice add = add_vda();
  add.replace = 2;
  EXPECT_EQ(outcome_of(add), Outcome::kMalformed);
}

TEST_F(ControlRequests, HandsOnWhoWaitsForAnEvent) {
  AskEvent ask;
  ask.after = 7;
  ask.wait = 1;
  EXPECT_FALSE(take_message(ask).refused());
  EXPECT_THAT(recorder_.asked, ElementsAre("event 7 wait"));
  ask.wait = 2;
  EXPECT_EQ(outcome_of(ask), Outcome::kMalformed);
}

TEST_F(ControlRequests, RefusesPacketsTooShortForAKind) {
  EXPECT_EQ(take({}).outcome, Outcome::kMalformed);
  const std::array<std::byte, 3> three{};
  EXPECT_EQ(take(three).outcome, Outcome::kMalformed);
}

TEST_F(ControlRequests, RefusesAKindThatIsNone) {
  AskStatus message;
  message.kind = 0x380;
  EXPECT_EQ(outcome_of(message), Outcome::kMalformed);
}

TEST_F(ControlRequests, RefusesAnotherVersion) {
  AskStatus message;
  message.version = kVersion + 1;
  EXPECT_THAT(take_message(message).text, HasSubstr("another version"));
  EXPECT_THAT(recorder_.asked, IsEmpty());
}

TEST_F(ControlRequests, RefusesAnotherSize) {
  std::vector<std::byte> longer(sizeof(Order) + 1);
  const Order order = order_of(Act::kStop);
  std::memcpy(longer.data(), &order, sizeof(order));
  EXPECT_EQ(take(longer).outcome, Outcome::kMalformed);
  EXPECT_EQ(take(std::span(longer).first(sizeof(Order) - 1)).outcome, Outcome::kMalformed);
  EXPECT_FALSE(take(std::span(longer).first(sizeof(Order))).refused());
}

TEST_F(ControlRequests, RefusesAnActThatIsNone) {
  Order order = order_of(Act::kStop);
  order.act = kActCount;
  EXPECT_EQ(outcome_of(order), Outcome::kMalformed);
  order.act = 0xffffffff;
  EXPECT_EQ(outcome_of(order), Outcome::kMalformed);
}

TEST_F(ControlRequests, RefusesAForceThatIsNeitherYesNorNo) {
  Order order = order_of(Act::kStop);
  order.force = 2;
  EXPECT_EQ(outcome_of(order), Outcome::kMalformed);
}

TEST_F(ControlRequests, RefusesTextAfterTheEndOfAName) {
  Order order = order_of(Act::kStop);
  order.name[10] = 'x';
  EXPECT_EQ(outcome_of(order), Outcome::kMalformed);
}

TEST_F(ControlRequests, TakesANameThatFillsItsRoom) {
  EXPECT_FALSE(take_message(order_of(Act::kStop, std::string(64, 'n'))).refused());
}

TEST_F(ControlRequests, RefusesAnOrderWithoutAName) {
  EXPECT_EQ(outcome_of(order_of(Act::kStop, "")), Outcome::kMalformed);
}

TEST_F(ControlRequests, RefusesDescriptorsWhereNoneBelong) {
  auto pair = common::make_packet_pair();
  ASSERT_TRUE(pair);
  const AskStatus ask;
  const std::array<common::FdRef, 1> extra = {pair->first.ref()};
  ASSERT_TRUE(
      common::ipc::send_bytes(pair->first.ref(), std::as_bytes(std::span(&ask, 1)), extra, false));
  std::array<std::byte, 64> buffer;
  ASSERT_TRUE(common::ipc::receive(pair->second.ref(), buffer, fds_, false));
  EXPECT_THAT(take_message(ask).text, HasSubstr("1 descriptors"));
}

ChangeLimits limit_of(std::uint64_t iops) {
  ChangeLimits change;
  change.type = static_cast<std::uint32_t>(common::DeviceKind::kBlk);
  put_text(change.name, "vda");
  change.change.per_second.fill(LimitChange::kKeep);
  change.change.burst.fill(LimitChange::kKeep);
  change.change.per_second[0] = iops;
  return change;
}

TEST_F(ControlRequests, HandsOnLimitsAndGroups) {
  ChangeLimits of_group = limit_of(9);
  of_group.group = 1;
  AskGroup next;
  next.next = 1;
  PutGroup put;
  put.type = static_cast<std::uint32_t>(common::DeviceKind::kBlk);
  put_text(put.name, "web");
  put_text(put.tenant, "blue");
  put.limits.per_second[0] = 1000;
  EXPECT_FALSE(take_message(limit_of(5)).refused());
  EXPECT_FALSE(take_message(of_group).refused());
  EXPECT_FALSE(take_message(next).refused());
  EXPECT_FALSE(take_message(put).refused());
  EXPECT_THAT(recorder_.asked, ElementsAre("limit vda 5", "limit group vda 9", "after group ",
                                           "put group web of blue"));
}

TEST_F(ControlRequests, RefusesLimitsOfNothing) {
  ChangeLimits nameless = limit_of(5);
  nameless.name = {};
  EXPECT_EQ(outcome_of(nameless), Outcome::kMalformed);
  ChangeLimits strange = limit_of(5);
  strange.type = 99;
  EXPECT_EQ(outcome_of(strange), Outcome::kMalformed);
  PutGroup absurd;
  absurd.type = nameless.type;
  put_text(absurd.name, "web");
  absurd.limits.per_second[0] = 1ULL << 63;
  EXPECT_EQ(outcome_of(absurd), Outcome::kFailed);
  PutGroup badly_named;
  badly_named.type = nameless.type;
  put_text(badly_named.name, "web server");
  EXPECT_EQ(outcome_of(badly_named), Outcome::kFailed);
  EXPECT_EQ(outcome_of(limit_of(5), Access::kRead), Outcome::kRefused);
  EXPECT_TRUE(recorder_.asked.empty());
}

TEST_F(ControlRequests, LetsReadersLookAndNotChange) {
  EXPECT_FALSE(take_message(AskStatus{}, Access::kRead).refused());
  EXPECT_EQ(outcome_of(order_of(Act::kResize), Access::kRead), Outcome::kRefused);
  EXPECT_EQ(outcome_of(EndBroker{}, Access::kRead), Outcome::kRefused);
  EXPECT_EQ(outcome_of(AskStatus{}, Access::kNone), Outcome::kRefused);
  EXPECT_THAT(recorder_.asked, ElementsAre("status"));
}

}  // namespace
}  // namespace broker::control
