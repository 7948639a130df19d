// broker/blk_config.h: a block device as the guest sees it (virtio 1.2, 5.2) and as its workers are
// told, from an open disk. Everything that is only true of block devices is in this file.
#pragma once

#include <cstdint>
#include <string>

#include "broker/config.h"
#include "broker/device_model.h"
#include "broker/open_disk.h"
#include "common/device_kind.h"
#include "common/ipc/session_broker.h"
#include "common/ipc/worker_messages.h"
#include "common/virtio_blk_wire.h"

namespace broker {

// Virtio feature bits offered; the session adds vhost-user's own.
[[nodiscard]] std::uint64_t blk_features(const Disk& disk, const DeviceConfig& config);

// The configuration space, 5.2.4.
[[nodiscard]] common::blk::WireConfig blk_config_space(const Disk& disk,
                                                       const DeviceConfig& config);

[[nodiscard]] common::ipc::SessionStart blk_session_start(const Disk& disk,
                                                          const DeviceConfig& config);

[[nodiscard]] common::ipc::BlkStart blk_worker_start(const Disk& disk, const DeviceConfig& config,
                                                     common::EngineKind engine,
                                                     std::uint32_t tsc_per_us);

// "10.0 GiB".
[[nodiscard]] std::string size_text(std::uint64_t bytes);

// The disk lives as long as the model. `tsc_per_us` is asked for when a worker starts.
[[nodiscard]] DeviceModel make_blk_model(Disk disk, const DeviceConfig& config,
                                         std::function<std::uint32_t()> tsc_per_us);

}  // namespace broker
