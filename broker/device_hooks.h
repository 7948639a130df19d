// broker/device_hooks.h: what a device type does while it serves, besides its workers' work: for
// those whose host side has to follow the guest (a network card's tap). Called on the broker's one
// thread; nothing here is told who the guest or its VMM is.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "broker/event_loop.h"
#include "broker/kept.h"
#include "broker/kept_record.h"
#include "broker/log.h"
#include "broker/queue_book.h"
#include "common/fd.h"
#include "common/ipc/session_broker.h"
#include "common/result.h"

namespace broker {

class DeviceHooks {
 public:
  // What a device can reach of the broker.
  struct World {
    EventLoop& loop;
    // One line about this device.
    std::function<void(Level level, const std::string& text)> say;
    // Its configuration space has changed: for the VMM that is served, if there is one.
    std::function<void(std::span<const std::byte> config)> config_changed;
    // state() has changed.
    std::function<void()> state_changed = [] {};
    // Keeps something for as long as this VMM is served (keep.h), or what an earlier broker has
    // kept; nothing where its processes end with the broker.
    std::function<common::Result<Kept>(const KeptRecord&, std::span<const common::FdRef>)>
        keep_for_vmm = [](const KeptRecord&, std::span<const common::FdRef>) { return Kept(); };
    std::function<Kept(const KeptThing&, std::span<const common::FdRef>)> keep_on =
        [](const KeptThing&, std::span<const common::FdRef>) { return Kept(); };
  };
  // What an earlier broker has left of the VMM that is served.
  struct Left {
    struct Queue {
      std::uint32_t index;
      QueueRole role;
    };
    std::vector<Queue> queues;         // Their workers run on.
    std::span<const std::byte> state;  // As state() was.
    std::vector<KeptThing> controls;   // KeptType::kControl; what is not taken is dropped.
  };

  DeviceHooks() = default;
  DeviceHooks(const DeviceHooks&) = delete;
  DeviceHooks& operator=(const DeviceHooks&) = delete;
  virtual ~DeviceHooks() = default;

  // Once, before any other.
  [[nodiscard]] virtual common::Result<void> opens(World&& world) {
    (void)world;
    return {};
  }
  // A VMM comes: `start` is what its session will be told.
  virtual void vmm_came(common::ipc::SessionStart& start) { (void)start; }
  // An earlier broker has let a VMM in, and its workers run on: nothing changes.
  [[nodiscard]] virtual common::Result<void> vmm_back(Left& left) {
    (void)left;
    return {};
  }
  // Its session has said again what it had told that broker; from now on all is as ever.
  virtual void vmm_goes_on() {}
  // What another broker has to know to take over while a VMM is served; empty where it is nothing.
  [[nodiscard]] virtual std::vector<std::byte> state() const { return {}; }
  // What the driver acknowledged, before the queues that start after it.
  virtual void driver_features(std::uint64_t features) { (void)features; }
  virtual void host_mtu(std::uint32_t mtu) { (void)mtu; }
  virtual void send_rarp(const std::array<std::uint8_t, 6>& mac) { (void)mac; }
  // Nothing serves this queue now. Follows each DeviceModel::worker_recipe(), sooner or later.
  virtual void queue_ended(std::uint32_t queue) { (void)queue; }
  // The VMM is gone, and no worker of its is left.
  virtual void vmm_gone() {}
};

}  // namespace broker
