// broker/fleet.h: the devices of a running broker. One is added, stopped, drained, started again or
// removed while the others go on: no step looks at more than the devices it is about.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "broker/config.h"
#include "broker/device.h"
#include "broker/device_maker.h"
#include "broker/halts.h"
#include "broker/host.h"
#include "broker/limit_text.h"
#include "broker/rates.h"
#include "broker/services.h"

namespace broker {

// Who wants a device: the configuration, which is read again, or an operator's `add`.
enum class Origin : std::uint8_t { kFile = 0, kOperator = 1 };

enum class DeviceState : std::uint8_t {
  kServing = 0,   // VMMs may connect.
  kDraining = 1,  // The VMM that is connected is served, and nobody after it.
  kStopping = 2,  // What its workers have taken is finished.
  kStopped = 3,   // Nothing is open.
};
[[nodiscard]] std::string_view state_name(DeviceState state) noexcept;

// A VMM's requests are finished, as long as its disk lets them; then its workers are killed.
inline constexpr std::chrono::milliseconds kForced{2000};

class Fleet {
 public:
  using Done = std::function<void(Answer<void>)>;

  struct Served {
    std::unique_ptr<DeviceConfig> config;
    Origin origin = Origin::kFile;
    DeviceState state = DeviceState::kServing;
    std::uint32_t uid = 0;
    common::EngineKind engine = common::EngineKind::kFallback;
    common::LayerResults posture{};
    std::unique_ptr<Device> device;     // Null where stopped.
    CounterTotals past_counters{};      // Of what was stopped.
    std::shared_ptr<QueueBook> queues;  // Null before it was served.
    // What an operator has said since; the configuration's count again when they change.
    std::optional<DeviceLimits> operator_limits;
    std::shared_ptr<DeviceRates> rates;
    dev_t disk = 0;  // For the kernel's limits; of a card none.
    [[nodiscard]] const DeviceLimits& limits() const {
      return operator_limits ? *operator_limits : config->limits;
    }
    Kept halt;  // What an operator has said of it, for the next broker.
    bool removing = false;
    std::vector<Done> waiting;  // For its end.
    [[nodiscard]] bool connected() const { return device && device->peer() != nullptr; }
    [[nodiscard]] CounterTotals counters() const;
  };
  using Devices = std::map<std::string, Served, std::less<>>;

  // `settled` is called whenever a device has come to its end.
  Fleet(Services& services, DeviceMaker& maker, const Host& host, std::function<void()> settled)
      : services_(services), maker_(maker), host_(host), settled_(std::move(settled)) {}

  // What operators stop or drain; it outlives this.
  void keep_halts_in(const Halts& halts) noexcept { halts_ = &halts; }

  [[nodiscard]] const Devices& all() const noexcept { return devices_; }
  [[nodiscard]] const Served* find(std::string_view name) const;
  // The first whose name is greater: for those who look at one after the other.
  [[nodiscard]] const Served* after(std::string_view name) const;

  // Serves what is open already.
  [[nodiscard]] Answer<void> admit(DevicePlan plan, Origin origin);
  // An operator has stopped it, and an earlier broker has heard it.
  void admit_stopped(DeviceConfig config, Origin origin);
  // Refused where a device has the same name, socket, disk, tap or uid.
  [[nodiscard]] Answer<void> add(DeviceConfig config, Origin origin);
  // Each of these ends with `done`, once, now or later. A VMM that is connected is only cut off
  // where `force` says so.
  void remove(const std::string& name, bool force, Done done);
  // In place of the device of that name. Where the new one cannot be served the old one is again.
  void replace(DeviceConfig config, Origin origin, bool force, Done done);
  void stop(const std::string& name, bool force, Done done);
  // Returns at once: the end comes when the VMM goes.
  [[nodiscard]] Answer<void> drain(const std::string& name);
  [[nodiscard]] Answer<void> start(const std::string& name);
  // Looks at the size of what is served, and tells the VMM: its capacity in bytes, before and now.
  struct Sizes {
    std::uint64_t before_bytes = 0;
    std::uint64_t now_bytes = 0;
  };
  [[nodiscard]] Answer<Sizes> resize(const std::string& name);
  // Other limits from now on. An operator's device is configured with them; of one that the
  // configuration lists, they hold until the configuration says others.
  [[nodiscard]] Answer<void> limit(const std::string& name, const LimitChange& change);
  // Of a group that the configuration lists.
  [[nodiscard]] Answer<void> limit_group(const std::string& name, const LimitChange& change);
  [[nodiscard]] Answer<void> put_group(const GroupConfig& config);
  // The groups of the configuration as it is now.
  void follow_groups(const std::vector<GroupConfig>& groups);
  [[nodiscard]] RateGroups& groups() noexcept { return maker_.groups(); }
  // What can be changed without the device's end (changes_live); nothing else may differ.
  void change_live(const DeviceConfig& config, Origin origin);

  // Every worker, one queue of each device after the other, by one of the program that is there
  // now.
  void replace_workers();

  // The broker ends.
  void stop_all(std::chrono::milliseconds patience);
  void kill_all();
  [[nodiscard]] bool all_finished() const noexcept { return unfinished_ == 0; }
  // Somebody has stopped or removed one: that none is served is then no reason to end.
  [[nodiscard]] bool was_changed() const noexcept { return changed_; }

 private:
  struct Owner {
    std::string device;
    int count = 0;
    bool shared = false;
  };
  using Claims = std::map<std::pair<std::string_view, std::string>, Owner>;

  [[nodiscard]] Answer<Served*> must_find(const std::string& name);
  [[nodiscard]] Answer<void> refuse_clashes(const DeviceConfig& config) const;
  void claim(const DeviceConfig& config);
  void give_up_claims(const DeviceConfig& config);
  [[nodiscard]] Answer<void> open(Served& served, DevicePlan plan);
  void end(Served& served, bool force, Done done);
  void hand_on_halt(Served& served, Halt halt);
  // Fails where it is not kept for the broker's next start.
  [[nodiscard]] Answer<void> keep_halt(Served& served, Halt halt);
  void on_finished(const std::string& name);
  void retire(const std::string& name);
  void limit_by_kernel(const Served& served);
  void set_limits(Served& served, const DeviceLimits& before);
  void record_group(const DeviceLimits& before, const GroupRates& group);
  void record_limits(const DeviceLimits& before, const DeviceLimits& after, common::DeviceKind kind,
                     const audit::Subject& subject, const std::string& group);

  Services& services_;
  DeviceMaker& maker_;
  const Host& host_;
  std::function<void()> settled_;
  const Halts* halts_ = nullptr;
  Devices devices_;
  Claims claims_;
  std::size_t unfinished_ = 0;
  bool changed_ = false;
};

// What an operator is told whose word holds, and is not kept: `why` it is not.
[[nodiscard]] std::string will_not_last(const std::string& why);

// "is in use by pid 12 (qemu) uid 107".
[[nodiscard]] std::string in_use_text(const Fleet::Served& served);

// Whether `after` differs from `before` only in what a device need not end for: whom it serves
// next, and what it is called by in lists.
[[nodiscard]] bool changes_live(const DeviceConfig& before, const DeviceConfig& after);

}  // namespace broker
