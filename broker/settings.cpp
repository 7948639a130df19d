// What each setting is called, takes and does.
// Long because all of them stand in one table, with the function that takes each.
#include "broker/settings.h"

#include <algorithm>
#include <array>
#include <filesystem>
#include <limits>
#include <optional>

#include "broker/limit_text.h"
#include "broker/setting_values.h"
#include "broker/text.h"
#include "common/checked.h"
#include "common/virtio_blk_wire.h"
#include "common/virtio_net_wire.h"
#include "common/virtqueue_wire.h"

namespace broker {
namespace {

using common::fail;

bool is_name_character(char character) {
  const bool letter =
      (character >= 'a' && character <= 'z') || (character >= 'A' && character <= 'Z');
  const bool digit = character >= '0' && character <= '9';
  return letter || digit || character == '.' || character == '_' || character == '-';
}

// --- one function for each setting that is more than a plain value -------------------------------

Answer<void> set_fd(const Destination& to, std::string_view value) {
  TRY_LET(to.device.fd, parse_descriptor(value));
  return {};
}

Answer<void> set_mode(const Destination& to, std::string_view value) {
  std::string_view digits = value;
  if (digits.starts_with("0o")) digits.remove_prefix(2);
  const std::optional<mode_t> mode = parse_number<mode_t>(digits, 8);
  if (!mode || *mode > 0777) return must_be("an octal file mode from 0000 to 0777", value);
  to.device.socket_mode = *mode;
  return {};
}

Answer<void> set_uids(const Destination& to, std::string_view value) {
  constexpr uid_t kUidMax = std::numeric_limits<uid_t>::max() - 1;  // All ones means "none".
  std::vector<uid_t> uids;
  for (const std::string_view part : split_at_commas(value)) {
    const std::optional<uid_t> uid = parse_number<uid_t>(part);
    if (!uid || *uid > kUidMax) return must_be("numeric user ids separated by commas", value);
    uids.push_back(*uid);
  }
  if (uids.size() > kAllowUidsMax) {
    return fail("must name at most " + std::to_string(kAllowUidsMax) + " users");
  }
  to.device.allow_uids = std::move(uids);
  return {};
}

Answer<void> set_queue_size(const Destination& to, std::string_view value) {
  const std::optional<std::uint32_t> size = parse_number<std::uint32_t>(value);
  if (!size || !common::is_power_of_two(*size) || *size < kQueueSizeMin ||
      *size > common::kQueueSizeMax) {
    return must_be("a power of two from " + std::to_string(kQueueSizeMin) + " to " +
                       std::to_string(common::kQueueSizeMax),
                   value);
  }
  to.device.queue_size = size;
  return {};
}

Answer<void> set_block_size(const Destination& to, std::string_view value) {
  if (value != "512" && value != "4096") return must_be("512 or 4096", value);
  to.device.block_size = value == "512" ? 512 : 4096;
  return {};
}

// virtio 1.2, 5.2.6: the id is 20 bytes of ASCII, without a zero where all are used.
Answer<void> set_serial(const Destination& to, std::string_view value) {
  const bool printable = std::all_of(value.begin(), value.end(), [](char character) {
    return character >= ' ' && character <= '~';
  });
  if (value.size() > common::blk::kIdBytes || !printable) {
    return must_be(
        "at most " + std::to_string(common::blk::kIdBytes) + " printable ASCII characters", value);
  }
  to.device.serial = value;
  return {};
}

template <auto Member>
Answer<void> set_interface(const Destination& to, std::string_view value) {
  TRY_LET(to.device.*Member, parse_interface_name(value));
  return {};
}

Answer<void> set_tap_fds(const Destination& to, std::string_view value) {
  TRY_LET(to.device.tap_fds, parse_descriptors(value, common::kNetPairsMax));
  return {};
}

Answer<void> set_mac(const Destination& to, std::string_view value) {
  TRY_LET(to.device.mac, parse_mac(value));
  return {};
}

Answer<void> set_mtu(const Destination& to, std::string_view value) {
  TRY_LET(to.device.mtu,
          number_within<std::uint32_t>(value, common::net::kMtuMin, common::net::kMtuMax));
  return {};
}

Answer<void> set_name(const Destination& to, std::string_view value) {
  TRY_LET(to.device.name, parse_name(value));
  return {};
}

Answer<void> set_engine(const Destination& to, std::string_view value) {
  if (value == "auto") {
    to.device.engine = EngineChoice::kAuto;
  } else if (value == "io_uring" || value == "io-uring") {
    to.device.engine = EngineChoice::kIoUring;
  } else if (value == "fallback") {
    to.device.engine = EngineChoice::kFallback;
  } else {
    return must_be("auto, io_uring or fallback", value);
  }
  return {};
}

Answer<void> set_limits(const Destination& to, std::string_view value) {
  TRY_LET(to.device.limits, parse_limits(value, to.device.kind));
  return {};
}

Answer<void> set_limit_group(const Destination& to, std::string_view value) {
  TRY_LET(to.device.limit_group, parse_name(value));
  return {};
}

Answer<void> set_tenant(const Destination& to, std::string_view value) {
  TRY_LET(to.device.tenant, parse_name(value));
  return {};
}

Answer<void> set_vm_name(const Destination& to, std::string_view value) {
  if (value.empty() || value.size() > kVmNameBytesMax || clean_text(value) != value) {
    return must_be("1 to " + std::to_string(kVmNameBytesMax) + " bytes of printable text", value);
  }
  to.device.vm_name = value;
  return {};
}

Answer<void> set_uid(const Destination& to, std::string_view value) {
  // Neither root, nor what means "nobody in particular" to the kernel.
  constexpr uid_t kUidMax = std::numeric_limits<uid_t>::max() - 1;
  TRY_LET(to.device.uid, number_within<uid_t>(value, 1, kUidMax));
  return {};
}

Answer<void> set_uid_range(const Destination& to, std::string_view value) {
  constexpr uid_t kUidMax = std::numeric_limits<uid_t>::max() - 1;
  const std::size_t dash = std::min(value.find('-'), value.size());
  const std::optional<uid_t> first = parse_number<uid_t>(value.substr(0, dash));
  const std::optional<uid_t> last =
      parse_number<uid_t>(value.substr(std::min(dash + 1, value.size())));
  if (!first || !last || *first == 0 || *last < *first || *last > kUidMax) {
    return must_be("two user ids above 0 and a dash between them, the lower one first", value);
  }
  to.broker.uids = {*first, *last};
  return {};
}

Answer<void> set_control_socket(const Destination& to, std::string_view value) {
  if (value == "off") {
    to.broker.control_socket = "";
    return {};
  }
  TRY_LET(to.broker.control_socket, text_within(value, kSocketPathBytesMax));
  return {};
}

template <auto Member, std::size_t kBytesMax>
Answer<void> set_broker_text(const Destination& to, std::string_view value) {
  TRY_LET(to.broker.*Member, text_within(value, kBytesMax));
  return {};
}

Answer<void> set_orphans(const Destination& to, std::string_view value) {
  if (value != "keep" && value != "end") return must_be("keep or end", value);
  to.broker.orphans_end = value == "end";
  return {};
}

Answer<void> set_posture(const Destination& to, std::string_view value) {
  if (value != "strict" && value != "any") return must_be("strict or any", value);
  to.broker.posture = value == "strict" ? PostureDemand::kStrict : PostureDemand::kAny;
  return {};
}

Answer<void> set_log_level(const Destination& to, std::string_view value) {
  constexpr std::array<std::string_view, 6> kLevels = {"trace", "debug", "info",
                                                       "warn",  "error", "off"};
  const std::string_view level = value == "warning" ? "warn" : value;
  if (std::find(kLevels.begin(), kLevels.end(), level) == kLevels.end()) {
    return must_be(join_or(kLevels), value);
  }
  to.broker.log_level = level;
  return {};
}

template <auto Member, std::size_t kBytesMax>
Answer<void> set_text(const Destination& to, std::string_view value) {
  TRY_LET(to.device.*Member, text_within(value, kBytesMax));
  return {};
}

template <auto Member>
Answer<void> set_switch(const Destination& to, std::string_view value) {
  TRY_LET(to.device.*Member, parse_switch(value));
  return {};
}

Answer<void> set_num_queues(const Destination& to, std::string_view value) {
  TRY_LET(to.device.num_queues, number_within<std::uint32_t>(value, 1, common::kBlkQueuesMax));
  return {};
}

Answer<void> set_poll(const Destination& to, std::string_view value) {
  TRY_LET(to.device.poll_us, number_within<std::uint32_t>(value, 0, kPollMicrosecondsMax));
  return {};
}

Answer<void> set_memory_max(const Destination& to, std::string_view value) {
  std::string_view digits = value;
  std::uint32_t factor = 1;
  if (digits.ends_with('G')) factor = 1024;
  if (digits.ends_with('G') || digits.ends_with('M')) digits.remove_suffix(1);
  const std::optional<std::uint32_t> number = parse_number<std::uint32_t>(digits);
  if (value != "0" && (!number || digits.size() == value.size() || *number == 0 ||
                       *number > kMemoryMaxMib / factor)) {
    return must_be("0, or a number with M or G, at most " + std::to_string(kMemoryMaxMib) + "M",
                   value);
  }
  to.device.memory_max_mib = *number * factor;
  return {};
}

Answer<void> set_cpu_max(const Destination& to, std::string_view value) {
  TRY_LET(to.device.cpu_max_percent, number_within<std::uint32_t>(value, 0, kCpuMaxPercent));
  return {};
}

Answer<void> set_pids_max(const Destination& to, std::string_view value) {
  TRY_LET(to.device.pids_max, number_within<std::uint32_t>(value, 4, kPidsMax));
  return {};
}

Answer<void> set_cgroup(const Destination& to, std::string_view value) {
  if (value != "auto" && value != "off" && !value.starts_with('/')) {
    return must_be("auto, off, or the path of a cgroup", value);
  }
  TRY_LET(to.broker.cgroup, text_within(value, kFilePathBytesMax));
  return {};
}

Answer<void> set_on_violation(const Destination& to, std::string_view value) {
  if (value != "stop" && value != "restart") return must_be("stop or restart", value);
  to.device.restart_after_violation = value == "restart";
  return {};
}

Answer<void> set_vm_uuid(const Destination& to, std::string_view value) {
  TRY_LET(to.device.vm_uuid, parse_uuid(value));
  return {};
}

Answer<void> set_audit_log(const Destination& to, std::string_view value) {
  TRY_LET(to.broker.audit.log, text_within(value, kFilePathBytesMax));
  return {};
}

Answer<void> set_audit_kernel(const Destination& to, std::string_view value) {
  if (value != "off" && value != "resources" && value != "all") {
    return must_be("off, resources or all", value);
  }
  to.broker.audit.kernel = value == "off"         ? KernelAudit::kOff
                           : value == "resources" ? KernelAudit::kResources
                                                  : KernelAudit::kAll;
  return {};
}

Answer<void> set_audit(const Destination& to, std::string_view value) {
  if (value != "required" && value != "optional") return must_be("required or optional", value);
  to.broker.audit.required = value == "required";
  return {};
}

Answer<void> set_forensic(const Destination& to, std::string_view value) {
  TRY_LET(to.broker.forensic, parse_switch(value));
  return {};
}

Answer<void> set_core_scheduling(const Destination& to, std::string_view value) {
  using common::CoreScheduling;
  if (value != "off" && value != "auto" && value != "required") {
    return must_be("off, auto or required", value);
  }
  to.broker.core_scheduling = value == "off"    ? CoreScheduling::kOff
                              : value == "auto" ? CoreScheduling::kAuto
                                                : CoreScheduling::kRequired;
  return {};
}

Answer<void> set_stats_interval(const Destination& to, std::string_view value) {
  TRY_LET(to.broker.stats_interval_s,
          number_within<std::uint32_t>(value, 0, kStatsIntervalSecondsMax));
  return {};
}

// --- the table -----------------------------------------------------------------------------------

constexpr std::size_t kAccountBytesMax = 256;

constexpr Setting kSettings[] = {
    {"socket-path", Scope::kDevice, ValueKind::kText, "PATH",
     "the vhost-user socket to listen on (at most 107 bytes)",
     set_text<&DeviceConfig::socket_path, kSocketPathBytesMax>},
    {"fd", Scope::kDevice, ValueKind::kNumber, "N",
     "instead: an inherited unix socket, listening or connected", set_fd},
    {"client", Scope::kDevice, ValueKind::kFlag, "",
     "connect to the socket, on which the VMM listens, and again for ever",
     set_switch<&DeviceConfig::client>},
    {"socket-mode", Scope::kDevice, ValueKind::kMode, "MODE",
     "permissions of the socket, octal [0660]", set_mode},
    {"socket-owner", Scope::kDevice, ValueKind::kText, "USER",
     "user the socket is given to, name or number",
     set_text<&DeviceConfig::socket_owner, kAccountBytesMax>},
    {"socket-group", Scope::kDevice, ValueKind::kText, "GROUP",
     "group the socket is given to, name or number",
     set_text<&DeviceConfig::socket_group, kAccountBytesMax>},
    {"allow-uid", Scope::kDevice, ValueKind::kNumbers, "UID[,UID]",
     "serve VMMs of these users only, whoever else may open the socket", set_uids},
    {"blk-file", Scope::kDevice, ValueKind::kText, "PATH",
     "the disk: a regular file (raw image) or a block device",
     set_text<&DeviceConfig::blk_file, kFilePathBytesMax>, kForBlk},
    {"read-only", Scope::kDevice, ValueKind::kFlag, "", "the guest cannot write to the disk",
     set_switch<&DeviceConfig::read_only>, kForBlk, "readonly,ro"},
    {"direct", Scope::kDevice, ValueKind::kSwitch, "on|off",
     "bypass the host's page cache (O_DIRECT) [off]", set_switch<&DeviceConfig::direct>, kForBlk},
    {"discard", Scope::kDevice, ValueKind::kSwitch, "on|off",
     "let the guest give back space, where the disk can [on]", set_switch<&DeviceConfig::discard>,
     kForBlk},
    {"write-zeroes", Scope::kDevice, ValueKind::kSwitch, "on|off",
     "let the guest zero ranges without sending zeros [on]",
     set_switch<&DeviceConfig::write_zeroes>, kForBlk},
    {"lock", Scope::kDevice, ValueKind::kSwitch, "on|off",
     "refuse an image that another holds; off: for the destination of a migration [on]",
     set_switch<&DeviceConfig::lock>, kForBlk},
    {"block-size", Scope::kDevice, ValueKind::kNumber, "512|4096",
     "logical block size that the guest sees, in bytes [512]", set_block_size, kForBlk},
    {"serial", Scope::kDevice, ValueKind::kText, "TEXT",
     "serial number that the guest sees, at most 20 characters [the name]", set_serial, kForBlk},
    {"tap-name", Scope::kDevice, ValueKind::kText, "NAME",
     "the tap, opened by us; that may need CAP_NET_ADMIN", set_interface<&DeviceConfig::tap_name>,
     kForNet},
    {"tap-create", Scope::kDevice, ValueKind::kFlag, "",
     "make that tap where there is none; it goes when we end",
     set_switch<&DeviceConfig::tap_create>, kForNet},
    {"tap-fd", Scope::kDevice, ValueKind::kNumbers, "N[,N]",
     "instead: inherited queues of one open tap, one for each pair: needs no right at all",
     set_tap_fds, kForNet},
    {"macvtap", Scope::kDevice, ValueKind::kText, "NAME", "instead: a macvtap, by /dev/tapN",
     set_interface<&DeviceConfig::macvtap>, kForNet},
    {"mac", Scope::kDevice, ValueKind::kText, "ADDRESS",
     "the guest's MAC address [the macvtap's; for a tap, one made from its name]", set_mac,
     kForNet},
    {"mtu", Scope::kDevice, ValueKind::kNumber, "N",
     "largest packet the guest is told to send, 68 to 65535 [the interface's]", set_mtu, kForNet},
    {"offload-csum", Scope::kDevice, ValueKind::kSwitch, "on|off",
     "leave checksums to whoever needs them, both ways; off: no segmentation either [on]",
     set_switch<&DeviceConfig::offload_csum>, kForNet},
    {"offload-tso", Scope::kDevice, ValueKind::kSwitch, "on|off",
     "TCP packets of up to 64 KiB, both ways [on]", set_switch<&DeviceConfig::offload_tso>,
     kForNet},
    {"offload-uso", Scope::kDevice, ValueKind::kSwitch, "on|off",
     "the same for UDP, where the kernel can [on]", set_switch<&DeviceConfig::offload_uso>,
     kForNet},
    {"mrg-rxbuf", Scope::kDevice, ValueKind::kSwitch, "on|off",
     "let a received packet fill several buffers [on]", set_switch<&DeviceConfig::mrg_rxbuf>,
     kForNet},
    {"num-queues", Scope::kDevice, ValueKind::kNumber, "N",
     "most virtqueues, of a network card most pairs of them, 1 to 64 [64]", set_num_queues},
    {"queue-size", Scope::kDevice, ValueKind::kNumber, "N",
     "most entries of a virtqueue: a power of two, 2 to 1024 [1024]", set_queue_size},
    {"packed-rings", Scope::kDevice, ValueKind::kSwitch, "on|off",
     "let the guest's driver choose packed rings [off]", set_switch<&DeviceConfig::packed_rings>},
    {"engine", Scope::kDevice, ValueKind::kText, "auto|io_uring|fallback",
     "how workers move data; auto: io_uring where the host has it [auto]", set_engine},
    {"poll-us", Scope::kDevice, ValueKind::kNumber, "N",
     "poll that many microseconds before sleeping: faster, costs CPU [0]", set_poll},
    {"name", Scope::kDevice, ValueKind::kText, "NAME",
     "what messages call the device [the name of the image or interface]", set_name},
    {"vm-name", Scope::kDevice, ValueKind::kText, "NAME",
     "what the VM's manager calls it, for lists and the audit log", set_vm_name},
    {"vm-uuid", Scope::kDevice, ValueKind::kText, "UUID",
     "the VM's uuid, for the audit log: auvirt --uuid finds the device by it", set_vm_uuid},
    {"on-worker-violation", Scope::kDevice, ValueKind::kText, "stop|restart",
     "what becomes of a queue whose worker did what its jail forbids [stop]", set_on_violation},
    {"tenant", Scope::kDevice, ValueKind::kText, "NAME",
     "whose the device is, for lists and metrics: at most 64 of A-Z a-z 0-9 . _ -", set_tenant},
    {"limit", Scope::kDevice, ValueKind::kLimits, "LIMIT[,LIMIT]",
     "what its guest may use each second, as in iops=1000,bps=50M [as much as there is]",
     set_limits, kForAll, "limits"},
    {"limit-group", Scope::kDevice, ValueKind::kText, "NAME",
     "keep to the limits of that [[group]], too, together with its other devices", set_limit_group},
    {"uid", Scope::kDevice, ValueKind::kNumber, "UID",
     "user id of its sessions and workers, of no other device's [one picked by the image]",
     set_uid},
    {"memory-max", Scope::kDevice, ValueKind::kText, "N[M|G]",
     "most memory of its processes, in a cgroup: the guest's, too; 0: no limit [0]",
     set_memory_max},
    {"cpu-max", Scope::kDevice, ValueKind::kNumber, "PERCENT",
     "most processor time of its processes, of one processor, in a cgroup; 0: no limit [0]",
     set_cpu_max},
    {"pids-max", Scope::kDevice, ValueKind::kNumber, "N",
     "most processes and threads it may have, in a cgroup [what its queues can need]",
     set_pids_max},
    {"cgroup", Scope::kBroker, ValueKind::kText, "auto|off|PATH",
     "cgroup (v2) in which each device gets one; auto: the broker's, where it was delegated [auto]",
     set_cgroup},
    {"uid-range", Scope::kBroker, ValueKind::kText, "FIRST-LAST",
     "user and group ids of devices without a uid of their own [2000000000-2001048575]",
     set_uid_range},
    {"require-posture", Scope::kBroker, ValueKind::kText, "strict|any",
     "strict: do not start unless every layer of the jail holds [any]", set_posture},
    {"core-scheduling", Scope::kBroker, ValueKind::kText, "off|auto|required",
     "never run processes of two VMs on one core at once; required: do not start without [auto]",
     set_core_scheduling},
    {"forensic", Scope::kBroker, ValueKind::kSwitch, "on|off",
     "record the arguments of a forbidden system call before its process is killed [off]",
     set_forensic},
    {"audit-log", Scope::kBroker, ValueKind::kText, "PATH|journal",
     "write what is granted and refused there, as JSON lines in a chain of hashes", set_audit_log},
    {"audit-kernel", Scope::kBroker, ValueKind::kText, "off|resources|all",
     "and to the kernel's audit log; all: that VMs start and end, too [off]", set_audit_kernel},
    {"audit", Scope::kBroker, ValueKind::kText, "required|optional",
     "required: do not start where an audit log cannot be had [optional]", set_audit},
    {"orphans", Scope::kBroker, ValueKind::kText, "keep|end",
     "what becomes of sessions and workers when the broker dies: they go on and wait for the next "
     "one, or end with it [keep]",
     set_orphans},
    {"takeover-socket", Scope::kBroker, ValueKind::kText, "PATH",
     "where the next broker finds what is kept for it [the operator's socket, or the first "
     "device's, and '.takeover']",
     set_broker_text<&BrokerConfig::takeover_socket, kSocketPathBytesMax>},
    {"log-level", Scope::kBroker, ValueKind::kText, "LEVEL",
     "trace, debug, info, warn, error or off [info]", set_log_level},
    {"stats-interval", Scope::kBroker, ValueKind::kNumber, "S",
     "log the counters of every device each S seconds; 0: never [0]", set_stats_interval},
    {"control-socket", Scope::kBroker, ValueKind::kText, "PATH|off",
     "the operator's socket [serve: /run/bulkhead/control.sock where that can be; else off]",
     set_control_socket},
    {"control-group", Scope::kBroker, ValueKind::kText, "GROUP",
     "members may change what is served, as root and the broker's user may",
     set_broker_text<&BrokerConfig::control_group, kAccountBytesMax>},
    {"control-read-group", Scope::kBroker, ValueKind::kText, "GROUP",
     "members may look at what is served",
     set_broker_text<&BrokerConfig::control_read_group, kAccountBytesMax>},
    {"state-dir", Scope::kBroker, ValueKind::kText, "PATH",
     "keep what operators add, limit, stop and drain there, for the next start [nothing is kept]",
     set_broker_text<&BrokerConfig::state_dir, kFilePathBytesMax>},
};

std::string dashed(std::string_view name) {
  std::string out(name);
  std::replace(out.begin(), out.end(), '_', '-');
  return out;
}

bool has_alias(const Setting& setting, std::string_view name) {
  std::string_view rest = setting.aliases;
  while (!rest.empty()) {
    const std::size_t comma = rest.find(',');
    if (rest.substr(0, comma) == name) return true;
    rest.remove_prefix(comma == std::string_view::npos ? rest.size() : comma + 1);
  }
  return false;
}

// The image's base name without its extension, or the interface, of what a name may have.
std::string default_name(const DeviceConfig& device) {
  std::string name = std::filesystem::path(device.blk_file).stem().string();
  if (device.kind == common::DeviceKind::kNet) name = device.tap_name + device.macvtap;
  if (!device.tap_fds.empty()) name = "net-fd" + std::to_string(device.tap_fds.front());
  name.resize(std::min(name.size(), kNameBytesMax));
  std::replace_if(
      name.begin(), name.end(), [](char character) { return !is_name_character(character); }, '-');
  name.erase(0, std::min(name.find_first_not_of(".-"), name.size()));
  if (!name.empty()) return name;
  return device.kind == common::DeviceKind::kBlk ? "disk" : "net";
}

// What a network card is connected to, and what must go with it.
std::vector<std::string> net_errors(const DeviceConfig& device, Spelling spelling) {
  const auto name = [&](std::string_view setting) { return spelled(setting, spelling); };
  std::vector<std::string> errors;
  const int given = (device.tap_name.empty() ? 0 : 1) + (device.tap_fds.empty() ? 0 : 1) +
                    (device.macvtap.empty() ? 0 : 1);
  const std::string all = name("tap-name") + ", " + name("tap-fd") + " and " + name("macvtap");
  if (given == 0) {
    errors.push_back("the network card is connected to nothing; give one of " + all);
  } else if (given > 1) {
    errors.push_back(all + " exclude each other; give one of them");
  }
  if (device.tap_create && device.tap_name.empty()) {
    errors.push_back(name("tap-create") + " needs " + name("tap-name") + ": what to call the tap");
  }
  if (!device.tap_fds.empty() && device.num_queues.value_or(static_cast<std::uint32_t>(
                                     device.tap_fds.size())) != device.tap_fds.size()) {
    errors.push_back(name("num-queues") + " is " + std::to_string(*device.num_queues) + ", and " +
                     name("tap-fd") + " names " + std::to_string(device.tap_fds.size()) +
                     " queues; give one descriptor for each pair, or leave " + name("num-queues") +
                     " out");
  }
  if (std::find(device.tap_fds.begin(), device.tap_fds.end(), device.fd) != device.tap_fds.end()) {
    errors.push_back(name("fd") + " and " + name("tap-fd") +
                     " name the same descriptor; one is a socket, the other a tap");
  }
  return errors;
}

// Without "." and "..", as far as the text says: what links do is found out by the lock on the
// disk.
std::string plain_path(const std::string& path) {
  return std::filesystem::path(path).lexically_normal().string();
}

}  // namespace

Answer<std::string> parse_name(std::string_view value) {
  const bool legal = !value.empty() && value.size() <= kNameBytesMax &&
                     std::all_of(value.begin(), value.end(), is_name_character);
  if (legal) return std::string(value);
  return must_be("1 to " + std::to_string(kNameBytesMax) + " of the characters A-Z a-z 0-9 . _ -",
                 value);
}

std::span<const Setting> all_settings() { return kSettings; }

const Setting* find_setting(std::string_view name) {
  const std::string wanted = dashed(name);
  for (const Setting& setting : kSettings) {
    if (setting.name == wanted || has_alias(setting, wanted)) return &setting;
  }
  return nullptr;
}

std::string_view kind_name(common::DeviceKind kind) {
  return kind == common::DeviceKind::kBlk ? "blk" : "net";
}

std::string_view suggest_setting(std::string_view name) {
  std::vector<std::string_view> names;
  for (const Setting& setting : kSettings) names.push_back(setting.name);
  return nearest(dashed(name), names);
}

std::string spelled(std::string_view name, Spelling spelling) {
  if (spelling == Spelling::kCommandLine) return "--" + std::string(name);
  std::string out(name);
  std::replace(out.begin(), out.end(), '-', '_');
  return out;
}

std::vector<std::string> complete_device(DeviceConfig& device, Spelling spelling) {
  const auto name = [&](std::string_view setting) { return spelled(setting, spelling); };
  std::vector<std::string> errors;
  const bool has_path = !device.socket_path.empty();
  const bool has_fd = device.fd >= 0;
  if (has_path && has_fd) {
    errors.push_back(name("socket-path") + " and " + name("fd") +
                     " exclude each other; give the one that the VMM uses");
  } else if (!has_path && !has_fd) {
    errors.push_back("the device has no socket; give " + name("socket-path") + " (or " +
                     name("fd") + ")");
  }
  if (device.client && !has_path) {
    errors.push_back(name("client") + " needs " + name("socket-path") +
                     ": the socket on which the VMM listens");
  }
  const bool makes_socket = has_path && !device.client;
  if (!makes_socket && !(device.socket_owner.empty() && device.socket_group.empty())) {
    errors.push_back(name("socket-owner") + " and " + name("socket-group") +
                     " are for a socket that Bulkhead makes; leave them out");
  }
  if (device.kind == common::DeviceKind::kNet) {
    for (std::string& error : net_errors(device, spelling)) errors.push_back(std::move(error));
  } else if (device.blk_file.empty()) {
    errors.push_back("the device has no disk; give " + name("blk-file"));
  }
  if (device.name.empty()) device.name = default_name(device);
  return errors;
}

std::vector<Claim> claims_of(const DeviceConfig& device) {
  std::vector<Claim> claims;
  claims.push_back({"name", device.name});
  if (!device.socket_path.empty()) {
    claims.push_back({"socket-path", plain_path(device.socket_path)});
  }
  if (device.fd >= 0) claims.push_back({"fd", std::to_string(device.fd)});
  if (!device.blk_file.empty()) {
    claims.push_back({"blk-file", plain_path(device.blk_file), device.read_only});
  }
  if (!device.tap_name.empty()) claims.push_back({"tap-name", device.tap_name});
  if (!device.macvtap.empty()) claims.push_back({"macvtap", device.macvtap});
  for (const int fd : device.tap_fds) claims.push_back({"tap-fd", std::to_string(fd)});
  if (device.uid) claims.push_back({"uid", std::to_string(*device.uid)});
  return claims;
}

}  // namespace broker
