#include "broker/net_config.h"

#include <linux/if_tun.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstring>
#include <memory>
#include <span>
#include <utility>

#include "broker/net_card.h"
#include "broker/open_file.h"
#include "broker/setting_values.h"
#include "broker/stats_report.h"
#include "broker/text.h"
#include "common/virtqueue_wire.h"
#include "policy/worker_net.h"

namespace broker {
namespace {

namespace ipc = common::ipc;
namespace net = common::net;
using common::Counter;
using common::EngineKind;
using common::Le16;
using ipc::NetRole;

// vhost-user, "Protocol features".
constexpr std::uint64_t kProtocolRarp = 1ULL << 2;
constexpr std::uint64_t kProtocolMtu = 1ULL << 4;

constexpr NetRole kRoles[] = {NetRole::kReceive, NetRole::kTransmit, NetRole::kControl};

// What a tap can leave to the guest, and the bits by which the driver says that it takes it.
struct Offload {
  std::uint32_t tap;
  std::uint64_t guest;
  std::uint64_t host;  // The same the other way round.
};
constexpr Offload kTcpOffloads[] = {
    {TUN_F_TSO4, net::kFeatureGuestTso4, net::kFeatureHostTso4},
    {TUN_F_TSO6, net::kFeatureGuestTso6, net::kFeatureHostTso6},
    {TUN_F_TSO_ECN, net::kFeatureGuestEcn, net::kFeatureHostEcn},
};
constexpr Offload kUdpOffloads[] = {
    {TUN_F_UFO, net::kFeatureGuestUfo, net::kFeatureHostUfo},
    // The kernel has these two together or not at all.
    {kTunUso4 | kTunUso6, net::kFeatureGuestUso4 | net::kFeatureGuestUso6, net::kFeatureHostUso},
};

std::uint64_t offload_features(const Tap& tap, std::span<const Offload> offloads) {
  std::uint64_t bits = 0;
  for (const Offload& each : offloads) {
    if ((tap.offloads & each.tap) == each.tap) bits |= each.guest | each.host;
  }
  return bits;
}

std::uint32_t acknowledged(std::span<const Offload> offloads, std::uint64_t features) {
  std::uint32_t bits = 0;
  for (const Offload& each : offloads) {
    if ((features & each.guest) == each.guest) bits |= each.tap;
  }
  return bits;
}

std::uint32_t mtu_of(const Tap& tap, const DeviceConfig& config) {
  return std::clamp(config.mtu.value_or(tap.mtu), net::kMtuMin, net::kMtuMax);
}

// A macvtap passes on only what is sent to its own address; a tap's own address is the host's end.
MacAddress mac_of(const Tap& tap, const DeviceConfig& config) {
  if (config.mac) return *config.mac;
  return tap.macvtap ? tap.mac : make_mac(config.name, tap.name);
}

std::string net_summary(const Tap& tap, const DeviceConfig& config) {
  const std::size_t pairs = tap.queues.size();
  const std::uint64_t features = net_features(tap, config);
  std::string offloads;
  if ((features & net::kFeatureCsum) != 0) offloads += " csum";
  if ((features & net::kFeatureHostTso4) != 0) offloads += " tso";
  if ((features & net::kFeatureHostUso) != 0) offloads += " uso";
  return (tap.macvtap ? "macvtap " : "tap ") + clean_text(tap.name) + ", MAC " +
         mac_text(mac_of(tap, config)) + ", MTU " + std::to_string(mtu_of(tap, config)) +
         ", offloads" + (offloads.empty() ? " off" : offloads) + ", up to " +
         std::to_string(pairs) + (pairs == 1 ? " pair" : " pairs") + " of queues of " +
         std::to_string(queue_size_of(config));
}

double count_of(const CounterTotals& totals, Counter counter) {
  return static_cast<double>(totals[static_cast<std::size_t>(counter)]);
}

}  // namespace

std::uint64_t net_features(const Tap& tap, const DeviceConfig& config) {
  std::uint64_t bits = common::kFeatureVersion1 | common::kFeatureIndirectDesc |
                       common::kFeatureEventIdx | common::kFeatureInOrder | net::kFeatureMac |
                       net::kFeatureMtu | net::kFeatureStatus | net::kFeatureGuestAnnounce |
                       net::kFeatureCtrlVq | net::kFeatureCtrlRx;
  if (config.packed_rings) bits |= common::kFeatureRingPacked;
  if (tap.queues.size() > 1) bits |= net::kFeatureMq;
  if (config.mrg_rxbuf) bits |= net::kFeatureMergeableBuffers;
  // A macvtap's address decides what its guest is sent, so it is not the guest's to change.
  if (!tap.macvtap) bits |= net::kFeatureCtrlMacAddr;
  // 5.1.3.1: segmentation needs checksums.
  if (!config.offload_csum || (tap.offloads & TUN_F_CSUM) == 0) return bits;
  bits |= net::kFeatureCsum | net::kFeatureGuestCsum | net::kFeatureCtrlGuestOffloads;
  if (config.offload_tso) bits |= offload_features(tap, kTcpOffloads);
  if (config.offload_uso) bits |= offload_features(tap, kUdpOffloads);
  return bits;
}

std::uint32_t tap_offloads(const Tap& tap, std::uint64_t driver_features) {
  if ((driver_features & net::kFeatureGuestCsum) == 0) return 0;
  const std::uint32_t bits = TUN_F_CSUM | acknowledged(kTcpOffloads, driver_features) |
                             acknowledged(kUdpOffloads, driver_features);
  // 5.1.3.1: ECN is a property of TCP segments; the kernel knows it no other way.
  const bool tcp = (bits & (TUN_F_TSO4 | TUN_F_TSO6)) != 0;
  return bits & tap.offloads & ~(tcp ? 0U : static_cast<std::uint32_t>(TUN_F_TSO_ECN));
}

net::WireConfig net_config_space(const Tap& tap, const DeviceConfig& config) {
  net::WireConfig space{};
  space.mac = mac_of(tap, config);
  space.status = Le16(tap.up ? net::kStatusLinkUp : 0);
  space.max_virtqueue_pairs = Le16(static_cast<std::uint16_t>(tap.queues.size()));
  space.mtu = Le16(static_cast<std::uint16_t>(mtu_of(tap, config)));
  return space;
}

ipc::SessionStart net_session_start(const Tap& tap, const DeviceConfig& config) {
  const net::WireConfig space = net_config_space(tap, config);
  ipc::SessionStart start{};
  start.kind = ipc::SessionStart::kKind;
  start.device_kind = static_cast<std::uint32_t>(common::DeviceKind::kNet);
  start.device_features = net_features(tap, config);
  start.queues_max = static_cast<std::uint32_t>(2 * tap.queues.size() + 1);
  start.queue_size_max = queue_size_of(config);
  start.config_bytes = sizeof(space);
  start.protocol_features = kProtocolRarp | kProtocolMtu;
  start.mtu_max = mtu_of(tap, config);
  start.wants_features = 1;
  std::memcpy(start.config.data(), &space, sizeof(space));
  return start;
}

ipc::NetStart net_worker_start(const Tap& tap, const DeviceConfig& config, NetRole role,
                               EngineKind engine, std::uint32_t tsc_per_us) {
  ipc::NetStart start{};
  start.kind = ipc::NetStart::kKind;
  start.engine = static_cast<std::uint32_t>(engine);
  start.role = static_cast<std::uint32_t>(role);
  start.pairs = static_cast<std::uint32_t>(tap.queues.size());
  start.mtu = mtu_of(tap, config);
  start.poll_us = config.poll_us;
  start.tsc_per_us = tsc_per_us;
  return start;
}

const policy::Profile& net_profile(NetRole role, EngineKind engine) {
  const bool uring = engine == EngineKind::kIoUring;
  switch (role) {
    case NetRole::kReceive:
      return uring ? policy::kWorkerNetReceiveUring : policy::kWorkerNetReceiveFallback;
    case NetRole::kTransmit:
      return uring ? policy::kWorkerNetTransmitUring : policy::kWorkerNetTransmitFallback;
    case NetRole::kControl:
      break;
  }
  return policy::kWorkerNetControl;
}

std::string format_net_stats(const CounterTotals& delta, double seconds, std::size_t workers) {
  const double time = std::max(seconds, 0.001);
  const double received = count_of(delta, Counter::kReceivedPackets);
  const double sent = count_of(delta, Counter::kSentPackets);
  const double per_packet = std::max(received + sent, 1.0);
  constexpr double kMib = 1024.0 * 1024.0;

  std::array<char, 640> text{};
  std::snprintf(
      text.data(), text.size(),
      "received %.0f packets/s %.1f MiB/s, sent %.0f packets/s %.1f MiB/s, dropped: %.0f with a "
      "wrong header, %.0f of a wrong length, %.0f without room, %.0f while the tap was down, %.0f "
      "that the tap refused; waited %.0f times for buffers and %.0f for the tap; per packet: %.3f "
      "kicks, %.3f interrupts, %.3f system calls; %zu worker%s",
      received / time, count_of(delta, Counter::kReceivedBytes) / kMib / time, sent / time,
      count_of(delta, Counter::kSentBytes) / kMib / time, count_of(delta, Counter::kDropBadHeader),
      count_of(delta, Counter::kDropBadLength), count_of(delta, Counter::kDropNoRoom),
      count_of(delta, Counter::kDropTapDown), count_of(delta, Counter::kDropTapRefused),
      count_of(delta, Counter::kWaitsForBuffers), count_of(delta, Counter::kWaitsForTap),
      count_of(delta, Counter::kKicks) / per_packet, count_of(delta, Counter::kCalls) / per_packet,
      count_of(delta, Counter::kSystemCalls) / per_packet, workers, workers == 1 ? "" : "s");
  return text.data();
}

DeviceModel make_net_model(Tap tap, const DeviceConfig& asked,
                           std::function<std::uint32_t()> tsc_per_us) {
  // Whatever becomes of the interface's name, the guest's card stays the same.
  DeviceConfig config = asked;
  config.mac = mac_of(tap, asked);
  config.mtu = mtu_of(tap, asked);
  DeviceModel model;
  model.kind = common::DeviceKind::kNet;
  model.summary = net_summary(tap, config);
  model.session_start = net_session_start(tap, config);
  model.backing_device = tap.device;
  model.backing_inode = tap.inode;
  model.backing = {.path = path_of(tap.queues.front().ref()),
                   .interface = tap.name,
                   .mac = mac_text(*config.mac),
                   .read_only = false,
                   .rdev = rdev_of(tap.queues.front().ref())};
  if (!tap.nowait) model.uring_objection = kNoNowait;
  model.stats_line = format_net_stats;
  model.worker_profiles = [](EngineKind engine) {
    std::vector<const policy::Profile*> profiles;
    for (const NetRole role : kRoles) profiles.push_back(&net_profile(role, engine));
    return profiles;
  };
  const auto card = std::make_shared<NetCard>(std::move(tap), config, std::move(tsc_per_us));
  model.worker_recipe = [card](std::uint32_t queue, EngineKind engine) {
    return card->worker_recipe(queue, engine);
  };
  model.files = [card] { return card->files(); };
  model.release = [card] { card->release(); };
  model.hooks = card;
  return model;
}

}  // namespace broker
