// broker/control/desk.h: does what operators ask for, to the broker's devices, and answers.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <string>

#include "broker/control/requests.h"
#include "broker/control/server.h"
#include "broker/fleet.h"
#include "broker/log.h"

namespace broker::control {

class Desk final : public Requests {
 public:
  // What it knows of the broker beside its devices.
  struct Facts {
    bool strict = false;
    std::string state_dir;
    std::function<void()> end_broker;
  };

  // All of these outlive it.
  Desk(Server& server, Fleet& fleet, Log& log, Facts facts)
      : server_(server), fleet_(fleet), log_(log), facts_(std::move(facts)) {}

  void status(const Caller& caller) override;
  void device(const Caller& caller, const std::string& name, bool next) override;
  void process(const Caller& caller, const std::string& device, std::uint32_t index) override;
  void settings(const Caller& caller, const std::string& device) override;
  void add(const Caller& caller, const AddRequest& request, common::ipc::FdList& fds) override;
  void order(const Caller& caller, const std::string& device, Act act, bool force) override;
  void end_broker(const Caller& caller) override;

 private:
  [[nodiscard]] Fleet::Done answering(const Caller& caller);
  void answer(const Caller& caller, const Answer<void>& result);
  void resize(const Caller& caller, const std::string& device);

  Server& server_;
  Fleet& fleet_;
  Log& log_;
  Facts facts_;
  std::chrono::steady_clock::time_point started_ = std::chrono::steady_clock::now();
  std::chrono::system_clock::time_point started_at_ = std::chrono::system_clock::now();
};

}  // namespace broker::control
