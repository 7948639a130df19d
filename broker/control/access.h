// broker/control/access.h: what the process at the other end of the operator's socket may do, by
// what the kernel knew of it when it connected.
#pragma once

#include <sys/types.h>

#include <optional>
#include <string>
#include <vector>

#include "broker/config.h"
#include "broker/control/requests.h"
#include "common/fd.h"

namespace broker::control {

struct AccessRules {
  uid_t own_uid = 0;  // The broker's.
  std::optional<gid_t> change_group;
  std::optional<gid_t> read_group;
};

// Looks the groups up, which must exist.
[[nodiscard]] Answer<AccessRules> access_rules(const BrokerConfig& config);

// Root and the broker's own user.
[[nodiscard]] bool is_owner(const AccessRules& rules, uid_t uid) noexcept;
// Owners may change.
[[nodiscard]] Access access_of(const AccessRules& rules, uid_t uid, const std::vector<gid_t>& gids);

// All groups of the process that connected, its effective one first.
[[nodiscard]] std::vector<gid_t> groups_of(common::FdRef connected, gid_t effective);

}  // namespace broker::control
