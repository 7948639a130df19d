#include "broker/control/access.h"

#include <grp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>

#include "broker/setting_values.h"
#include "broker/text.h"

namespace broker::control {
namespace {

constexpr std::size_t kNameBufferBytes = 16384;
constexpr std::size_t kGroupsLikely = 64;
constexpr std::size_t kGroupsMax = 65536;  // NGROUPS_MAX.

Answer<std::optional<gid_t>> find_group(const std::string& name, std::string_view option) {
  if (name.empty()) return std::nullopt;
  if (const auto number = parse_number<gid_t>(name)) return *number;
  std::vector<char> buffer(kNameBufferBytes);
  group entry{};
  group* found = nullptr;
  ::getgrnam_r(name.c_str(), &entry, buffer.data(), buffer.size(), &found);
  if (found != nullptr) return found->gr_gid;
  return common::fail("there is no group " + in_quotes(name) +
                      "; give a group that exists, or a number, with " + std::string(option));
}

bool has(const std::vector<gid_t>& gids, const std::optional<gid_t>& wanted) {
  return wanted && std::find(gids.begin(), gids.end(), *wanted) != gids.end();
}

}  // namespace

Answer<AccessRules> access_rules(const BrokerConfig& config) {
  AccessRules rules;
  rules.own_uid = ::geteuid();
  TRY_LET(rules.change_group, find_group(config.control_group, "--control-group"));
  TRY_LET(rules.read_group, find_group(config.control_read_group, "--control-read-group"));
  return rules;
}

bool is_owner(const AccessRules& rules, uid_t uid) noexcept {
  return uid == 0 || uid == rules.own_uid;
}

Access access_of(const AccessRules& rules, uid_t uid, const std::vector<gid_t>& gids) {
  if (is_owner(rules, uid) || has(gids, rules.change_group)) return Access::kChange;
  return has(gids, rules.read_group) ? Access::kRead : Access::kNone;
}

std::vector<gid_t> groups_of(common::FdRef connected, gid_t effective) {
  // Most have few; asking with room for all would cost more than all the rest of letting them in.
  std::vector<gid_t> gids(kGroupsLikely);
  auto bytes = static_cast<socklen_t>(gids.size() * sizeof(gid_t));
  const auto ask = [&] {
    return ::getsockopt(connected.number, SOL_SOCKET, SO_PEERGROUPS, gids.data(), &bytes) == 0;
  };
  if (!ask()) {
    gids.resize(kGroupsMax);
    bytes = static_cast<socklen_t>(gids.size() * sizeof(gid_t));
    if (!ask()) bytes = 0;
  }
  gids.resize(bytes / sizeof(gid_t));
  gids.insert(gids.begin(), effective);
  return gids;
}

}  // namespace broker::control
