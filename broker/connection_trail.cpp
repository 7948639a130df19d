// broker/connection_trail.cpp: what a connection has the audit trail say of its session.
#include <string>
#include <string_view>
#include <utility>

#include "broker/connection.h"
#include "broker/event_text.h"
#include "policy/jail.h"

namespace broker {

namespace ipc = common::ipc;

void Connection::record_session_jailed() {
  if (std::exchange(jail_recorded_, true)) return;
  log_.record(audit::process_jailed(session_process(), reported_layers(session_.page())));
}

void Connection::record_session_end(const Death& death) {
  const auto ended = [&](std::string_view how, const std::string& cause = {}) {
    log_.record(audit::process_ended(session_process(), how, cause));
  };
  const auto same_exit = [&](ipc::SessionExit code) {
    return death.exited_with(static_cast<int>(code));
  };
  if (!killed_because_.empty() && !death.exited()) return ended("killed", killed_because_);
  if (same_exit(ipc::SessionExit::kPeerClosed)) return ended("closed by the VMM");
  if (same_exit(ipc::SessionExit::kViolation)) return ended("the VMM's violation");
  if (same_exit(ipc::SessionExit::kBrokerGone)) return ended("ended by the broker");
  common::Layer missing{};
  if (same_exit(ipc::SessionExit::kPosture) &&
      policy::below_strict(reported_layers(session_.page()), missing)) {
    const std::string what =
        "layer '" + std::string(common::layer_name(missing)) + "' of its jail is missing";
    log_.record(audit::process_refused(audit::Kind::kPostureRefused, session_process(), what));
    return ended("refused", what);
  }
  if (same_exit(ipc::SessionExit::kHostFault)) return ended("failed");
  ended("died", words_for(death));
}

}  // namespace broker
