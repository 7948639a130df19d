// broker/net_config.h: a network card as the guest sees it (virtio 1.2, 5.1) and as its workers are
// told, from an open tap. What is done to the tap while it serves is in net_card.h.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "broker/config.h"
#include "broker/device_model.h"
#include "broker/open_tap.h"
#include "common/device_kind.h"
#include "common/ipc/session_broker.h"
#include "common/ipc/worker_messages.h"
#include "common/virtio_net_wire.h"

namespace broker {

// Why a card's workers have no ring.
inline constexpr const char* kNoNowait = "RWF_NOWAIT on a tap";

// Virtio feature bits offered; the session adds vhost-user's own.
[[nodiscard]] std::uint64_t net_features(const Tap& tap, const DeviceConfig& config);

// TUN_F_*: what the tap may pass on unfinished to a driver that has acknowledged these bits.
[[nodiscard]] std::uint32_t tap_offloads(const Tap& tap, std::uint64_t driver_features);

// The configuration space, 5.1.4.
[[nodiscard]] common::net::WireConfig net_config_space(const Tap& tap, const DeviceConfig& config);

[[nodiscard]] common::ipc::SessionStart net_session_start(const Tap& tap,
                                                          const DeviceConfig& config);

[[nodiscard]] common::ipc::NetStart net_worker_start(const Tap& tap, const DeviceConfig& config,
                                                     common::ipc::NetRole role,
                                                     common::EngineKind engine,
                                                     std::uint32_t tsc_per_us);

[[nodiscard]] const policy::Profile& net_profile(common::ipc::NetRole role,
                                                 common::EngineKind engine);

// "received 120 packets/s 0.2 MiB/s, …".
[[nodiscard]] std::string format_net_stats(const CounterTotals& delta, double seconds,
                                           std::size_t workers);

// The tap lives as long as the model. `tsc_per_us` is asked for when a worker starts.
[[nodiscard]] DeviceModel make_net_model(Tap tap, const DeviceConfig& config,
                                         std::function<std::uint32_t()> tsc_per_us);

}  // namespace broker
