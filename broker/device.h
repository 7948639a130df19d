// broker/device.h: one device at run time: its doorway, and the one VMM it serves at a time.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "broker/budget.h"
#include "broker/connection.h"
#include "broker/device_log.h"
#include "broker/doorway.h"
#include "broker/event_loop.h"
#include "broker/services.h"
#include "broker/stats_report.h"

namespace broker {

// What a device has open, for the next broker.
struct KeptBacking {
  std::vector<Kept> things;
  Keep::Id card = 0;                // Of KeptType::kCard among them; 0: there is none.
  std::vector<std::uint8_t> state;  // As that one said, where an earlier broker has left it.
};

class Device {
 public:
  // `backing` is kept for the next broker as long as the device exists.
  Device(Services& services, DeviceFacts facts, std::unique_ptr<Doorway> doorway,
         KeptBacking backing)
      : services_(services),
        facts_(std::move(facts)),
        log_(services.log, facts_.name,
             {services.trail, facts_.subject,
              facts_.model.kind == common::DeviceKind::kNet ? facts_.model.backing.mac
                                                            : facts_.model.backing.path}),
        backing_(std::move(backing)),
        doorway_(std::move(doorway)) {}
  Device(const Device&) = delete;
  Device& operator=(const Device&) = delete;

  [[nodiscard]] const std::string& name() const noexcept { return facts_.name; }

  // Serves from now on. `finished` is called once: after stop(), or when the one connection that
  // was handed to us is over.
  // `left`: what an earlier broker has left of this device's connection, which goes on.
  [[nodiscard]] common::Result<void> open(std::function<void()> finished,
                                          std::vector<KeptThing> left = {});
  // Each of its workers, one after the other, by one of this version.
  void replace_workers() {
    if (connection_) connection_->replace_workers();
  }

  // Lets nobody in any more, and ends what is served: gently, and then not.
  void stop(std::chrono::milliseconds patience);
  void kill();
  // Lets nobody in any more, and goes on with whom it serves.
  void drain();
  [[nodiscard]] bool finished() const noexcept { return finished_; }

  // Whom it serves; null where nobody.
  [[nodiscard]] const Peer* peer() const noexcept {
    return connection_ && !connection_->ending() ? &peer_ : nullptr;
  }
  [[nodiscard]] std::size_t worker_count() const noexcept {
    return connection_ ? connection_->worker_count() : 0;
  }
  [[nodiscard]] std::uint64_t in_flight() const {
    return connection_ ? connection_->in_flight() : 0;
  }
  // Of all it has served.
  [[nodiscard]] CounterTotals counters() const;
  [[nodiscard]] const std::shared_ptr<QueueBook>& queues() const noexcept { return facts_.queues; }
  // Who serves a queue now; null where nobody.
  [[nodiscard]] const Worker* worker(std::uint32_t queue) const {
    return connection_ ? connection_->worker(queue) : nullptr;
  }
  // As the guest is told; 0 for what is no disk.
  [[nodiscard]] std::uint64_t capacity_bytes() const;
  [[nodiscard]] std::uint32_t queues_max() const noexcept {
    return facts_.model.session_start.queues_max;
  }
  void list_processes(std::vector<Connection::Process>& list) const;
  // The line of --stats-interval for what has happened since the last one; empty where nobody has
  // been served.
  [[nodiscard]] std::string stats_line(double seconds);
  // Notices what others have changed about what is served, and tells the VMM; and what hangs.
  void look_for_change();
  // The same now and then, which costs nothing where there is no VMM: the next one's coming is when
  // it is looked at again.
  void look_where_used() {
    if (connection_) look_for_change();
  }
  // What the disk has failed at since this was asked last; empty where it has not.
  [[nodiscard]] std::string disk_errors_line();
  // Of the audit trail: what was left out since this was asked last.
  void record_dropped() { log_.trail().record_dropped(); }

 private:
  void let_nobody_in();
  [[nodiscard]] DeviceHooks::World world();
  void save_state() const;
  void adopt_or_end(std::vector<KeptThing> left);
  [[nodiscard]] common::Result<void> adopt(std::vector<KeptThing> left);
  void arrive(Visitor visitor);
  void serve(Visitor visitor);
  void held_long_enough();
  void on_connection_ended();
  void next_or_finish();
  void finish();
  void record_vmm_gone();

  Services& services_;
  DeviceFacts facts_;
  DeviceLog log_;
  std::function<void()> finished_handler_;
  Budget sessions_{10, 20};            // Each costs us a millisecond, which is every device's.
  CounterTotals past_counters_{};      // Of connections that are over.
  CounterTotals reported_counters_{};  // As of the last stats line.
  std::uint64_t reported_disk_errors_ = 0;
  std::uint32_t past_disk_os_errno_ = 0;
  bool stopping_ = false;
  bool finished_ = false;
  KeptBacking backing_;
  std::unique_ptr<Doorway> doorway_;
  std::unique_ptr<Connection> connection_;
  Peer peer_;                    // Of connection_.
  std::optional<Visitor> held_;  // Came while another was served.
  EventLoop::Registration held_timer_;
  EventLoop::Registration next_timer_;
};

}  // namespace broker
