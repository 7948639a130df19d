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
#include "broker/log.h"
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
  };

  DeviceHooks() = default;
  DeviceHooks(const DeviceHooks&) = delete;
  DeviceHooks& operator=(const DeviceHooks&) = delete;
  virtual ~DeviceHooks() = default;

  // Once, before any other.
  [[nodiscard]] virtual common::Result<void> opens(World world) {
    (void)world;
    return {};
  }
  // A VMM comes: `start` is what its session will be told.
  virtual void vmm_came(common::ipc::SessionStart& start) { (void)start; }
  // An earlier broker has let a VMM in, and workers of these queues run on: nothing changes.
  virtual void vmm_back(const std::vector<std::uint32_t>& queues) { (void)queues; }
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
