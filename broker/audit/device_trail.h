// broker/audit/device_trail.h: the events of one device. Those that its peers cause are bounded,
// for each kind: a guest that resets for ever can neither fill the log nor hide in it what is rare.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <utility>

#include "broker/audit/event.h"
#include "broker/audit/trail.h"
#include "broker/budget.h"
#include "broker/config.h"

namespace broker::audit {

[[nodiscard]] Subject subject_of(const DeviceConfig& config);

class DeviceTrail {
 public:
  // One that records nothing.
  DeviceTrail() = default;
  // `trail`, which may be null, outlives this. `backing` is what the device gives its VM: the path
  // of a disk, the MAC address of a card.
  DeviceTrail(Trail* trail, Subject subject, std::string backing)
      : trail_(trail), subject_(std::move(subject)), backing_(std::move(backing)) {}

  [[nodiscard]] bool active() const noexcept { return trail_ != nullptr && trail_->active(); }
  void record(Event event);
  // What was left out since it was asked last: one event for each kind.
  void record_dropped();

 private:
  // A device of 64 queues starts and stops each of them at once; a card has two for each pair.
  static constexpr double kPerSecond = 2;
  static constexpr double kBurst = 256;
  struct Kinds {
    std::array<Budget, kKindCount> budgets = make(std::make_index_sequence<kKindCount>());
    template <std::size_t... kIndex>
    static std::array<Budget, kKindCount> make(std::index_sequence<kIndex...>) {
      return {((void)kIndex, Budget(kPerSecond, kBurst))...};
    }
  };

  Trail* trail_ = nullptr;
  Subject subject_;
  std::string backing_;
  Kinds kinds_;
};

}  // namespace broker::audit
