// broker/rates.h: the rate limits of devices and groups in the memory of their workers
// (common/rate_page.h). Changed at any time; workers that run and those that come later follow.
//
// Not trusted: the buckets in that memory. What is read there is written back to it, and no more.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "broker/config.h"
#include "broker/device_model.h"
#include "broker/keep.h"
#include "broker/limits.h"
#include "common/fd.h"
#include "common/rate_page.h"
#include "common/result.h"
#include "common/shared_region.h"

namespace broker {

// The memory of one device or group. There is none before a worker needs it: a device that nobody
// uses costs no descriptor.
class RateMemory {
 public:
  // `active`: something limits whoever maps this, also where `limits` are none.
  void set(const DeviceLimits& limits, bool active);
  // To be passed to a worker.
  [[nodiscard]] common::Result<common::FdRef> file();
  // Kept for the next broker from now on (keep.h), as `record` says. `left`: what an earlier one
  // has kept of it, which is gone on with, since workers have it.
  void keep_in(Keep* keep, const KeptRecord& record, std::optional<KeptThing> left);
  // Null from now on: it is not kept any more.
  void let_go() noexcept;

 private:
  void write();
  void put();
  void take(KeptThing left);

  DeviceLimits limits_;
  bool active_ = false;
  DeviceLimits written_;
  std::uint32_t changes_ = 0;
  common::Fd file_;
  common::SharedRegion region_;
  Keep* keep_ = nullptr;
  KeptRecord record_{};
  Kept kept_;
};

class GroupRates;

class DeviceRates {
 public:
  // `group` may be null.
  DeviceRates(const DeviceLimits& limits, std::shared_ptr<GroupRates> group);
  ~DeviceRates();
  DeviceRates(const DeviceRates&) = delete;
  DeviceRates& operator=(const DeviceRates&) = delete;

  void set(const DeviceLimits& limits);
  [[nodiscard]] const DeviceLimits& limits() const noexcept { return limits_; }
  void keep_in(Keep* keep, const KeptRecord& record, std::optional<KeptThing> left) {
    memory_.keep_in(keep, record, std::move(left));
  }
  // The workers of this recipe keep to them.
  [[nodiscard]] common::Result<void> add_to(WorkerRecipe& recipe);

 private:
  friend class GroupRates;
  void follow();

  DeviceLimits limits_;
  std::shared_ptr<GroupRates> group_;
  RateMemory memory_;
};

class GroupRates {
 public:
  explicit GroupRates(GroupConfig config);

  // The operator's, until the configuration says others.
  void set(const DeviceLimits& limits);
  void configure(const DeviceLimits& limits);
  [[nodiscard]] const GroupConfig& config() const noexcept { return config_; }
  [[nodiscard]] const DeviceLimits& limits() const noexcept {
    return operator_limits_ ? *operator_limits_ : config_.limits;
  }
  [[nodiscard]] bool by_operator() const noexcept { return operator_limits_.has_value(); }
  [[nodiscard]] std::size_t members() const noexcept { return members_.size(); }
  void keep_in(Keep* keep, std::optional<KeptThing> left) {
    memory_.keep_in(keep, record(), std::move(left));
  }
  // How its memory is found again: only by a group that it is.
  [[nodiscard]] KeptRecord record() const;
  void let_go() noexcept { memory_.let_go(); }

 private:
  friend class DeviceRates;
  void follow();

  GroupConfig config_;
  std::optional<DeviceLimits> operator_limits_;
  RateMemory memory_;
  std::vector<DeviceRates*> members_;
};

// The groups of a broker.
class RateGroups {
 public:
  // Those of the configuration. One that is not listed any more, or of another tenant or type now,
  // goes with its last device.
  void follow(const std::vector<GroupConfig>& groups);
  // That one, and the others as they are. Refused where its devices could not stay.
  [[nodiscard]] Answer<void> put(const GroupConfig& config);
  // Refused where a device is in it.
  [[nodiscard]] Answer<void> drop(const std::string& name);
  // Null where there is none.
  [[nodiscard]] GroupRates* find(std::string_view name) const;
  // The first whose name is greater: for those who look at one after the other.
  [[nodiscard]] const GroupRates* after(std::string_view name) const;

  // Refused where its group is not there, or of another tenant or type.
  [[nodiscard]] Answer<std::shared_ptr<DeviceRates>> make(const DeviceConfig& device) const;

  // Those that are there, and those that come. `left` finds what an earlier broker has kept.
  using FindLeft = std::function<std::optional<KeptThing>(const KeptRecord& record)>;
  void keep_in(Keep& keep, const FindLeft& left);
  // `keep` ends before this does.
  void let_go() noexcept;

 private:
  [[nodiscard]] std::shared_ptr<GroupRates> make_group(const GroupConfig& config) const;

  Keep* keep_ = nullptr;
  std::map<std::string, std::shared_ptr<GroupRates>, std::less<>> groups_;
};

// Why `device` cannot be in `group`, which is null where there is none of that name; empty where it
// can.
[[nodiscard]] std::string group_objection(const DeviceConfig& device, const GroupConfig* group);

// Workers that are started by this recipe maker keep to `rates`.
void limit_workers(DeviceModel& model, std::shared_ptr<DeviceRates> rates);

}  // namespace broker
