// broker/control/desk.h: does what operators ask for, to the broker's devices, and answers.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "broker/control/event_ring.h"
#include "broker/control/requests.h"
#include "broker/control/server.h"
#include "broker/fleet.h"
#include "broker/limit_file.h"
#include "broker/log.h"
#include "broker/services.h"
#include "broker/state_dir.h"

namespace broker::control {

class Desk final : public Requests {
 public:
  // What it knows of the broker beside its devices.
  struct Facts {
    bool strict = false;
    StateDir* state = nullptr;
    std::function<void()> end_broker;
  };

  // All of these outlive it.
  Desk(Server& server, Fleet& fleet, Services& services, EventRing& events, Facts facts)
      : server_(server),
        fleet_(fleet),
        log_(services.log),
        loop_(services.loop),
        keep_(services.keep),
        events_(events),
        facts_(std::move(facts)) {}

  // There is another event. Answers come later: this may be called by whoever writes to the log.
  void event_came();

  void status(const Caller& caller) override;
  void device(const Caller& caller, const std::string& name, bool next) override;
  void process(const Caller& caller, const std::string& device, std::uint32_t index) override;
  void queue(const Caller& caller, const std::string& device, std::uint32_t first) override;
  void event(const Caller& caller, std::uint64_t after, bool wait) override;
  void settings(const Caller& caller, const std::string& device) override;
  void add(const Caller& caller, const AddRequest& request, common::ipc::FdList& fds) override;
  void order(const Caller& caller, const std::string& device, Act act, bool force) override;
  void group(const Caller& caller, const std::string& name, bool next) override;
  void limit(const Caller& caller, const LimitRequest& request) override;
  void put_group(const Caller& caller, const GroupConfig& group) override;
  void end_broker(const Caller& caller) override;

 private:
  [[nodiscard]] Fleet::Done answering(const Caller& caller);
  // The same, and what it has become is kept for the next start.
  [[nodiscard]] Fleet::Done keeping(const Caller& caller, const std::string& device);
  void answer(const Caller& caller, const Answer<void>& result);
  void resize(const Caller& caller, const std::string& device);
  void answer_waiting();
  [[nodiscard]] Answer<void> change_limits(const LimitRequest& request);
  [[nodiscard]] Answer<void> keep_limits(const LimitRequest& request);

  Server& server_;
  Fleet& fleet_;
  Log& log_;
  EventLoop& loop_;
  const Keep* keep_;  // Null where children end with the broker.
  EventRing& events_;
  Facts facts_;
  struct Waiting {
    Caller caller;
    std::uint64_t after = 0;
  };
  std::vector<Waiting> waiting_;  // For an event; one for each client at most.
  bool answers_are_due_ = false;
  std::chrono::steady_clock::time_point started_ = std::chrono::steady_clock::now();
  std::chrono::system_clock::time_point started_at_ = std::chrono::system_clock::now();
};

}  // namespace broker::control
