// broker/connection_trail.cpp: what a connection has the audit trail and the log say of its
// session.
#include <string>
#include <string_view>
#include <utility>

#include "broker/connection.h"
#include "broker/death_log.h"
#include "broker/event_text.h"
#include "policy/jail.h"

namespace broker {

namespace ipc = common::ipc;

namespace {

bool left_with(const Death& death, ipc::SessionExit code) {
  return death.exited_with(static_cast<int>(code));
}

}  // namespace

void Connection::record_session_jailed() {
  if (std::exchange(jail_recorded_, true)) return;
  log_.record(audit::process_jailed(session_process(), reported_layers(session_.page())));
}

void Connection::record_session_end(const Death& death) {
  const auto ended = [&](std::string_view how, const std::string& cause = {}) {
    log_.record(audit::process_ended(session_process(), how, cause));
  };
  if (!killed_because_.empty() && !death.exited()) return ended("killed", killed_because_);
  if (!death.known) return ended("ended");
  if (left_with(death, ipc::SessionExit::kPeerClosed)) return ended("closed by the VMM");
  if (left_with(death, ipc::SessionExit::kViolation)) return ended("the VMM's violation");
  if (left_with(death, ipc::SessionExit::kBrokerGone)) return ended("ended by the broker");
  common::Layer missing{};
  if (left_with(death, ipc::SessionExit::kPosture) &&
      policy::below_strict(reported_layers(session_.page()), missing)) {
    const std::string what =
        "layer '" + std::string(common::layer_name(missing)) + "' of its jail is missing";
    log_.record(audit::process_refused(audit::Kind::kPostureRefused, session_process(), what));
    return ended("refused", what);
  }
  if (left_with(death, ipc::SessionExit::kHostFault)) return ended("failed");
  ended("died", words_for(death));
}

void Connection::log_session_end(const Death& death) {
  const std::string who = visitor_name_;
  if (!killed_because_.empty() && !death.exited()) return;  // Said when it was done.
  if (!death.known) return log_.info("connection of " + who + " ended");
  if (left_with(death, ipc::SessionExit::kPeerClosed)) {
    return log_.info("connection of " + who + " closed by the VMM");
  }
  if (left_with(death, ipc::SessionExit::kViolation)) {
    return log_.warn("connection of " + who + " ended: it broke the protocol");
  }
  if (left_with(death, ipc::SessionExit::kBrokerGone)) {
    return log_.info("connection of " + who + " ended by the broker");
  }
  common::Layer missing{};
  if (left_with(death, ipc::SessionExit::kPosture) &&
      policy::below_strict(reported_layers(session_.page()), missing)) {
    return log_.error("connection of " + who + " ended: layer '" +
                      std::string(common::layer_name(missing)) +
                      "' of its session's jail is missing");
  }
  if (left_with(death, ipc::SessionExit::kHostFault)) {
    return log_.error("connection of " + who + " ended: its session could not be set up");
  }
  log_death(log_, session_process(), death, services_.audit, "session of " + who);
}

}  // namespace broker
