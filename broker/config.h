// broker/config.h: what the operator asked for, checked. Text becomes these structs in options.cpp
// (command line) and config_file.cpp (TOML); no other file reads text.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "broker/limits.h"
#include "common/device_kind.h"
#include "common/layers.h"
#include "common/result.h"
#include "common/virtio_net_wire.h"
#include "common/virtqueue_wire.h"

namespace broker {

// Errors an operator reads: one sentence that says what was wrong and what to do.
template <typename T>
using Answer = common::Result<T, std::string>;

enum class EngineChoice : std::uint8_t { kAuto, kIoUring, kFallback };
enum class KernelAudit : std::uint8_t { kOff, kResources, kAll };
enum class PostureDemand : std::uint8_t { kAny, kStrict };

using MacAddress = common::net::Mac;

// Where the audit trail goes (audit/trail.h).
struct AuditConfig {
  std::string log;  // A path, "journal", or empty.
  KernelAudit kernel = KernelAudit::kOff;
  bool required = false;  // Without a sink that is named here, no start.
};

struct DeviceConfig {
  // In every log line. Default: the image or the interface; unique in one broker.
  std::string name;
  common::DeviceKind kind = common::DeviceKind::kBlk;

  // Exactly one of socket_path and fd.
  std::string socket_path;
  int fd = -1;          // Inherited: listening or connected, told apart by SO_ACCEPTCONN.
  bool client = false;  // Connect to socket_path, and again for ever, instead of listening on it.
  mode_t socket_mode = 0660;
  std::string socket_owner;  // Name or number; empty: leave it.
  std::string socket_group;
  std::vector<uid_t> allow_uids;  // Empty: whoever the socket's mode lets in.

  std::string blk_file;
  bool read_only = false;
  bool direct = false;
  bool discard = true;
  bool write_zeroes = true;
  bool lock = true;  // False: another may have the image until its guest has moved here.
  std::uint32_t block_size = 512;  // 512 or 4096.
  std::string serial;              // At most 20 bytes; empty: made from the name.

  // A network card: exactly one of tap_name, tap_fds and macvtap.
  std::string tap_name;
  bool tap_create = false;
  std::vector<int> tap_fds;  // Inherited: one queue of one tap for each pair.
  std::string macvtap;
  std::optional<MacAddress> mac;     // Default: the macvtap's, or one made from the tap's name.
  std::optional<std::uint32_t> mtu;  // Default: the interface's.
  bool offload_csum = true;
  bool offload_tso = true;
  bool offload_uso = true;
  bool mrg_rxbuf = true;

  std::optional<std::uint32_t> num_queues;  // Pairs of a network card. Default: as many as can be.
  std::optional<std::uint32_t> queue_size;  // Default: common::kQueueSizeMax.
  EngineChoice engine = EngineChoice::kAuto;
  std::uint32_t poll_us = 0;
  // Of its session and workers together, where there is a tree of cgroups (cgroup.h). 0: no limit.
  std::uint32_t memory_max_mib = 0;
  std::uint32_t cpu_max_percent = 0;      // Of one processor.
  std::optional<std::uint32_t> pids_max;  // Default: what its queues can need.
  // Off: what reads packed rings is out of a guest's reach, and split ones are served faster.
  bool packed_rings = false;
  bool restart_after_violation = false;  // Of a worker that its system call filter killed.

  DeviceLimits limits;      // What its guest may use each second.
  std::string limit_group;  // Whose limits hold as well: a GroupConfig's name, or empty.

  // Whose it is: for whoever reads lists, metrics, logs and the audit trail. Nothing is decided by
  // these.
  std::string tenant;
  std::string vm_name;
  std::string vm_uuid;       // "8-4-4-4-12", lower case.
  std::optional<uid_t> uid;  // Of its sessions and workers. Default: picked by UidRange.

  bool operator==(const DeviceConfig&) const = default;
};

[[nodiscard]] inline std::uint32_t queue_size_of(const DeviceConfig& config) {
  return config.queue_size.value_or(common::kQueueSizeMax);
}

// Of the sessions and workers of devices without a uid of their own; gids are the same numbers.
// Default: far above what distributions, directory services and container managers hand out, and
// below 2^31.
struct UidSpan {
  uid_t first = 2'000'000'000;
  uid_t last = 2'001'048'575;
  bool operator==(const UidSpan&) const = default;
};

struct BrokerConfig {
  std::string config_path;  // Where it was read; empty for the commands of one device.
  std::vector<DeviceConfig> devices;
  std::vector<GroupConfig> groups;
  PostureDemand posture = PostureDemand::kAny;
  AuditConfig audit;
  bool forensic = false;  // policy/forensic.h
  common::CoreScheduling core_scheduling = common::CoreScheduling::kAuto;
  std::string log_level = "info";
  std::uint32_t stats_interval_s = 0;  // 0: none.

  // The operator's socket. Empty: none. Unset: what the command takes for granted.
  std::optional<std::string> control_socket;
  bool control_by_default = false;  // `serve`: at its usual place, where that can be.
  std::string control_group;        // May change: beside root and the broker's own user.
  std::string control_read_group;   // May look.
  // Where devices that are added while it runs are kept for its next start; empty: nowhere.
  std::string state_dir;
  bool orphans_end = false;  // Sessions and workers end with the broker (keep.h).
  // Those that wait for the broker's look (forensic) cannot do without one either.
  [[nodiscard]] bool keeps_orphans() const noexcept { return !orphans_end && !forensic; }
  std::string takeover_socket;  // Empty: beside the first device's socket.
  bool take_over = false;       // From a broker that runs.
  UidSpan uids;
  std::string cgroup = "auto";  // Or "off", or the path of one that was delegated.
};

}  // namespace broker
