// broker/audit/device_events.h: the events of a device's life, and of who changes it, made of what
// the broker knows then.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <string_view>

#include "broker/audit/event.h"
#include "broker/device_model.h"
#include "broker/jailer.h"
#include "broker/socket.h"
#include "common/layers.h"

namespace broker::audit {

[[nodiscard]] Event device_added(std::string_view doorway);
[[nodiscard]] Event backing_opened(const DeviceModel& model);

// `command` is what the process calls itself: its own words.
[[nodiscard]] Event vmm_came(Kind kind, const Peer& peer, std::string_view command,
                             std::string_view cause = {});

enum class Role : std::uint8_t { kSession, kWorker };
// Which process of a device.
struct Process {
  Role role = Role::kSession;
  pid_t pid = 0;
  std::optional<std::uint32_t> queue;  // A worker's.
};
[[nodiscard]] Event session_started(const Jailed& session);
[[nodiscard]] Event worker_started(std::uint32_t queue, const Jailed& worker,
                                   std::string_view engine);
[[nodiscard]] Event process_adopted(const Process& process);
[[nodiscard]] Event process_jailed(const Process& process, const common::LayerResults& layers);
[[nodiscard]] Event process_ended(const Process& process, std::string_view outcome,
                                  std::string_view cause = {});
// kPolicyViolation, kPostureRefused.
[[nodiscard]] Event process_refused(Kind kind, const Process& process, std::string_view cause);
// What somebody asked for over the operator's socket, and whether he got it. Recorded by a
// DeviceTrail without a device, so that who may only connect cannot fill the log.
[[nodiscard]] Event operator_asked(const Peer& peer, std::string_view command,
                                   std::string_view device);
[[nodiscard]] Event operator_refused(const Peer& peer, std::string_view command,
                                     std::string_view device, std::string_view cause);
// "read-iops": from "1000" to "2000".
[[nodiscard]] Event limit_changed(std::string_view limit, std::string_view before,
                                  std::string_view now);
[[nodiscard]] Event queue_event(Kind kind, std::uint32_t queue, std::string_view cause = {});

}  // namespace broker::audit
