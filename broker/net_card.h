// broker/net_card.h: a network card while it serves: its tap follows what the guest has negotiated
// and which queues run, and the guest and the operator hear what happens to the tap.
//
// Not trusted: the control worker, which parses what a guest wrote and asks by NetControl for what
// only an ioctl can do. Each request is a fixed-size message; the worst it can ask for is another
// state of its own guest's tap.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "broker/budget.h"
#include "broker/config.h"
#include "broker/device_hooks.h"
#include "broker/device_model.h"
#include "broker/event_loop.h"
#include "broker/link.h"
#include "broker/open_tap.h"
#include "common/fd.h"
#include "common/ipc/worker_messages.h"

namespace broker {

class NetCard final : public DeviceHooks {
 public:
  NetCard(Tap tap, const DeviceConfig& config, std::function<std::uint32_t()> tsc_per_us);

  // Attaches the pair; a control worker gets a socket to us instead of a tap.
  [[nodiscard]] common::Result<WorkerRecipe> worker_recipe(std::uint32_t queue,
                                                           common::EngineKind engine);
  // Nobody is served any more: the tap as it was found.
  void release();

  [[nodiscard]] common::Result<void> opens(World&& world) override;
  void vmm_came(common::ipc::SessionStart& start) override;
  void driver_features(std::uint64_t features) override;
  void host_mtu(std::uint32_t mtu) override { mtu_ = mtu; }
  void send_rarp(const std::array<std::uint8_t, 6>& mac) override;
  void queue_ended(std::uint32_t queue) override;
  void vmm_gone() override;
  [[nodiscard]] common::Result<void> vmm_back(Left& left) override;
  void vmm_goes_on() override;
  [[nodiscard]] std::vector<std::byte> state() const override;
  [[nodiscard]] std::vector<common::FdRef> files() const;

 private:
  struct Pair {
    bool receives = false;  // A worker serves this queue,
    bool transmits = false;
    std::optional<bool> attached = false;  // Nothing where an earlier broker knew.
    [[nodiscard]] bool runs() const noexcept { return receives || transmits; }
  };

  [[nodiscard]] common::ipc::NetRole role_of(std::uint32_t queue) const noexcept;
  void set_running(std::uint32_t queue, bool running);
  [[nodiscard]] common::Result<void> follow_pairs();
  [[nodiscard]] common::Result<void> attach(std::size_t pair, bool attached);
  void detach_all();
  void apply_offloads(std::uint64_t features);

  // The control virtqueue.
  [[nodiscard]] common::Result<common::FdRef> connect_control(std::uint32_t queue);
  [[nodiscard]] common::Result<void> watch_control();
  void on_control();
  void pause_control();
  [[nodiscard]] bool perform(const common::ipc::NetControl& command);
  [[nodiscard]] bool set_pairs(std::uint64_t pairs);
  [[nodiscard]] bool set_receive_filter(const common::ipc::NetControl& command);
  void end_control();
  void save() const;

  void on_link(const Link& link);
  void say_link_state(bool up);
  void try_rarp();

  Tap tap_;
  const DeviceConfig config_;
  std::function<std::uint32_t()> tsc_per_us_;
  std::optional<World> world_;
  std::vector<Pair> pairs_;
  std::uint64_t features_ = 0;  // The driver's.
  std::uint32_t mtu_;
  bool gone_ = false;
  std::optional<std::array<std::uint8_t, 6>> rarp_;  // Waits for a queue that is attached.
  EventLoop::Registration detach_timer_;

  std::optional<std::uint32_t> control_queue_;  // Which one runs.
  std::uint32_t pairs_used_ = 0;                // By the guest's word; 0: it has not said.
  common::Fd control_theirs_;                   // Until the worker has it.
  common::Fd control_;
  Kept kept_control_;
  Budget control_budget_;
  EventLoop::Registration control_watch_;
  EventLoop::Registration control_timer_;

  std::optional<LinkWatch> link_watch_;
};

}  // namespace broker
