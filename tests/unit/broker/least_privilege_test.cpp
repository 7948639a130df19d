#include "broker/least_privilege.h"

#include <gtest/gtest.h>

#include "policy/broker.h"

namespace broker {
namespace {

TEST(OwnList, IsTheShortOneOfABrokerToWhichNothingCanBeAdded) {
  BrokerConfig config;
  EXPECT_EQ(own_list(config, false), &policy::kBroker);
  EXPECT_EQ(own_list(config, true), &policy::kBrokerWithCgroups);
  config.control_by_default = true;
  config.control_socket = "";  // "off"
  EXPECT_EQ(own_list(config, false), &policy::kBroker);
}

TEST(OwnList, IsTheLongOneWhereOperatorsOrAFileCanAddDevices) {
  BrokerConfig by_default;
  by_default.control_by_default = true;
  EXPECT_EQ(own_list(by_default, false), &policy::kBrokerThatAdds);

  BrokerConfig asked;
  asked.control_socket = "/run/bulkhead/control.sock";
  EXPECT_EQ(own_list(asked, false), &policy::kBrokerThatAdds);
  EXPECT_EQ(own_list(asked, true), &policy::kBrokerThatAddsWithCgroups);

  BrokerConfig of_a_file;
  of_a_file.config_path = "/etc/bulkhead/bulkhead.toml";
  of_a_file.control_socket = "";
  EXPECT_EQ(own_list(of_a_file, false), &policy::kBrokerThatAdds);
}

TEST(OwnList, IsNotThereWithForensic) {
  BrokerConfig config;
  config.forensic = true;
  EXPECT_EQ(own_list(config, true), nullptr);
}

}  // namespace
}  // namespace broker
