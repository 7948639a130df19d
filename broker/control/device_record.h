// broker/control/device_record.h: a device's settings as a fixed-size part of a message.
//
// Not trusted: a record that a client has sent. Each of its values goes through the same checks as
// one of the command line; what two devices must not share is the fleet's to refuse.
#pragma once

#include <array>
#include <cstdint>

#include "broker/config.h"
#include "broker/control/messages.h"

namespace broker::control {

struct DeviceRecord {
  std::uint32_t type = 0;  // common::DeviceKind.
  std::uint32_t client = 0;
  std::uint32_t socket_mode = 0;
  std::uint32_t read_only = 0;
  std::uint32_t direct = 0;
  std::uint32_t discard = 0;
  std::uint32_t write_zeroes = 0;
  std::uint32_t lock = 0;
  std::uint32_t block_size = 0;
  std::uint32_t tap_create = 0;
  std::uint32_t mtu = 0;  // 0 here and in the next three: not given.
  std::uint32_t num_queues = 0;
  std::uint32_t queue_size = 0;
  std::uint32_t uid = 0;
  std::uint32_t offload_csum = 0;
  std::uint32_t offload_tso = 0;
  std::uint32_t offload_uso = 0;
  std::uint32_t mrg_rxbuf = 0;
  std::uint32_t engine = 0;  // EngineChoice.
  std::uint32_t poll_us = 0;
  std::uint32_t restart_after_violation = 0;
  std::uint32_t memory_max_mib = 0;
  std::uint32_t cpu_max_percent = 0;
  std::uint32_t pids_max = 0;  // 0: not given.
  std::uint32_t reserved = 0;
  std::uint32_t allow_uid_count = 0;
  // Of the descriptors that come with the record: first the socket, then the tap's queues. Of a
  // record that goes to a client: how many the device was given.
  std::uint32_t socket_fds = 0;
  std::uint32_t tap_fds = 0;
  std::uint32_t has_mac = 0;
  std::uint32_t packed_rings = 0;
  RateRecord limits;
  std::array<std::uint32_t, 64> allow_uids{};
  std::array<std::uint8_t, 8> mac{};  // The last two are zeros.
  Name name{};
  Name tenant{};
  Name limit_group{};
  Text<256> vm_name{};
  Text<40> vm_uuid{};
  Text<112> socket_path{};
  Text<256> socket_owner{};
  Text<256> socket_group{};
  Text<24> serial{};
  Text<16> tap_name{};
  Text<16> macvtap{};
  Text<4096> blk_file{};
};

// Descriptors are counted, not numbered.
[[nodiscard]] DeviceRecord record_of(const DeviceConfig& device);

// Complete but for descriptors, which the caller has to put in place. An error is one sentence.
[[nodiscard]] Answer<DeviceConfig> config_of(const DeviceRecord& record);

// Adds a device. With as many descriptors as its record says.
struct AddDevice {
  static constexpr std::uint32_t kKind = 0x312;
  std::uint32_t kind = kKind;
  std::uint32_t version = kVersion;
  std::uint32_t replace = 0;    // 1: in place of the device of that name, if there is one.
  std::uint32_t force = 0;      // 1: though a VMM uses that.
  std::uint32_t from_file = 0;  // 1: the configuration lists it, so it need not be kept.
  std::uint32_t unused = 0;
  DeviceRecord device;
};
static_assert(Message<AddDevice>);

struct SettingsReply {
  static constexpr std::uint32_t kKind = 0x383;
  std::uint32_t kind = kKind;
  std::uint32_t version = kVersion;
  DeviceRecord device;
};
static_assert(Message<SettingsReply>);

}  // namespace broker::control
