#include "broker/config_diff.h"

#include <algorithm>
#include <cstddef>
#include <numeric>
#include <set>
#include <utility>

#include "broker/settings.h"

namespace broker {
namespace {

// Descriptors have other numbers in every process: that there are some is all that can be compared.
DeviceConfig comparable(DeviceConfig config) {
  config.fd = config.fd >= 0 ? 0 : -1;
  config.tap_fds.assign(config.tap_fds.size(), 0);
  return config;
}

bool cuts_off(const Change& change) {
  return change.in_use && change.kind != ChangeKind::kChange && change.kind != ChangeKind::kAdd;
}

// Sets of changes of which each member wants what another one has.
class Swaps {
 public:
  // `changes` are replacements.
  Swaps(const std::vector<Change>& changes, const RunningDevices& running)
      : leaders_(changes.size()) {
    std::iota(leaders_.begin(), leaders_.end(), std::size_t{0});
    std::map<std::pair<std::string_view, std::string>, std::size_t> owners;
    for (std::size_t i = 0; i < changes.size(); ++i) {
      for (Claim& claim : claims_of(running.at(changes[i].name).config)) {
        if (!claim.shared) owners.emplace(std::pair(claim.setting, std::move(claim.value)), i);
      }
    }
    for (std::size_t i = 0; i < changes.size(); ++i) {
      for (Claim& claim : claims_of(changes[i].wanted)) {
        const auto owner = owners.find({claim.setting, std::move(claim.value)});
        if (owner != owners.end()) leaders_[leader(i)] = leader(owner->second);
      }
    }
  }
  [[nodiscard]] std::vector<std::vector<std::size_t>> sets() const {
    std::vector<std::vector<std::size_t>> all(leaders_.size());
    for (std::size_t i = 0; i < leaders_.size(); ++i) all[leader(i)].push_back(i);
    return all;
  }

 private:
  [[nodiscard]] std::size_t leader(std::size_t i) const {
    while (leaders_[i] != i) i = leaders_[i];
    return i;
  }
  std::vector<std::size_t> leaders_;
};

// A descriptor that was handed over is used up: what has one cannot come back.
bool can_make_way(const Change& change, const RunningDevices& running) {
  const DeviceConfig& now = running.at(change.name).config;
  return now.fd < 0 && now.tap_fds.empty();
}

// Replacements that are in each other's way, as two steps each: all make way, then all come.
std::vector<Change> in_two_steps(std::vector<Change> replacements, const RunningDevices& running) {
  std::vector<Change> steps;
  for (const auto& set : Swaps(replacements, running).sets()) {
    const bool together = set.size() > 1 && std::all_of(set.begin(), set.end(), [&](std::size_t i) {
                            return can_make_way(replacements[i], running);
                          });
    std::string names;
    bool in_use = false;
    for (const std::size_t i : set) {
      names += (names.empty() ? "'" : ", '") + replacements[i].name + "'";
      in_use = in_use || replacements[i].in_use;
    }
    for (const std::size_t i : set) {
      Change& change = replacements[i];
      if (together) {
        steps.push_back({ChangeKind::kMakeWay, change.name, in_use, {}, {}, names});
        change.kind = ChangeKind::kTakePlace;
        change.in_use = in_use;
        change.before = running.at(change.name).config;
        change.together = names;
      }
      steps.push_back(std::move(change));
    }
  }
  return steps;
}

}  // namespace

std::string swap_objection(const Change& change) {
  if (change.together.empty() || !change.in_use) return "";
  return change.together +
         " can only be replaced together, and a VMM uses one of them; stop that first, or use "
         "'bulkhead apply --force' to cut it off";
}

std::string_view change_name(ChangeKind kind) noexcept {
  switch (kind) {
    case ChangeKind::kRemove:
      return "remove";
    case ChangeKind::kMakeWay:
      return "make way";
    case ChangeKind::kChange:
      return "change";
    case ChangeKind::kReplace:
    case ChangeKind::kTakePlace:
      return "replace";
    case ChangeKind::kAdd:
      return "add";
  }
  return "nothing";
}

std::vector<Change> changes_to(const std::vector<DeviceConfig>& wanted,
                               const RunningDevices& running) {
  std::vector<Change> changes;
  std::vector<Change> replacements;
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
    const bool live = changes_live(before, after);
    (live ? changes : replacements)
        .push_back(
            {live ? ChangeKind::kChange : ChangeKind::kReplace, config.name, now.in_use, config});
  }
  for (const auto& [name, now] : running) {
    if (now.origin != Origin::kFile || listed.contains(name)) continue;
    changes.push_back({ChangeKind::kRemove, name, now.in_use});
  }
  for (Change& step : in_two_steps(std::move(replacements), running)) {
    changes.push_back(std::move(step));
  }
  std::stable_sort(changes.begin(), changes.end(),
                   [](const Change& left, const Change& right) { return left.kind < right.kind; });
  for (Change& change : changes) change.in_use = cuts_off(change);
  return changes;
}

}  // namespace broker
