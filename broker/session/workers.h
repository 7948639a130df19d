// broker/session/workers.h: makes the workers that run agree with what the rings ask for.
//
// One step, settle(), after every message, whatever the message was: so the order in which a
// front-end sends them does not matter, and there is one place to read when a worker starts, is
// replaced, or ends.
#pragma once

#include <array>
#include <cstdint>
#include <optional>

#include "broker/session/broker_link.h"
#include "broker/session/config_space.h"
#include "broker/session/features.h"
#include "broker/session/inflight_region.h"
#include "broker/session/log_region.h"
#include "broker/session/memory_table.h"
#include "broker/session/queue_link.h"
#include "broker/session/vring.h"
#include "common/device_kind.h"
#include "common/ipc/session_broker.h"

namespace session {

// The device as the front-end knows it. All of it is made before the seal and never grows.
struct Device {
  Features features;
  ConfigSpace config;
  MemoryTable memory;
  InflightRegion inflight;
  common::Fd inflight_offer;  // What GET_INFLIGHT_FD has answered last.
  LogRegion log;
  bool state_transferred = false;  // SET_DEVICE_STATE_FD came, and CHECK_DEVICE_STATE has not.
  std::uint32_t queue_count = 0;
  std::uint32_t queue_size_max = 0;
  std::uint32_t mtu_max = 0;    // Of NET_SET_MTU.
  std::uint32_t host_mtu = 0;   // What it said; 0: nothing.
  bool wants_features = false;  // The broker is to be told what the driver acknowledged.
  bool call_swap_in_place = false;
  bool needs_reset = false;  // A ring broke, and the driver has not reset the device since.
  std::array<Vring, common::kQueuesMax> rings;
  common::Fd backend_channel;  // Where we may speak to the front-end unasked.
  bool config_change_pending = false;

  [[nodiscard]] std::span<Vring> queues() noexcept { return {rings.data(), queue_count}; }
  // vhost-user, "Suspended device state".
  [[nodiscard]] bool is_suspended() const noexcept;
  [[nodiscard]] Outcome<RingPlaces> locate(std::uint32_t queue) const noexcept;
  // The ring is asked to run, by this very message or by one before: then its memory and its places
  // must be there. Not asked of a ring whose memory went away: that comes back with a later
  // message.
  [[nodiscard]] Outcome<void> check_start(std::uint32_t queue) const noexcept;
  [[nodiscard]] Outcome<void> check_log(std::uint32_t queue,
                                        const RingPlaces& places) const noexcept;
  // "Large enough to cover all known guest addresses": asked of a log as long as it is used.
  [[nodiscard]] Outcome<void> check_logs() const noexcept;
  // Whether what this ring's worker writes is to be logged. LOG_ALL is for data and
  // VHOST_VRING_F_LOG for the used ring, "respectively"; either gets both, since front-ends set
  // them one after the other, rust-vmm's never set the latter, and a page too many is only copied
  // once more.
  [[nodiscard]] bool wants_log(const Vring& ring) const noexcept {
    return features.log_all() || ring.logs_used_ring();
  }
  // To be called when memory has changed. Front-ends take memory away and add it again in several
  // messages; only a ring that starts into nothing is a fault.
  void mark_rings_without_memory() noexcept;
};

class Workers {
 public:
  Workers(BrokerLink& broker, Device& device, common::FdRef vmm) noexcept
      : broker_(broker), device_(device), vmm_(vmm) {}

  // Starts, replaces and ends workers until every ring has what it asks for, and waits for that.
  // The front-end is not listened to meanwhile; the broker is. A broker that is gone answers when
  // there is another one, as late as that may be; a front-end that hangs up ends the wait.
  [[nodiscard]] Outcome<void> settle() noexcept;

  // One packet of the broker's, if there is one. What follows from it is settle()'s business.
  [[nodiscard]] Outcome<void> take_broker_packet() noexcept;

  // The ring's call eventfd has changed, and `ring.call` is the new one: puts it in place in the
  // running worker where that can be done, or has the worker replaced by the next settle().
  [[nodiscard]] Outcome<void> call_changed(std::uint32_t queue) noexcept;

  // A file of so many bytes for in-flight records, from the broker, who alone can make one; invalid
  // where it could not.
  [[nodiscard]] Outcome<common::Fd> make_inflight(std::uint64_t bytes) noexcept;

  // Started with a configuration that has changed since: SET_VRING_BASE wants to know.
  [[nodiscard]] bool has_worker(std::uint32_t queue) const noexcept {
    return links_[queue].state() != QueueLink::State::kNone;
  }
  // Goes up when a ring that was asked for could not be started: then the message that asked is
  // answered with an error.
  [[nodiscard]] std::uint32_t failed_starts() const noexcept { return failed_starts_; }

 private:
  // What the worker of this ring is to be started with; nothing if it is to have none.
  [[nodiscard]] std::optional<RingSetup> wanted_setup(std::uint32_t queue) const noexcept;
  // The same for a worker that is to finish what a dead one had taken, and then to end.
  [[nodiscard]] std::optional<RingSetup> finishing_setup(std::uint32_t queue) const noexcept;
  [[nodiscard]] std::optional<RingSetup> setup_of(std::uint32_t queue) const noexcept;
  [[nodiscard]] Outcome<void> make_own_inflight() noexcept;
  [[nodiscard]] std::optional<InflightRegion::Place> inflight_place(
      std::uint32_t queue) const noexcept;
  [[nodiscard]] Outcome<void> step(std::uint32_t queue) noexcept;
  // Whether the worker of one more ring may be sent its descriptors now.
  [[nodiscard]] bool has_room_for_start() const noexcept;
  [[nodiscard]] bool workers_know(std::uint32_t queue, const RingSetup& setup) noexcept;
  // False while workers run that were started with other features.
  [[nodiscard]] Outcome<bool> tell_features() noexcept;
  [[nodiscard]] Outcome<void> wait_for_someone() noexcept;
  [[nodiscard]] Outcome<void> take_answer(std::uint32_t queue) noexcept;

  [[nodiscard]] Outcome<void> dispatch(common::ipc::Packet& packet) noexcept;
  [[nodiscard]] Outcome<void> on_opened(std::uint32_t queue, common::Fd socket) noexcept;
  [[nodiscard]] Outcome<void> on_ended(const common::ipc::QueueEnded& ended) noexcept;
  [[nodiscard]] Outcome<void> on_resume(const common::ipc::Resume& resume) noexcept;
  // What the broker has to know of the guest, and what it has not answered.
  [[nodiscard]] Outcome<void> say_what_holds() noexcept;
  [[nodiscard]] Outcome<void> ask_again() noexcept;
  void on_replace(std::uint32_t queue) noexcept;
  [[nodiscard]] Outcome<void> on_config(const common::ipc::ConfigChanged& changed) noexcept;
  void announce_config() noexcept;

  void break_ring(std::uint32_t queue, common::ipc::EventCode code, std::uint64_t detail) noexcept;

  BrokerLink& broker_;
  Device& device_;
  common::FdRef vmm_;  // Only looked at: has it hung up?
  std::array<QueueLink, common::kQueuesMax> links_;
  std::optional<std::uint32_t> swapping_;  // The queue whose CallSwapped is awaited.
  bool swapped_ = false;
  bool awaits_inflight_ = false;
  std::uint64_t inflight_bytes_ = 0;  // What was asked for.
  common::Fd made_inflight_;
  bool own_inflight_refused_ = false;
  std::uint32_t failed_starts_ = 0;
  std::uint32_t broker_speaks_ = common::ipc::kIpcVersion;
  bool told_of_old_workers_ = false;
  std::optional<std::uint64_t> announced_features_;  // To the log.
  std::optional<std::uint64_t> told_features_;       // To the broker, where it wants them.
  bool waits_for_features_ = false;
  bool told_of_no_channel_ = false;
};

}  // namespace session
