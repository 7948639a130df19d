// broker/device_maker.h: the steps from a device's configuration to a device that can be served,
// each of which may refuse it: at the start of the broker for all of them at once, and later for
// one that is added.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>

#include "broker/audit/event.h"
#include "broker/audit/trail.h"
#include "broker/calibrate.h"
#include "broker/config.h"
#include "broker/connection.h"
#include "broker/device.h"
#include "broker/doorway.h"
#include "broker/host.h"
#include "broker/inheritance.h"
#include "broker/jailer.h"
#include "broker/log.h"
#include "broker/rates.h"
#include "broker/uid_range.h"
#include "common/layers.h"
#include "policy/profile.h"

namespace broker {

// What becomes a Device.
struct DevicePlan {
  std::unique_ptr<DeviceConfig> config;  // Where it is, it stays: the doorway looks into it.
  DeviceFacts facts;
  EngineDecision engine;
  common::LayerResults posture{};
  std::unique_ptr<Doorway> doorway;
  KeptBacking backing;  // From keep() on.
  std::shared_ptr<DeviceRates> rates;
  std::optional<DeviceLimits> operator_limits;  // Instead of its configuration's.
};

class DeviceMaker {
 public:
  DeviceMaker(Log& log, PostureDemand demand, UidSpan uids)
      : log_(log), demand_(demand), uids_(uids) {}

  // Refusals are recorded there; it outlives this.
  void record_to(audit::Trail& trail) noexcept { trail_ = &trail; }
  // Which of its descriptors we have been started with: before anything is opened.
  void note_descriptors(const BrokerConfig& config);
  // Devices go on with what an earlier broker has left of them; it outlives this.
  void inherit(Inheritance& inheritance);
  [[nodiscard]] bool strict() const noexcept { return demand_ == PostureDemand::kStrict; }

  // Those that devices may be in.
  [[nodiscard]] RateGroups& groups() noexcept { return groups_; }

  // The groups of `config`, and what operators have limited while an earlier broker served it: for
  // as long as it says the same of that. Before the devices.
  void restore_limits(const BrokerConfig& config);

  // In this order.
  [[nodiscard]] Answer<DevicePlan> open_backing(DeviceConfig config);
  [[nodiscard]] Answer<void> choose_engine(DevicePlan& plan, const Host& host);
  [[nodiscard]] Answer<void> check_posture(DevicePlan& plan, Jailer& jailer);
  [[nodiscard]] Answer<void> open_doorway(DevicePlan& plan);
  void log_start(const DevicePlan& plan);
  // What the device has open, for the next broker; nothing where `keep` is null.
  [[nodiscard]] Answer<void> keep(DevicePlan& plan, Keep* keep);
  // Of a device's connection, once, after Inheritance::take_over().
  [[nodiscard]] std::vector<KeptThing> left_of(const std::string& name);

  // All of them, in a broker that serves.
  [[nodiscard]] Answer<DevicePlan> make(DeviceConfig config, const Host& host, Jailer& jailer);

  // Each kind of worker is probed once, until the broker itself changes.
  void forget_postures() { postures_.clear(); }
  // A device is gone, or has not become one.
  void give_back(std::uint32_t uid) noexcept { uids_.give_back(uid); }
  // It is not, after all.
  void hold(std::uint32_t uid) { (void)uids_.take(uid); }

 private:
  [[nodiscard]] Answer<DeviceModel> make_model(const DeviceConfig& config);
  [[nodiscard]] Answer<DeviceModel> make_card(const DeviceConfig& config,
                                              std::function<std::uint32_t()> tsc_per_us);
  [[nodiscard]] Answer<std::uint32_t> pick_uid(const DeviceConfig& config,
                                               const DeviceModel& model);
  [[nodiscard]] Answer<void> demand_core_scheduling(const DevicePlan& plan);
  void record_refusal(audit::Kind kind, const DeviceConfig& config, const std::string& cause);

  Log& log_;
  audit::Trail* trail_ = nullptr;
  Inheritance* inheritance_ = nullptr;
  std::set<int> inherited_;  // Queues of taps.
  PostureDemand demand_;
  TscClock clock_;
  UidRange uids_;
  RateGroups groups_;
  std::map<std::string, DeviceLimits> operator_limits_;  // Of devices that are to be opened yet.
  std::map<const policy::Profile*, common::LayerResults> postures_;
};

}  // namespace broker
