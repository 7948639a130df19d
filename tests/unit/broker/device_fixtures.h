// tests/unit/broker/device_fixtures.h: devices to write down, carry over and compare.
#pragma once

#include <string>

#include "broker/config.h"

namespace broker {

inline DeviceConfig plain_disk(const std::string& name) {
  DeviceConfig device;
  device.name = name;
  device.socket_path = "/" + name + ".sock";
  device.blk_file = "/" + name;
  return device;
}

// Every setting of a disk that can be written down, none as it is by default, and with texts that
// must be escaped. A socket that the VMM makes has no owner of ours.
inline DeviceConfig full_disk() {
  DeviceConfig device;
  device.name = "vda";
  device.socket_path = "/run/a \"b\" \\.sock";
  device.socket_mode = 0600;
  device.client = true;
  device.allow_uids = {0, 107};
  device.blk_file = "/img/\x7f\n.img";
  device.read_only = true;
  device.direct = true;
  device.discard = false;
  device.write_zeroes = false;
  device.block_size = 4096;
  device.serial = "S 1";
  device.lock = false;
  device.num_queues = 4;
  device.queue_size = 128;
  device.packed_rings = true;
  device.engine = EngineChoice::kFallback;
  device.poll_us = 20;
  device.restart_after_violation = true;
  device.tenant = "blue";
  device.limits.at(common::Rate::kOperations) = {1000, 0};
  device.limits.at(common::Rate::kWriteBytes) = {50'000'000, 1'000'000};
  device.limit_group = "web";
  device.vm_name = "web 1";
  device.vm_uuid = "6a2f41a3-c54c-fce8-32d2-0324e1c32e22";
  device.uid = 4000;
  device.memory_max_mib = 512;
  device.cpu_max_percent = 150;
  device.pids_max = 40;
  return device;
}

// What a card has beside that.
inline DeviceConfig full_card() {
  DeviceConfig device;
  device.kind = common::DeviceKind::kNet;
  device.name = "eth0";
  device.socket_path = "/run/eth0.sock";
  device.socket_owner = "root";
  device.socket_group = "kvm";
  device.tap_name = "tap0";
  device.tap_create = true;
  device.mac = MacAddress{0x52, 0x54, 0, 0x12, 0x34, 0x56};
  device.mtu = 9000;
  device.offload_csum = false;
  device.offload_tso = false;
  device.offload_uso = false;
  device.mrg_rxbuf = false;
  device.engine = EngineChoice::kIoUring;
  return device;
}

}  // namespace broker
