#include "policy/capability_aside.h"

#include <gtest/gtest.h>
#include <linux/capability.h>

#include "policy/capabilities.h"

namespace policy {
namespace {

TEST(CapabilityAside, IsWithoutTheCapabilityAndPutsItBack) {
  const bool before = has_capability(CAP_SYS_ADMIN);
  {
    const CapabilityAside aside(CAP_SYS_ADMIN);
    EXPECT_FALSE(has_capability(CAP_SYS_ADMIN));
  }
  EXPECT_EQ(has_capability(CAP_SYS_ADMIN), before);
}

TEST(CapabilityAside, TouchesNoOtherCapability) {
  const bool before = has_capability(CAP_NET_ADMIN);
  const CapabilityAside aside(CAP_SYS_ADMIN);
  EXPECT_EQ(has_capability(CAP_NET_ADMIN), before);
}

}  // namespace
}  // namespace policy
