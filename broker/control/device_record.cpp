#include "broker/control/device_record.h"

#include <algorithm>
#include <string>
#include <string_view>

#include "broker/control/rate_record.h"
#include "broker/control/wire.h"
#include "broker/setting_values.h"
#include "broker/settings.h"

namespace broker::control {
namespace {

using common::fail;

// Puts one value after the other into a device, through the checks of the table of settings.
class Filler {
 public:
  explicit Filler(common::DeviceKind kind) { device_.kind = kind; }

  template <std::size_t N>
  void text(std::string_view setting, const Text<N>& room) {
    const auto value = text_of(room);
    if (!value) return refuse(setting, "is no text");
    if (!value->empty()) set(setting, *value);
  }
  void number(std::string_view setting, std::uint64_t value) {
    set(setting, std::to_string(value));
  }
  void number_if_any(std::string_view setting, std::uint64_t value) {
    if (value != 0) number(setting, value);
  }
  void flag(std::string_view setting, std::uint32_t value) {
    if (value > 1) return refuse(setting, "is neither on nor off");
    set(setting, value == 1 ? "on" : "off");
  }
  void set(std::string_view name, std::string_view value) {
    const Setting* setting = find_setting(name);
    if (!setting->is_for(device_.kind)) return;
    BrokerConfig unused;
    if (const auto stored = setting->set(Destination{unused, device_}, value); !stored) {
      refuse(name, stored.error());
    }
  }
  void refuse(std::string_view setting, const std::string& why) {
    if (error_.empty()) error_ = spelled(setting, Spelling::kFile) + " " + why;
  }

  [[nodiscard]] Answer<DeviceConfig> finish() {
    if (!error_.empty()) return fail(std::move(error_));
    return std::move(device_);
  }

 private:
  DeviceConfig device_;
  std::string error_;
};

constexpr std::array<std::string_view, 3> kEngines = {"auto", "io_uring", "fallback"};

void fill_numbers(Filler& filler, const DeviceRecord& record) {
  filler.flag("client", record.client);
  if (record.socket_mode > 0777) return filler.refuse("socket-mode", "must be at most 0777");
  std::string digits;
  for (int shift = 9; shift >= 0; shift -= 3) {
    digits += static_cast<char>('0' + (record.socket_mode >> shift & 7));
  }
  filler.set("socket-mode", digits);
  filler.flag("read-only", record.read_only);
  filler.flag("direct", record.direct);
  filler.flag("discard", record.discard);
  filler.flag("write-zeroes", record.write_zeroes);
  filler.flag("lock", record.lock);
  filler.number("block-size", record.block_size);
  filler.flag("tap-create", record.tap_create);
  filler.number_if_any("mtu", record.mtu);
  filler.number_if_any("num-queues", record.num_queues);
  filler.number_if_any("queue-size", record.queue_size);
  filler.flag("packed-rings", record.packed_rings);
  filler.number_if_any("uid", record.uid);
  filler.flag("offload-csum", record.offload_csum);
  filler.flag("offload-tso", record.offload_tso);
  filler.flag("offload-uso", record.offload_uso);
  filler.flag("mrg-rxbuf", record.mrg_rxbuf);
  filler.number("poll-us", record.poll_us);
  filler.set("memory-max",
             record.memory_max_mib == 0 ? "0" : std::to_string(record.memory_max_mib) + "M");
  filler.number("cpu-max", record.cpu_max_percent);
  filler.number_if_any("pids-max", record.pids_max);
  if (record.engine >= kEngines.size()) return filler.refuse("engine", "is none");
  filler.set("engine", kEngines[record.engine]);
  if (record.restart_after_violation > 1) return filler.refuse("on-worker-violation", "is none");
  filler.set("on-worker-violation", record.restart_after_violation == 1 ? "restart" : "stop");
}

void fill_lists(Filler& filler, const DeviceRecord& record) {
  if (record.allow_uid_count > record.allow_uids.size()) {
    return filler.refuse("allow-uid", "names too many users");
  }
  std::string uids;
  for (std::uint32_t i = 0; i < record.allow_uid_count; ++i) {
    uids += (i == 0 ? "" : ",") + std::to_string(record.allow_uids[i]);
  }
  if (!uids.empty()) filler.set("allow-uid", uids);
  if (record.has_mac > 1 || record.mac[6] != 0 || record.mac[7] != 0) {
    return filler.refuse("mac", "is none");
  }
  if (record.has_mac == 0) return;
  MacAddress mac{};
  std::copy_n(record.mac.begin(), mac.size(), mac.begin());
  filler.set("mac", mac_text(mac));
}

void fill_texts(Filler& filler, const DeviceRecord& record) {
  filler.text("name", record.name);
  filler.text("tenant", record.tenant);
  filler.text("limit-group", record.limit_group);
  filler.text("vm-name", record.vm_name);
  filler.text("vm-uuid", record.vm_uuid);
  filler.text("socket-path", record.socket_path);
  filler.text("socket-owner", record.socket_owner);
  filler.text("socket-group", record.socket_group);
  filler.text("serial", record.serial);
  filler.text("tap-name", record.tap_name);
  filler.text("macvtap", record.macvtap);
  filler.text("blk-file", record.blk_file);
}

bool is_relative(const std::string& path) { return !path.empty() && path.front() != '/'; }

}  // namespace

DeviceRecord record_of(const DeviceConfig& device) {
  DeviceRecord record;
  record.type = static_cast<std::uint32_t>(device.kind);
  record.client = device.client ? 1 : 0;
  record.socket_mode = device.socket_mode;
  record.read_only = device.read_only ? 1 : 0;
  record.direct = device.direct ? 1 : 0;
  record.discard = device.discard ? 1 : 0;
  record.write_zeroes = device.write_zeroes ? 1 : 0;
  record.lock = device.lock ? 1 : 0;
  record.block_size = device.block_size;
  record.tap_create = device.tap_create ? 1 : 0;
  record.mtu = device.mtu.value_or(0);
  record.num_queues = device.num_queues.value_or(0);
  record.queue_size = device.queue_size.value_or(0);
  record.packed_rings = device.packed_rings ? 1 : 0;
  record.uid = device.uid.value_or(0);
  record.offload_csum = device.offload_csum ? 1 : 0;
  record.offload_tso = device.offload_tso ? 1 : 0;
  record.offload_uso = device.offload_uso ? 1 : 0;
  record.mrg_rxbuf = device.mrg_rxbuf ? 1 : 0;
  record.engine = static_cast<std::uint32_t>(device.engine);
  record.poll_us = device.poll_us;
  record.memory_max_mib = device.memory_max_mib;
  record.cpu_max_percent = device.cpu_max_percent;
  record.pids_max = device.pids_max.value_or(0);
  record.restart_after_violation = device.restart_after_violation ? 1 : 0;
  record.allow_uid_count = static_cast<std::uint32_t>(device.allow_uids.size());
  std::copy(device.allow_uids.begin(), device.allow_uids.end(), record.allow_uids.begin());
  record.socket_fds = device.fd >= 0 ? 1 : 0;
  record.tap_fds = static_cast<std::uint32_t>(device.tap_fds.size());
  record.has_mac = device.mac ? 1 : 0;
  if (device.mac) std::copy(device.mac->begin(), device.mac->end(), record.mac.begin());
  put_text(record.name, device.name);
  put_text(record.tenant, device.tenant);
  put_text(record.limit_group, device.limit_group);
  record.limits = rates_of(device.limits);
  put_text(record.vm_name, device.vm_name);
  put_text(record.vm_uuid, device.vm_uuid);
  put_text(record.socket_path, device.socket_path);
  put_text(record.socket_owner, device.socket_owner);
  put_text(record.socket_group, device.socket_group);
  put_text(record.serial, device.serial);
  put_text(record.tap_name, device.tap_name);
  put_text(record.macvtap, device.macvtap);
  put_text(record.blk_file, device.blk_file);
  return record;
}

Answer<DeviceConfig> config_of(const DeviceRecord& record) {
  const auto kind = static_cast<common::DeviceKind>(record.type);
  if (kind != common::DeviceKind::kBlk && kind != common::DeviceKind::kNet) {
    return fail(std::string("the device is of no type that there is"));
  }
  Filler filler(kind);
  fill_texts(filler, record);
  fill_numbers(filler, record);
  fill_lists(filler, record);
  TRY_LET(const DeviceLimits limits, limits_of(record.limits, kind));
  TRY_LET(DeviceConfig device, filler.finish());
  device.limits = limits;
  if (device.name.empty()) return fail(std::string("the device has no name"));
  if (is_relative(device.socket_path) || is_relative(device.blk_file)) {
    return fail(std::string("socket_path and blk_file must begin with '/'"));
  }
  if (record.socket_fds > 1 || (record.tap_fds != 0 && device.kind == common::DeviceKind::kBlk)) {
    return fail(std::string("the device has more descriptors than it can use"));
  }
  return device;
}

}  // namespace broker::control
