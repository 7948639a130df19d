#include "broker/rates.h"

#include <sys/stat.h>

#include <algorithm>
#include <array>
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
  put();
  return file_.ref();
}

// --- for the next broker -------------------------------------------------------------------------

void RateMemory::keep_in(Keep* keep, const KeptRecord& record, std::optional<KeptThing> left) {
  keep_ = keep;
  record_ = record;
  if (left && !file_.valid()) return take(*std::move(left));
  if (file_.valid()) put();
}

void RateMemory::let_go() noexcept {
  kept_.forget();
  keep_ = nullptr;
}

// Where it cannot be kept, the next broker's limits reach its workers when those are replaced.
void RateMemory::put() {
  const std::array<common::FdRef, 1> fds = {file_.ref()};
  if (auto kept = keep_thing(keep_, 0, record_, fds)) kept_ = *std::move(kept);
}

// What it says of limits only brokers have written.
void RateMemory::take(KeptThing left) {
  struct stat status {};
  const bool whole = ::fstat(left.fds.at(0).ref().number, &status) == 0 &&
                     status.st_size == static_cast<off_t>(common::kRateMemoryBytes);
  auto region = common::SharedRegion::map(left.fds[0].ref(), 0, common::kRateMemoryBytes,
                                          common::SharedRegion::Access::kReadWrite);
  if (!whole || !region) return keep_->drop(left.id);
  region_ = *std::move(region);
  file_ = std::move(left.fds[0]);
  const std::array<common::FdRef, 1> fds = {file_.ref()};
  keep_->adopt_thing(left, fds);
  kept_ = Kept(keep_, left.id);
  const auto* const settings = reinterpret_cast<const RateSettings*>(region_.bytes().data());
  for (std::size_t i = 0; i < common::kRateCount; ++i) {
    written_.rates[i] = {settings->per_second[i].load(kRelaxed), settings->burst[i].load(kRelaxed)};
  }
  changes_ = settings->state.load(kRelaxed) >> 1;
  write();
}

// `state` last: who sees it sees the rest. A bucket begins anew with its limit: what is left in it,
// or owed, was counted by another measure.
void RateMemory::write() {
  auto* const settings = reinterpret_cast<RateSettings*>(region_.bytes().data());
  auto* const buckets =
      reinterpret_cast<RateBuckets*>(region_.bytes().data() + common::kRatePageBytes);
  for (std::size_t i = 0; i < common::kRateCount; ++i) {
    const RateLimit& limit = limits_.rates[i];
    const RateLimit& before = written_.rates[i];
    const bool same = limit.per_second == before.per_second && burst_of(limit) == burst_of(before);
    if (same) continue;
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

KeptRecord GroupRates::record() const {
  KeptRecord record = make_record(KeptType::kGroupRates, config_.name);
  record.numbers[0] = static_cast<std::uint64_t>(config_.kind);
  set_text(record, config_.tenant);
  return record;
}

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
    now[config.name] = same ? found->second : make_group(config);
    if (same) found->second->configure(config.limits);
  }
  groups_ = std::move(now);
}

Answer<void> RateGroups::put(const GroupConfig& config) {
  GroupRates* const known = find(config.name);
  if (known != nullptr && known->config().tenant == config.tenant &&
      known->config().kind == config.kind) {
    known->configure(config.limits);
  } else if (known == nullptr || known->members() == 0) {
    groups_[config.name] = make_group(config);
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

std::shared_ptr<GroupRates> RateGroups::make_group(const GroupConfig& config) const {
  auto group = std::make_shared<GroupRates>(config);
  if (keep_ != nullptr) group->keep_in(keep_, std::nullopt);
  return group;
}

void RateGroups::keep_in(Keep& keep, const FindLeft& left) {
  keep_ = &keep;
  for (const auto& [name, group] : groups_) group->keep_in(keep_, left(group->record()));
}

void RateGroups::let_go() noexcept {
  keep_ = nullptr;
  for (const auto& [name, group] : groups_) group->let_go();
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
