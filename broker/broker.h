// broker/broker.h: the broker: what lives as long as the process, from its start to its end.
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "broker/audit/trail.h"
#include "broker/audit_reader.h"
#include "broker/control/desk.h"
#include "broker/control/event_ring.h"
#include "broker/control/server.h"
#include "broker/device_maker.h"
#include "broker/event_loop.h"
#include "broker/fleet.h"
#include "broker/foreign_close.h"
#include "broker/halts.h"
#include "broker/host.h"
#include "broker/inheritance.h"
#include "broker/jailer.h"
#include "broker/keep.h"
#include "broker/program_files.h"
#include "broker/reload.h"
#include "broker/ring_messenger.h"
#include "broker/services.h"
#include "broker/signals.h"
#include "broker/state_dir.h"
#include "broker/systemd.h"

namespace broker {

// Everything that lives as long as the process; destroyed backwards, so users come after what they
// use.
class Broker {
 public:
  Broker(const BrokerConfig& config, Log& log)
      : config_(config),
        log_(log),
        manager_(ServiceManager::from_environment()),
        maker_(log, config.posture, config.uids),
        state_(config.state_dir),
        halts_(config.state_dir) {}

  ~Broker() {
    log_.listen({});
    maker_.groups().let_go();  // They outlive what keeps them.
  }
  Broker(const Broker&) = delete;
  Broker& operator=(const Broker&) = delete;

  [[nodiscard]] Answer<void> start();
  [[nodiscard]] int run();
  // Why start() failed.
  void record_failure(const std::string& error);

 private:
  // The stages of start().
  [[nodiscard]] Answer<void> open_trail();
  [[nodiscard]] Answer<void> check_trail();
  [[nodiscard]] Answer<void> make_loop();
  [[nodiscard]] Answer<void> find_inheritance();
  void log_lost();
  void record_ended();
  [[nodiscard]] Answer<void> start_keeping();
  [[nodiscard]] Answer<void> keep_operators_socket();
  [[nodiscard]] Answer<void> open_backings();
  [[nodiscard]] Answer<void> open_doorways();
  [[nodiscard]] Answer<void> look_around();
  [[nodiscard]] Answer<void> choose_engines();
  [[nodiscard]] Answer<void> check_posture();
  [[nodiscard]] Answer<void> give_up();
  [[nodiscard]] Answer<void> open_devices();
  [[nodiscard]] Answer<void> open_late();
  void open_kept_devices();
  // It can only be opened when the broker before us has left, which does not hand it on.
  [[nodiscard]] bool is_late(const DeviceConfig& config) const {
    return inheritance_.is_owned() && config.kind == common::DeviceKind::kNet &&
           !inheritance_.card_of(config.name);
  }
  // An operator has stopped it, or drained it until nobody was left: it is not opened.
  [[nodiscard]] bool stays_stopped(const DeviceConfig& config, Origin origin);
  [[nodiscard]] Halt halt_of(const std::string& name) const;
  void halt_again();
  void read_state();
  void forget_old_halts();
  // Of the configuration's devices, with why each cannot be opened.
  using Failures = std::vector<std::pair<std::string, std::string>>;
  [[nodiscard]] Answer<void> go_on_without(const Failures& failures);
  [[nodiscard]] Answer<void> listen_to_operators();
  [[nodiscard]] Answer<void> serve_operators();
  void say_ready();
  void say_alive(std::chrono::microseconds interval);

  [[nodiscard]] bool strict() const { return maker_.strict(); }
  // What this host lacks may keep it from serving.
  [[nodiscard]] bool demanding() const {
    return strict() || config_.core_scheduling == common::CoreScheduling::kRequired;
  }
  [[nodiscard]] bool looks_before_listening() const;

  [[nodiscard]] static std::uint64_t own_pid();

  // Events of the loop.
  void on_signal(Signal signal);
  void stop();
  void stop_if_all_finished();
  [[noreturn]] void leave(const std::string& why, int exit_code);
  void on_keeper_lost(bool again);
  void log_postures();
  void reload();
  void log_stats();
  void look_at_disks();

  const BrokerConfig& config_;
  Log& log_;
  ServiceManager manager_;
  DeviceMaker maker_;
  std::unique_ptr<audit::Trail> trail_;
  std::unique_ptr<EventLoop> loop_;
  std::optional<Signals> signals_;
  std::optional<Programs> programs_;  // Until there is a jailer.
  std::optional<Host> host_;
  std::unique_ptr<Cgroups> cgroups_;  // Null where no tree was delegated.
  std::optional<Jailer> jailer_;
  ForeignCloser closer_;
  std::unique_ptr<RingMessenger> messenger_;
  std::unique_ptr<AuditReader> audit_;
  Inheritance inheritance_;
  std::unique_ptr<Keep> keep_;  // Null: children end with us.
  std::optional<Services> services_;
  std::vector<DevicePlan> plans_;       // Of config_.devices, until open_devices().
  std::vector<DevicePlan> kept_plans_;  // As state_ has them, until then.
  std::vector<std::pair<DeviceConfig, Origin>> stopped_;  // Until then, too.
  std::optional<Fleet> fleet_;
  std::unique_ptr<control::Server> control_;  // Null where there is no operator's socket.
  StateDir state_;
  StateDir::Kept kept_devices_;  // As it was when we started.
  Halts halts_;
  std::map<std::string, Halt> kept_halts_;  // As they were, too.
  control::EventRing events_;
  std::optional<control::Desk> desk_;
  std::optional<Reload> reload_;
  bool inherited_ = false;
  bool stopping_ = false;
  std::chrono::steady_clock::time_point stats_since_;
  EventLoop::Registration stats_timer_;
  EventLoop::Registration look_timer_;
  EventLoop::Registration watchdog_timer_;
  EventLoop::Registration kill_timer_;
  EventLoop::Registration limit_timer_;
};

}  // namespace broker
