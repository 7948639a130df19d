// broker/session/requests.h: the handlers of vhost_table.cpp, one for each request that is served.
//
// A handler changes the device's state and nothing else; vhost_table.cpp: serve() lets the workers
// follow. Not trusted: every number in a payload; framing has been checked.
#pragma once

#include <cstdint>
#include <cstring>

#include "broker/session/vhost_table.h"

namespace session {

using Handler = Outcome<Answer>(Context&, Incoming&) noexcept;

// requests_device.cpp
Handler get_features, set_features, get_protocol_features, set_protocol_features;
Handler set_owner, reset_owner, get_queue_num, reset_device, set_status, get_status;
Handler get_config, set_config, set_backend_req_fd;

// requests_memory.cpp
Handler set_mem_table, get_max_mem_slots, add_mem_reg, rem_mem_reg;

// requests_inflight.cpp
Handler get_inflight_fd, set_inflight_fd;

// requests_ring.cpp
Handler set_vring_num, set_vring_addr, set_vring_base, get_vring_base;
Handler set_vring_kick, set_vring_call, set_vring_err, set_vring_enable;

// requests_net.cpp
Handler send_rarp, net_set_mtu;

// requests_migration.cpp
Handler set_log_base, set_log_fd, set_device_state_fd, check_device_state;

// Puts `value` where the reply's body belongs.
template <typename T>
[[nodiscard]] Answer body_of(Incoming& incoming, const T& value) noexcept {
  std::memcpy(incoming.reply_room.data(), &value, sizeof(T));
  return {.body = incoming.reply_room.first(sizeof(T))};
}

// The request's id, as the first number of most events.
[[nodiscard]] inline std::uint64_t number_of(const Incoming& incoming) noexcept {
  return static_cast<std::uint64_t>(incoming.row.request);
}

}  // namespace session
