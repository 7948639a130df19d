#include "broker/fleet.h"

#include "broker/audit/device_trail.h"
#include "broker/settings.h"
#include "broker/text.h"

namespace broker {
namespace {

// Each worker: itself, and the threads of its ring; twice, while others take their place.
CgroupLimits limits_of(const DeviceConfig& config, std::uint32_t queues) {
  constexpr std::uint32_t kEachWorker = 1 + common::ipc::kRingThreads + 1;
  constexpr std::uint32_t kSessions = 4;
  return {config.memory_max_mib, config.cpu_max_percent,
          config.pids_max.value_or(kSessions + 2 * kEachWorker * (queues + 1))};
}

// Descriptors that came from outside are used up by their first device.
bool can_start_again(const DeviceConfig& config) { return config.fd < 0 && config.tap_fds.empty(); }

}  // namespace

std::string_view state_name(DeviceState state) noexcept {
  switch (state) {
    case DeviceState::kServing:
      return "serving";
    case DeviceState::kDraining:
      return "draining";
    case DeviceState::kStopping:
      return "stopping";
    case DeviceState::kStopped:
      return "stopped";
  }
  return "unknown";
}

std::string will_not_last(const std::string& why) {
  return "it was done, but will not outlast the broker: " + why +
         "; when that is mended, say it again";
}

std::string in_use_text(const Fleet::Served& served) {
  const Peer* peer = served.device ? served.device->peer() : nullptr;
  return peer == nullptr ? "is not in use" : "is in use by " + describe_peer(*peer);
}

bool changes_live(const DeviceConfig& before, const DeviceConfig& after) {
  // Who shares a group's limits is decided by the tenant.
  if (!after.limit_group.empty() && before.tenant != after.tenant) return false;
  DeviceConfig same = before;
  same.allow_uids = after.allow_uids;
  same.tenant = after.tenant;
  same.vm_name = after.vm_name;
  same.vm_uuid = after.vm_uuid;
  same.limits = after.limits;
  return same == after;
}

CounterTotals Fleet::Served::counters() const {
  CounterTotals sum = past_counters;
  if (device) add_counters(sum, device->counters());
  return sum;
}

const Fleet::Served* Fleet::find(std::string_view name) const {
  const auto found = devices_.find(name);
  return found == devices_.end() ? nullptr : &found->second;
}

const Fleet::Served* Fleet::after(std::string_view name) const {
  const auto found = devices_.upper_bound(name);
  return found == devices_.end() ? nullptr : &found->second;
}

Answer<Fleet::Served*> Fleet::must_find(const std::string& name) {
  const auto found = devices_.find(name);
  if (found != devices_.end() && !found->second.removing) return &found->second;
  return common::fail("there is no device " + in_quotes(name) + " ('bulkhead list' shows all)");
}

// --- what a device has for itself ----------------------------------------------------------------

namespace {

// A tap's descriptors are not: their numbers are free again once its queues are open.
std::vector<Claim> lasting_claims(const DeviceConfig& config) {
  std::vector<Claim> claims = claims_of(config);
  std::erase_if(claims, [](const Claim& claim) { return claim.setting == "tap-fd"; });
  return claims;
}

}  // namespace

Answer<void> Fleet::refuse_clashes(const DeviceConfig& config) const {
  for (const Claim& claim : lasting_claims(config)) {
    const auto found = claims_.find({claim.setting, claim.value});
    if (found == claims_.end() || (found->second.shared && claim.shared)) continue;
    return common::fail("device " + in_quotes(found->second.device) + " has the " +
                        spelled(claim.setting, Spelling::kFile) + " " + in_quotes(claim.value) +
                        " already; give another, or remove that device first");
  }
  return {};
}

void Fleet::claim(const DeviceConfig& config) {
  for (Claim& claim : lasting_claims(config)) {
    Owner& owner = claims_[{claim.setting, std::move(claim.value)}];
    if (owner.count++ == 0) owner = {config.name, 1, claim.shared};
  }
}

void Fleet::give_up_claims(const DeviceConfig& config) {
  for (Claim& claim : lasting_claims(config)) {
    const auto found = claims_.find({claim.setting, std::move(claim.value)});
    if (found != claims_.end() && --found->second.count == 0) claims_.erase(found);
  }
}

// --- coming --------------------------------------------------------------------------------------

Answer<void> Fleet::admit(DevicePlan plan, Origin origin) {
  const std::string name = plan.config->name;
  claim(*plan.config);
  Served& served = devices_[name];
  served.origin = origin;
  Answer<void> opened = open(served, std::move(plan));
  if (opened) return {};
  give_up_claims(*served.config);
  maker_.give_back(served.uid);
  devices_.erase(name);
  return opened;
}

void Fleet::admit_stopped(DeviceConfig config, Origin origin) {
  const std::string name = config.name;
  claim(config);
  Served& served = devices_[name];
  served.config = std::make_unique<DeviceConfig>(std::move(config));
  served.origin = origin;
  served.state = DeviceState::kStopped;
  changed_ = true;
  hand_on_halt(served, Halt::kStop);
  services_.log.info(name, "stays stopped, as an operator has said; 'bulkhead start' serves it");
}

// To the next broker, whether this one ends well or not.
Answer<void> Fleet::keep_halt(Served& served, Halt halt) {
  hand_on_halt(served, halt);
  if (halts_ == nullptr || !can_start_again(*served.config)) return {};
  const auto kept = halts_->keep(served.config->name, halt);
  if (kept) return {};
  services_.log.error(
      served.config->name,
      "what an operator has said of it will not outlast the broker: " + kept.error());
  return common::fail(will_not_last(kept.error()));
}

// Where it cannot be kept, the next broker serves it.
void Fleet::hand_on_halt(Served& served, Halt halt) {
  served.halt.reset();
  if (halt == Halt::kNone) return;
  KeptRecord record = make_record(KeptType::kHalted, served.config->name);
  record.numbers[0] = static_cast<std::uint64_t>(halt);
  if (auto kept = keep_thing(services_.keep, 0, record, {})) served.halt = *std::move(kept);
}

Answer<void> Fleet::open(Served& served, DevicePlan plan) {
  maker_.log_start(plan);
  const std::string name = plan.config->name;
  Answer<void> kept = maker_.keep(plan, services_.keep);
  // The old one's doorway looks into the old configuration.
  served.device.reset();
  served.config = std::move(plan.config);
  served.uid = plan.facts.uid;
  served.engine = plan.facts.engine;
  served.posture = plan.posture;
  served.state = DeviceState::kStopped;
  if (!kept) return kept;
  if (services_.cgroups != nullptr) {
    const auto limited = services_.cgroups->add(
        served.uid, name, limits_of(*served.config, plan.facts.model.session_start.queues_max));
    if (!limited)
      return common::fail(std::string(limited.error().what) + ": " +
                          errno_text(limited.error().os_errno));
  }
  if (served.queues) plan.facts.queues = served.queues;
  served.queues = plan.facts.queues;
  served.rates = std::move(plan.rates);
  if (plan.operator_limits) served.operator_limits = plan.operator_limits;
  served.rates->set(served.limits());
  if (served.config->kind == common::DeviceKind::kBlk) {
    served.disk = plan.facts.model.io_device;
  }
  limit_by_kernel(served);
  served.device = std::make_unique<Device>(services_, std::move(plan.facts),
                                           std::move(plan.doorway), std::move(plan.backing));
  served.state = DeviceState::kServing;
  ++unfinished_;
  const auto opened =
      served.device->open([this, name] { on_finished(name); }, maker_.left_of(name));
  if (opened) return {};
  --unfinished_;
  served.device.reset();
  served.state = DeviceState::kStopped;
  return common::fail(std::string(opened.error().what) + ": " +
                      errno_text(opened.error().os_errno));
}

Answer<void> Fleet::add(DeviceConfig config, Origin origin) {
  TRY(refuse_clashes(config));
  if (devices_.size() >= kDevicesMax) {
    return common::fail("one broker serves at most " + std::to_string(kDevicesMax) +
                        " devices; remove one, or start another broker");
  }
  TRY_LET(DevicePlan plan, maker_.make(std::move(config), host_, services_.jailer));
  changed_ = true;
  return admit(std::move(plan), origin);
}

Answer<void> Fleet::start(const std::string& name) {
  TRY_LET(Served* const served, must_find(name));
  if (served->state == DeviceState::kServing) return {};
  if (served->state != DeviceState::kStopped) {
    return common::fail("device " + in_quotes(name) + " is still " +
                        std::string(state_name(served->state)) + "; try again when it is stopped");
  }
  if (!can_start_again(*served->config)) {
    return common::fail("device " + in_quotes(name) +
                        " was handed its socket or tap, and has given it back; remove it, and add "
                        "it again with another");
  }
  maker_.give_back(served->uid);
  auto plan = maker_.make(*served->config, host_, services_.jailer);
  if (!plan) {
    maker_.hold(served->uid);
    return common::fail(plan.error());
  }
  const Answer<void> kept = keep_halt(*served, Halt::kNone);
  TRY(open(*served, *std::move(plan)));
  return kept;
}

// --- going ---------------------------------------------------------------------------------------

void Fleet::remove(const std::string& name, bool force, Done done) {
  const auto found = must_find(name);
  if (!found) return done(common::fail(found.error()));
  Served& served = **found;
  if (served.connected() && !force) {
    return done(common::fail("device " + in_quotes(name) + " " + in_use_text(served) +
                             "; stop that first, or use --force to cut it off"));
  }
  changed_ = true;
  served.removing = true;
  end(served, force, std::move(done));
}

void Fleet::stop(const std::string& name, bool force, Done done) {
  const auto found = must_find(name);
  if (!found) return done(common::fail(found.error()));
  changed_ = true;
  const Answer<void> kept = keep_halt(**found, Halt::kStop);
  end(**found, force, [kept, done](const Answer<void>& ended) { done(ended ? kept : ended); });
}

void Fleet::end(Served& served, bool force, Done done) {
  served.waiting.push_back(std::move(done));
  const std::string name = served.config->name;
  if (!served.device) return services_.loop.post([this, name] { retire(name); });
  if (served.state == DeviceState::kStopping && !force) return;
  served.state = DeviceState::kStopping;
  served.device->stop(force ? kForced : kDrainPatience);
}

Answer<void> Fleet::drain(const std::string& name) {
  TRY_LET(Served* const served, must_find(name));
  changed_ = true;
  if (served->state == DeviceState::kDraining) return keep_halt(*served, Halt::kDrain);
  if (served->state != DeviceState::kServing) return {};
  served->state = DeviceState::kDraining;
  const Answer<void> kept = keep_halt(*served, Halt::kDrain);
  served->device->drain();
  return kept;
}

void Fleet::replace(DeviceConfig config, Origin origin, bool force, Done done) {
  const std::string name = config.name;
  const Served* old = find(name);
  if (old == nullptr) return done(add(std::move(config), origin));
  if (changes_live(*old->config, config) && !old->removing) {
    change_live(config, origin);
    return done({});
  }
  auto before = std::make_shared<DeviceConfig>(*old->config);
  auto after = std::make_shared<DeviceConfig>(std::move(config));
  const Origin origin_before = old->origin;
  auto then = [this, before, after, origin, origin_before,
               done = std::move(done)](Answer<void> removed) {
    // It may be gone, and only what was kept of it is not.
    if (!removed && find(after->name) != nullptr) return done(std::move(removed));
    Answer<void> added = add(*after, origin);
    if (added) return done(std::move(removed));
    if (!can_start_again(*before)) return done(std::move(added));
    const Answer<void> again = add(*before, origin_before);
    done(common::fail(added.error() +
                      (again ? "; it is served as before"
                             : "; and it cannot be served as before any more: " + again.error())));
  };
  remove(name, force, std::move(then));
}

void Fleet::change_live(const DeviceConfig& config, Origin origin) {
  const auto found = devices_.find(config.name);
  if (found == devices_.end()) return;
  Served& served = found->second;
  served.origin = origin;
  served.config->allow_uids = config.allow_uids;
  served.config->tenant = config.tenant;
  served.config->vm_name = config.vm_name;
  served.config->vm_uuid = config.vm_uuid;
  if (served.config->limits == config.limits) return;
  const DeviceLimits before = served.limits();
  served.config->limits = config.limits;
  served.operator_limits.reset();
  set_limits(served, before);
}

// --- limits --------------------------------------------------------------------------------------

Answer<void> Fleet::limit(const std::string& name, const LimitChange& change) {
  TRY_LET(Served* const served, must_find(name));
  const DeviceLimits before = served->limits();
  TRY_LET(const DeviceLimits after, changed_limits(before, change, served->config->kind));
  if (served->origin == Origin::kOperator) {
    served->config->limits = after;
    served->operator_limits.reset();
  } else {
    served->operator_limits = after;
  }
  set_limits(*served, before);
  return {};
}

void Fleet::set_limits(Served& served, const DeviceLimits& before) {
  if (served.rates) served.rates->set(served.limits());
  limit_by_kernel(served);
  record_limits(before, served.limits(), served.config->kind, audit::subject_of(*served.config),
                "");
}

// Workers hold back guests; the kernel holds back workers, where it can.
void Fleet::limit_by_kernel(const Served& served) {
  if (services_.cgroups == nullptr || served.disk == 0) return;
  const auto limited =
      services_.cgroups->limit_io(served.uid, served.disk, kernel_rates(served.limits()));
  if (limited || !served.limits().any()) return;
  services_.log.info(served.config->name, "only its workers keep to its limits, not the kernel: " +
                                              errno_text(limited.error().os_errno));
}

Answer<void> Fleet::limit_group(const std::string& name, const LimitChange& change) {
  GroupRates* const group = groups().find(name);
  if (group == nullptr) {
    return common::fail("there is no group " + in_quotes(name) +
                        "; list it in a [[group]] table of the configuration");
  }
  const DeviceLimits before = group->limits();
  TRY_LET(const DeviceLimits after, changed_limits(before, change, group->config().kind));
  group->set(after);
  record_group(before, *group);
  return {};
}

Answer<void> Fleet::put_group(const GroupConfig& config) {
  const GroupRates* const known = groups().find(config.name);
  const DeviceLimits before = known == nullptr ? DeviceLimits{} : known->limits();
  TRY(groups().put(config));
  record_group(before, *groups().find(config.name));
  return {};
}

void Fleet::follow_groups(const std::vector<GroupConfig>& configs) {
  std::map<std::string, DeviceLimits> before;
  for (const GroupConfig& config : configs) {
    const GroupRates* const known = groups().find(config.name);
    if (known != nullptr) before[config.name] = known->limits();
  }
  groups().follow(configs);
  for (const GroupConfig& config : configs) {
    record_group(before[config.name], *groups().find(config.name));
  }
}

void Fleet::record_group(const DeviceLimits& before, const GroupRates& group) {
  audit::Subject subject;
  subject.tenant = group.config().tenant;
  record_limits(before, group.limits(), group.config().kind, subject, group.config().name);
}

namespace {

std::string limit_words(const RateLimit& limit) {
  if (limit.per_second == 0) return "none";
  return std::to_string(limit.per_second) + " a second, at once " + std::to_string(burst_of(limit));
}

}  // namespace

void Fleet::record_limits(const DeviceLimits& before, const DeviceLimits& after,
                          common::DeviceKind kind, const audit::Subject& subject,
                          const std::string& group) {
  if (services_.trail == nullptr) return;
  const std::string whose = group.empty() ? "" : " of group " + group;
  for (std::size_t i = 0; i < common::kRateCount; ++i) {
    if (before.rates[i] == after.rates[i]) continue;
    const std::string name(rate_name(static_cast<common::Rate>(i), kind));
    services_.trail->record(
        audit::about(subject, audit::Event(audit::Kind::kLimitChanged)
                                  .with(audit::Key::kLimit, name + whose)
                                  .with(audit::Key::kOld, limit_words(before.rates[i]))
                                  .with(audit::Key::kNew, limit_words(after.rates[i]))));
  }
}

Answer<Fleet::Sizes> Fleet::resize(const std::string& name) {
  TRY_LET(Served* const served, must_find(name));
  if (served->config->kind != common::DeviceKind::kBlk) {
    return common::fail("device " + in_quotes(name) + " is a network card, which has no size");
  }
  if (!served->device) {
    return common::fail("device " + in_quotes(name) +
                        " is stopped; its size is looked at when it "
                        "is started");
  }
  Sizes sizes{served->device->capacity_bytes(), 0};
  served->device->look_for_change();
  sizes.now_bytes = served->device->capacity_bytes();
  return sizes;
}

void Fleet::on_finished(const std::string& name) {
  --unfinished_;
  // Its last connection is destroyed by a task of this wake-up, and looks into the device until
  // then.
  services_.loop.post([this, name] { services_.loop.post([this, name] { retire(name); }); });
  settled_();
}

void Fleet::retire(const std::string& name) {
  const auto found = devices_.find(name);
  if (found == devices_.end()) return;
  Served& served = found->second;
  if (served.device && !served.device->finished()) return;
  if (served.device) {
    served.past_counters = served.counters();
    served.device.reset();
    if (services_.cgroups != nullptr) services_.cgroups->remove(served.uid);
    services_.log.info(name, served.removing ? "removed" : "stopped");
  }
  served.state = DeviceState::kStopped;
  const std::vector<Done> waiting = std::exchange(served.waiting, {});
  Answer<void> kept;
  if (served.removing) {
    kept = keep_halt(served, Halt::kNone);
    give_up_claims(*served.config);
    maker_.give_back(served.uid);
    devices_.erase(found);
  }
  for (const Done& done : waiting) done(kept);
}

void Fleet::replace_workers() {
  for (auto& [name, served] : devices_) {
    if (served.device) served.device->replace_workers();
  }
}

void Fleet::stop_all(std::chrono::milliseconds patience) {
  for (auto& [name, served] : devices_) {
    if (served.device) served.device->stop(patience);
  }
}

void Fleet::kill_all() {
  for (auto& [name, served] : devices_) {
    if (served.device) served.device->kill();
  }
}

}  // namespace broker
