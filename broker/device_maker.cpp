#include "broker/device_maker.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <span>
#include <string>
#include <utility>

#include "broker/audit/device_trail.h"
#include "broker/blk_config.h"
#include "broker/limit_file.h"
#include "broker/net_card_state.h"
#include "broker/net_config.h"
#include "broker/open_disk.h"
#include "broker/open_tap.h"
#include "broker/posture_probe.h"
#include "broker/text.h"

namespace broker {

void DeviceMaker::note_descriptors(const BrokerConfig& config) {
  for (const DeviceConfig& device : config.devices) {
    for (const int number : device.tap_fds) {
      if (::fcntl(number, F_GETFD) >= 0) inherited_.insert(number);
    }
  }
}

void DeviceMaker::restore_limits(const BrokerConfig& config) {
  groups_.follow(config.groups);
  LimitFile::Kept kept = LimitFile(config.state_dir).read();
  if (!kept.complaint.empty()) log_.error("", kept.complaint);
  for (const LimitEntry& entry : still_valid(std::move(kept.entries), config)) {
    if (entry.group) {
      groups_.find(entry.name)->set(entry.limits);
    } else {
      operator_limits_[entry.name] = entry.limits;
    }
  }
}

Answer<DevicePlan> DeviceMaker::open_backing(DeviceConfig config) {
  DevicePlan plan;
  plan.config = std::make_unique<DeviceConfig>(std::move(config));
  auto rates = groups_.make(*plan.config);
  auto model = rates ? make_model(*plan.config) : common::fail(rates.error());
  if (!model) {
    record_refusal(audit::Kind::kDeviceRefused, *plan.config, model.error());
    return common::fail(std::move(model).error());
  }
  plan.facts.model = *std::move(model);
  plan.rates = *std::move(rates);
  limit_workers(plan.facts.model, plan.rates);
  if (const auto known = operator_limits_.extract(plan.config->name)) {
    plan.operator_limits = known.mapped();
  }
  plan.facts.name = plan.config->name;
  plan.facts.subject = audit::subject_of(*plan.config);
  plan.facts.restart_after_violation = plan.config->restart_after_violation;
  TRY_LET(plan.facts.uid, pick_uid(*plan.config, plan.facts.model));
  return plan;
}

// The one place that chooses by type.
Answer<DeviceModel> DeviceMaker::make_model(const DeviceConfig& config) {
  auto tsc_per_us = [this] { return clock_.ticks_per_us(); };
  if (config.kind == common::DeviceKind::kNet) {
    return make_card(config, std::move(tsc_per_us));
  }
  TRY_LET(Disk disk,
          open_disk(config, inheritance_ == nullptr ? std::vector<common::Fd>()
                                                    : inheritance_->files_of(config.name)));
  if (disk.unserved_bytes != 0) {
    log_.warn(config.name, "the last " + std::to_string(disk.unserved_bytes) + " bytes of " +
                               in_quotes(disk.path) + " are not served: they fill no block");
  }
  if (!disk.durable_writes) {
    log_.warn(config.name, in_quotes(disk.path) +
                               " is on FUSE, where the kernel does not make single direct writes "
                               "durable: a guest cannot switch its write cache off; with "
                               "--direct=off it can");
  }
  return make_blk_model(std::move(disk), config, std::move(tsc_per_us));
}

// Where an earlier broker has left it, with the tap that it has.
Answer<DeviceModel> DeviceMaker::make_card(const DeviceConfig& config,
                                           std::function<std::uint32_t()> tsc_per_us) {
  const auto left = inheritance_ == nullptr ? std::nullopt : inheritance_->card_of(config.name);
  if (!left) {
    TRY_LET(Tap tap, open_tap(config));
    return make_net_model(std::move(tap), config, std::move(tsc_per_us));
  }
  TRY_LET(const NetCardState state, read_card_state(std::as_bytes(std::span(*left))));
  TRY_LET(Tap tap, adopt_tap(config, inheritance_->files_of(config.name), state));
  // Handed to us again, where the service manager starts us as it did the first time.
  for (const int number : config.tap_fds) {
    if (inherited_.contains(number)) ::close(number);
  }
  if (config.num_queues && *config.num_queues != state.pairs) {
    log_.warn(config.name, "goes on with " + std::to_string(state.pairs) +
                               " pairs of queues, as it was started; num-queues counts when it is "
                               "started anew");
  }
  DeviceConfig same = config;
  if (!same.mac) same.mac = state.guest_mac;
  return make_net_model(std::move(tap), same, std::move(tsc_per_us));
}

Answer<std::uint32_t> DeviceMaker::pick_uid(const DeviceConfig& config, const DeviceModel& model) {
  const auto before = inheritance_ == nullptr ? std::nullopt : inheritance_->uid_of(config.name);
  // Its workers go on as that. It is held since inherit().
  if (before && config.uid.value_or(*before) == *before) return *before;
  if (!config.uid) {
    if (const auto picked = uids_.pick(model.backing_device, model.backing_inode)) return *picked;
    return common::fail("every uid from " + std::to_string(uids_.span().first) + " to " +
                        std::to_string(uids_.span().last) +
                        " is another device's; make uid-range larger");
  }
  if (uids_.take(*config.uid)) return *config.uid;
  return common::fail("another device has uid " + std::to_string(*config.uid) +
                      "; give each its own, or leave uid out");
}

Answer<void> DeviceMaker::choose_engine(DevicePlan& plan, const Host& host) {
  policy::UringSupport uring = host.uring;
  if (uring.engine_possible && !plan.facts.model.uring_objection.empty()) {
    uring = {false, false, plan.facts.model.uring_objection.c_str(), EOPNOTSUPP};
  }
  TRY_LET(plan.engine, broker::choose_engine(plan.config->engine, uring));
  plan.facts.engine = plan.engine.kind;
  plan.facts.may_fall_back = plan.config->engine == EngineChoice::kAuto;
  plan.facts.model.session_start.call_swap_in_place =
      plan.engine.kind == common::EngineKind::kIoUring && host.uring.message_fds ? 1 : 0;
  return {};
}

Answer<void> DeviceMaker::check_posture(DevicePlan& plan, Jailer& jailer) {
  const auto profiles = plan.facts.model.worker_profiles(plan.facts.engine);
  for (const policy::Profile* profile : profiles) {
    if (postures_.contains(profile)) continue;
    TRY_LET(const common::LayerResults found,
            probe_posture(jailer, plan.facts.uid, plan.facts.model.kind, *profile));
    postures_[profile] = found;
  }
  plan.posture = postures_[profiles.front()];
  for (const policy::Profile* profile : profiles) {
    plan.posture = weaker_posture(plan.posture, postures_[profile]);
  }
  if (jailer.requires_core_scheduling()) TRY(demand_core_scheduling(plan));
  if (!strict()) return {};
  std::string missing;
  for (const std::string& layer : missing_for_strict(plan.posture)) {
    missing += (missing.empty() ? "" : "; ") + layer;
  }
  if (missing.empty()) return {};
  record_refusal(audit::Kind::kPostureRefused, *plan.config, missing);
  return common::fail("posture is below strict: " + missing +
                      "; give the broker what is missing, or use --require-posture=any to "
                      "serve without it");
}

Answer<void> DeviceMaker::demand_core_scheduling(const DevicePlan& plan) {
  const auto& found = plan.posture[static_cast<std::size_t>(common::Layer::kCoreScheduling)];
  if (found.state != common::LayerResult::State::kAbsent) return {};
  const std::string why = found.os_errno == ENODEV
                              ? "no core here runs several threads at once, as far as the kernel "
                                "knows (nosmt, or a virtual machine)"
                              : "this kernel has it not (CONFIG_SCHED_CORE)";
  const std::string what =
      "core scheduling cannot be had: " + why + ": " + errno_text(found.os_errno);
  record_refusal(audit::Kind::kPostureRefused, *plan.config, what);
  return common::fail(what + "; use --core-scheduling=auto to serve without it");
}

void DeviceMaker::record_refusal(audit::Kind kind, const DeviceConfig& config,
                                 const std::string& cause) {
  if (trail_ == nullptr) return;
  trail_->record(
      audit::about(audit::subject_of(config), audit::Event(kind).with(audit::Key::kCause, cause)));
}

Answer<void> DeviceMaker::open_doorway(DevicePlan& plan) {
  TRY_LET(plan.doorway, Doorway::make(*plan.config, inheritance_ == nullptr
                                                        ? std::nullopt
                                                        : inheritance_->listener_of(*plan.config)));
  return {};
}

void DeviceMaker::log_start(const DevicePlan& plan) {
  log_.info(plan.facts.name, "serving " + plan.facts.model.summary + ", engine " +
                                 engine_text(plan.engine) + ", " + plan.doorway->describe() + "; " +
                                 posture_summary(plan.posture));
}

void DeviceMaker::inherit(Inheritance& inheritance) {
  inheritance_ = &inheritance;
  for (const std::uint32_t uid : inheritance.uids()) (void)uids_.take(uid);
}

Answer<void> DeviceMaker::keep(DevicePlan& plan, Keep* keep) {
  plan.facts.keep = keep;
  if (keep == nullptr || inheritance_ == nullptr) return {};
  TRY_LET(plan.backing, inheritance_->keep_backing(*keep, plan.facts));
  const KeptRecord rates = make_record(KeptType::kRates, plan.facts.name);
  plan.rates->keep_in(keep, rates, inheritance_->take(rates));
  TRY_LET(Kept listener, inheritance_->keep_listener(*keep, KeptType::kListener, plan.facts.name,
                                                     plan.doorway->listener()));
  plan.doorway->keep(std::move(listener));
  return {};
}

std::vector<KeptThing> DeviceMaker::left_of(const std::string& name) {
  return inheritance_ == nullptr ? std::vector<KeptThing>() : inheritance_->connection_of(name);
}

Answer<DevicePlan> DeviceMaker::make(DeviceConfig config, const Host& host, Jailer& jailer) {
  TRY_LET(DevicePlan plan, open_backing(std::move(config)));
  Answer<void> ready = choose_engine(plan, host);
  if (ready) ready = check_posture(plan, jailer);
  if (ready) ready = open_doorway(plan);
  if (ready) return plan;
  plan.facts.model.release();
  give_back(plan.facts.uid);
  return common::fail(std::move(ready).error());
}

}  // namespace broker
