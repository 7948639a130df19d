#include "broker/config_diff.h"

#include <algorithm>
#include <set>
#include <utility>

namespace broker {
namespace {

// Descriptors have other numbers in every process: that there are some is all that can be compared.
DeviceConfig comparable(DeviceConfig config) {
  config.fd = config.fd >= 0 ? 0 : -1;
  config.tap_fds.assign(config.tap_fds.size(), 0);
  return config;
}

bool cuts_off(const Change& change) {
  return change.in_use &&
         (change.kind == ChangeKind::kRemove || change.kind == ChangeKind::kReplace);
}

}  // namespace

std::string_view change_name(ChangeKind kind) noexcept {
  switch (kind) {
    case ChangeKind::kRemove:
      return "remove";
    case ChangeKind::kChange:
      return "change";
    case ChangeKind::kReplace:
      return "replace";
    case ChangeKind::kAdd:
      return "add";
  }
  return "nothing";
}

std::vector<Change> changes_to(const std::vector<DeviceConfig>& wanted,
                               const RunningDevices& running) {
  std::vector<Change> changes;
  std::set<std::string_view> listed;
  for (const DeviceConfig& config : wanted) {
    listed.insert(config.name);
    const auto found = running.find(config.name);
    if (found == running.end()) {
      changes.push_back({ChangeKind::kAdd, config.name, false, config});
      continue;
    }
    const RunningDevice& now = found->second;
    const DeviceConfig before = comparable(now.config);
    const DeviceConfig after = comparable(config);
    if (before == after && now.origin == Origin::kFile) continue;
    const ChangeKind kind =
        changes_live(before, after) ? ChangeKind::kChange : ChangeKind::kReplace;
    changes.push_back({kind, config.name, now.in_use, config});
  }
  for (const auto& [name, now] : running) {
    if (now.origin != Origin::kFile || listed.contains(name)) continue;
    changes.push_back({ChangeKind::kRemove, name, now.in_use, {}});
  }
  std::stable_sort(changes.begin(), changes.end(),
                   [](const Change& left, const Change& right) { return left.kind < right.kind; });
  for (Change& change : changes) change.in_use = cuts_off(change);
  return changes;
}

}  // namespace broker
