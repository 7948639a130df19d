#include "broker/rates.h"

#include <algorithm>
#include <utility>

#include "broker/settings.h"
#include "broker/text.h"
#include "common/ipc/worker_messages.h"
#include "common/sys.h"

namespace broker {
namespace {

namespace ipc = common::ipc;
using common::RateBuckets;
using common::RateSettings;
using common::Result;

constexpr auto kRelaxed = std::memory_order_relaxed;

}  // namespace

// --- the memory ----------------------------------------------------------------------------------

void RateMemory::set(const DeviceLimits& limits, bool active) {
  limits_ = limits;
  active_ = active;
  if (file_.valid()) write();
}

Result<common::FdRef> RateMemory::file() {
  if (file_.valid()) return file_.ref();
  TRY_LET(common::Fd file, common::make_sealed_memfd("bulkhead-rates", common::kRateMemoryBytes));
  TRY_LET(region_, common::SharedRegion::map(file.ref(), 0, common::kRateMemoryBytes,
                                             common::SharedRegion::Access::kReadWrite));
  file_ = std::move(file);
  write();
  return file_.ref();
}

// `state` last: who sees it sees the rest. A bucket begins anew with its limit: what is left in it,
// or owed, was counted by another measure.
void RateMemory::write() {
  auto* const settings = reinterpret_cast<RateSettings*>(region_.bytes().data());
  auto* const buckets =
      reinterpret_cast<RateBuckets*>(region_.bytes().data() + common::kRatePageBytes);
  for (std::size_t i = 0; i < common::kRateCount; ++i) {
    const RateLimit& limit = limits_.rates[i];
    if (limit == written_.rates[i]) continue;
    settings->per_second[i].store(limit.per_second, kRelaxed);
    settings->burst[i].store(burst_of(limit), kRelaxed);
    buckets->full_at[i].store(buckets->seen.load(kRelaxed), kRelaxed);
  }
  written_ = limits_;
  ++changes_;
  settings->state.store(active_ ? changes_ << 1 | 1U : 0, std::memory_order_release);
}

// --- devices -------------------------------------------------------------------------------------

DeviceRates::DeviceRates(const DeviceLimits& limits, std::shared_ptr<GroupRates> group)
    : limits_(limits), group_(std::move(group)) {
  if (group_) group_->members_.push_back(this);
  follow();
}

DeviceRates::~DeviceRates() {
  if (group_) std::erase(group_->members_, this);
}

void DeviceRates::set(const DeviceLimits& limits) {
  limits_ = limits;
  follow();
}

void DeviceRates::follow() {
  memory_.set(limits_, limits_.any() || (group_ && group_->limits().any()));
}

Result<void> DeviceRates::add_to(WorkerRecipe& recipe) {
  TRY_LET(const common::FdRef own, memory_.file());
  recipe.descriptors.push_back({own, static_cast<int>(ipc::WorkerFd::kRates)});
  recipe.rate_memories = 1;
  if (!group_) return {};
  TRY_LET(const common::FdRef shared, group_->memory_.file());
  recipe.descriptors.push_back({shared, static_cast<int>(ipc::WorkerFd::kGroupRates)});
  recipe.rate_memories = 2;
  return {};
}

void limit_workers(DeviceModel& model, std::shared_ptr<DeviceRates> rates) {
  model.worker_recipe = [make = std::move(model.worker_recipe), rates = std::move(rates)](
                            std::uint32_t queue,
                            common::EngineKind engine) -> Result<WorkerRecipe> {
    TRY_LET(WorkerRecipe recipe, make(queue, engine));
    TRY(rates->add_to(recipe));
    return recipe;
  };
}

// --- groups --------------------------------------------------------------------------------------

GroupRates::GroupRates(GroupConfig config) : config_(std::move(config)) { follow(); }

void GroupRates::set(const DeviceLimits& limits) {
  operator_limits_ = limits;
  follow();
}

void GroupRates::configure(const DeviceLimits& limits) {
  if (config_.limits == limits) return;
  config_.limits = limits;
  operator_limits_.reset();
  follow();
}

void GroupRates::follow() {
  memory_.set(limits(), limits().any());
  // Theirs is what workers look at first.
  for (DeviceRates* const member : members_) member->follow();
}

void RateGroups::follow(const std::vector<GroupConfig>& groups) {
  std::map<std::string, std::shared_ptr<GroupRates>, std::less<>> now;
  for (const GroupConfig& config : groups) {
    const auto found = groups_.find(config.name);
    const bool same = found != groups_.end() && found->second->config().tenant == config.tenant &&
                      found->second->config().kind == config.kind;
    now[config.name] = same ? found->second : std::make_shared<GroupRates>(config);
    if (same) found->second->configure(config.limits);
  }
  groups_ = std::move(now);
}

Answer<void> RateGroups::put(const GroupConfig& config) {
  GroupRates* const known = find(config.name);
  if (known == nullptr) {
    groups_[config.name] = std::make_shared<GroupRates>(config);
  } else if (known->config().tenant == config.tenant && known->config().kind == config.kind) {
    known->configure(config.limits);
  } else if (known->members() == 0) {
    groups_[config.name] = std::make_shared<GroupRates>(config);
  } else {
    return common::fail("group " + in_quotes(config.name) +
                        " has devices, which keep it from getting another tenant or type; remove "
                        "them first, or give the group another name");
  }
  return {};
}

Answer<void> RateGroups::drop(const std::string& name) {
  const GroupRates* const group = find(name);
  if (group == nullptr) return common::fail("there is no group " + in_quotes(name));
  if (group->members() != 0) {
    return common::fail("group " + in_quotes(name) + " has " + std::to_string(group->members()) +
                        " devices; give them another limit_group, or remove them first");
  }
  groups_.erase(name);
  return {};
}

GroupRates* RateGroups::find(std::string_view name) const {
  const auto found = groups_.find(name);
  return found == groups_.end() ? nullptr : found->second.get();
}

const GroupRates* RateGroups::after(std::string_view name) const {
  const auto found = groups_.upper_bound(name);
  return found == groups_.end() ? nullptr : found->second.get();
}

Answer<std::shared_ptr<DeviceRates>> RateGroups::make(const DeviceConfig& device) const {
  if (device.limit_group.empty()) return std::make_shared<DeviceRates>(device.limits, nullptr);
  const auto found = groups_.find(device.limit_group);
  const bool known = found != groups_.end();
  const std::string objection = group_objection(device, known ? &found->second->config() : nullptr);
  if (!objection.empty()) return common::fail(objection);
  return std::make_shared<DeviceRates>(device.limits, found->second);
}

// Its members share buckets that a hijacked worker of one could empty for the others.
std::string group_objection(const DeviceConfig& device, const GroupConfig* group) {
  if (device.limit_group.empty()) return {};
  const std::string which = "limit_group " + in_quotes(device.limit_group);
  if (group == nullptr) {
    return which + " is not there; add a [[group]] table with that name to the configuration";
  }
  if (group->kind != device.kind) {
    return which + " is of type \"" + std::string(kind_name(group->kind)) +
           "\", and this device is \"" + std::string(kind_name(device.kind)) +
           "\"; make a group for each type";
  }
  if (group->tenant != device.tenant) {
    return which + " is of the tenant " + in_quotes(group->tenant) + ", and this device of " +
           in_quotes(device.tenant) +
           "; the devices of a group must be of one tenant, who could slow each other down";
  }
  return {};
}

}  // namespace broker
