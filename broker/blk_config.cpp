#include "broker/blk_config.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstdio>
#include <cstring>
#include <memory>
#include <span>
#include <utility>

#include "broker/open_file.h"
#include "common/checked.h"
#include "common/virtqueue_wire.h"
#include "policy/worker_blk.h"

namespace broker {
namespace {

namespace blk = common::blk;
namespace ipc = common::ipc;
using common::Le16;
using common::Le32;

constexpr std::uint32_t kSectorBytes = 512;

std::uint32_t queues_of(const DeviceConfig& config) {
  return config.num_queues.value_or(common::kBlkQueuesMax);
}

// 5.2.5.2: without indirect descriptors a request must fit the ring, header and status included.
std::uint32_t segments_max(const DeviceConfig& config) {
  const std::uint32_t size = queue_size_of(config);
  return std::min(blk::kSegMax, size > 2 ? size - 2 : 1);
}

// 5.2.5: physical_block_exp is the number of logical blocks in a physical one, as a power of two.
std::uint8_t physical_block_exponent(const Disk& disk) {
  const std::uint32_t ratio = std::max(disk.physical_block_bytes / disk.block_size, 1U);
  return static_cast<std::uint8_t>(std::bit_width(ratio) - 1);
}

void fill_topology(blk::WireConfig& space, const Disk& disk) {
  const std::uint32_t physical = std::max(disk.physical_block_bytes, disk.block_size);
  space.blk_size = Le32(disk.block_size);
  space.physical_block_exp = physical_block_exponent(disk);
  space.min_io_size = Le16(
      static_cast<std::uint16_t>(std::min(physical / disk.block_size, std::uint32_t{UINT16_MAX})));
  space.opt_io_size = Le32(disk.optimal_io_bytes / disk.block_size);
}

void fill_ranges(blk::WireConfig& space, const Disk& disk) {
  if (disk.discard) {
    const std::uint32_t unit = std::max(disk.physical_block_bytes, disk.block_size);
    space.max_discard_sectors = Le32(blk::kRangeSectorsMax);
    space.max_discard_seg = Le32(blk::kRangeSegmentsMax);
    space.discard_sector_alignment = Le32(unit / kSectorBytes);
  }
  if (disk.write_zeroes) {
    space.max_write_zeroes_sectors = Le32(blk::kRangeSectorsMax);
    space.max_write_zeroes_seg = Le32(blk::kRangeSegmentsMax);
    // What the operator has switched off as DISCARD must not come back as UNMAP.
    space.write_zeroes_may_unmap = disk.discard ? 1 : 0;
  }
}

std::string blk_summary(const Disk& disk, const DeviceConfig& config) {
  const std::uint32_t queues = queues_of(config);
  return disk.path + ", " + size_text(disk.capacity_sectors * kSectorBytes) + ", " +
         (disk.read_only ? "read-only" : "read-write") + ", direct " +
         (disk.direct ? "on" : "off") + ", blocks of " + std::to_string(disk.block_size) +
         ", up to " + std::to_string(queues) + (queues == 1 ? " queue of " : " queues of ") +
         std::to_string(queue_size_of(config));
}

const policy::Profile& profile_of(const Disk& disk, common::EngineKind engine) {
  if (engine == common::EngineKind::kIoUring) return policy::kWorkerBlkUring;
  return disk.direct ? policy::kWorkerBlkFallbackDirect : policy::kWorkerBlkFallback;
}

WorkerRecipe blk_recipe(const Disk& disk, const DeviceConfig& config, common::EngineKind engine,
                        std::uint32_t tsc_per_us) {
  const ipc::BlkStart start = blk_worker_start(disk, config, engine, tsc_per_us);
  const auto bytes = std::as_bytes(std::span(&start, 1));
  WorkerRecipe recipe;
  recipe.profile = &profile_of(disk, engine);
  recipe.engine = engine;
  recipe.ticks_per_us = tsc_per_us;
  recipe.start_message.assign(bytes.begin(), bytes.end());
  // The same open file for every worker, and so under the same lock.
  recipe.descriptors.push_back({disk.file.ref(), static_cast<int>(ipc::WorkerFd::kDevice)});
  if (disk.buffered.valid()) {
    recipe.descriptors.push_back(
        {disk.buffered.ref(), static_cast<int>(ipc::WorkerFd::kDeviceBuffered)});
  }
  return recipe;
}

// A disk that has grown is told to the guest. One that has shrunk keeps its size for the guest,
// which has put things there: reads and writes beyond its end fail, until it has its size back.
DeviceModel::Change look_at_size(Disk& disk, const DeviceConfig& config) {
  const auto bytes = disk_bytes(disk.file.ref());
  if (!bytes) return {};  // What is wrong with it, the workers will find out.
  const std::uint64_t now =
      common::round_down(*bytes, std::uint64_t{disk.block_size}) / kSectorBytes;
  const std::uint64_t told = disk.capacity_sectors;
  const bool was_short = std::exchange(disk.is_short, now < told);
  const std::string before = size_text(told * kSectorBytes);
  if (now > told) {
    disk.capacity_sectors = now;
    return {disk.path + " has grown from " + before + " to " + size_text(now * kSectorBytes), false,
            blk_session_start(disk, config)};
  }
  if (disk.is_short && !was_short) {
    return {disk.path + " has shrunk to " + size_text(*bytes) + ", while the guest was told " +
                before + ": what lies beyond is lost, and reading it fails; give it its size back",
            true,
            {}};
  }
  if (was_short && !disk.is_short) return {disk.path + " has its " + before + " again", false, {}};
  return {};
}

// Closing is not enough: the kernel lets go of a ring's files some time after its worker has ended,
// and until then a broker that is started anew would find the disk in use.
void unlock(common::FdRef file) {
  struct flock lock {};
  lock.l_type = F_UNLCK;
  lock.l_whence = SEEK_SET;
  if (file.valid()) (void)::fcntl(file.number, F_OFD_SETLK, &lock);
}

}  // namespace

std::uint64_t blk_features(const Disk& disk, const DeviceConfig& config) {
  std::uint64_t bits = common::kFeatureVersion1 | common::kFeatureIndirectDesc |
                       common::kFeatureEventIdx | blk::kFeatureSizeMax | blk::kFeatureSegMax |
                       blk::kFeatureBlkSize | blk::kFeatureFlush | blk::kFeatureTopology;
  if (config.packed_rings) bits |= common::kFeatureRingPacked;
  if (disk.durable_writes) bits |= blk::kFeatureConfigWce;
  if (disk.read_only) bits |= blk::kFeatureReadOnly;
  if (queues_of(config) > 1) bits |= blk::kFeatureMq;
  if (disk.discard) bits |= blk::kFeatureDiscard;
  if (disk.write_zeroes) bits |= blk::kFeatureWriteZeroes;
  return bits;
}

blk::WireConfig blk_config_space(const Disk& disk, const DeviceConfig& config) {
  blk::WireConfig space{};
  space.capacity_sectors_low = Le32(static_cast<std::uint32_t>(disk.capacity_sectors));
  space.capacity_sectors_high = Le32(static_cast<std::uint32_t>(disk.capacity_sectors >> 32));
  space.size_max = Le32(blk::kSizeMax);
  space.seg_max = Le32(segments_max(config));
  space.wce = 1;  // 5.2.5: writeback until the driver says otherwise.
  space.num_queues = Le16(static_cast<std::uint16_t>(queues_of(config)));
  fill_topology(space, disk);
  fill_ranges(space, disk);
  return space;
}

ipc::SessionStart blk_session_start(const Disk& disk, const DeviceConfig& config) {
  const blk::WireConfig space = blk_config_space(disk, config);
  ipc::SessionStart start{};
  start.kind = ipc::SessionStart::kKind;
  start.device_kind = static_cast<std::uint32_t>(common::DeviceKind::kBlk);
  start.device_features = blk_features(disk, config);
  start.queues_max = queues_of(config);
  start.queue_size_max = queue_size_of(config);
  start.config_bytes = sizeof(space);
  start.writable_offset = blk::kConfigWceOffset;
  start.writable_bytes = 1;
  // 5.2.5.2: writeback is 0 for a driver that takes CONFIG_WCE without FLUSH.
  start.writable_needs = blk::kFeatureFlush;
  std::memcpy(start.config.data(), &space, sizeof(space));
  return start;
}

ipc::BlkStart blk_worker_start(const Disk& disk, const DeviceConfig& config,
                               common::EngineKind engine, std::uint32_t tsc_per_us) {
  ipc::BlkStart start{};
  start.kind = ipc::BlkStart::kKind;
  start.engine = static_cast<std::uint32_t>(engine);
  start.capacity_sectors = disk.capacity_sectors;
  start.read_only = disk.read_only ? 1 : 0;
  start.direct = disk.direct ? 1 : 0;
  start.memory_alignment = disk.memory_alignment;
  start.offset_alignment = disk.offset_alignment;
  start.has_buffered = disk.buffered.valid() ? 1 : 0;
  start.discard = disk.discard ? 1 : 0;
  start.write_zeroes = disk.write_zeroes ? 1 : 0;
  start.block_device = disk.block_device ? 1 : 0;
  start.poll_us = config.poll_us;
  start.tsc_per_us = tsc_per_us;
  // 5.2.6: NUL-padded, and not terminated where it fills all of it.
  const std::string& serial = config.serial.empty() ? config.name : config.serial;
  std::copy_n(serial.begin(), std::min(serial.size(), start.serial.size()), start.serial.begin());
  return start;
}

std::string size_text(std::uint64_t bytes) {
  constexpr std::array<const char*, 6> kUnits = {"KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
  double value = static_cast<double>(bytes) / 1024;
  std::size_t unit = 0;
  while (value >= 1024 && unit + 1 < kUnits.size()) {
    value /= 1024;
    ++unit;
  }
  std::array<char, 32> text{};
  std::snprintf(text.data(), text.size(), "%.1f %s", value, kUnits[unit]);
  return text.data();
}

DeviceModel make_blk_model(Disk disk, const DeviceConfig& config,
                           std::function<std::uint32_t()> tsc_per_us) {
  DeviceModel model;
  model.kind = common::DeviceKind::kBlk;
  model.summary = blk_summary(disk, config);
  model.session_start = blk_session_start(disk, config);
  model.io_device = disk.io_device;
  model.backing_device = disk.device;
  model.backing_inode = disk.inode;
  model.backing = {.path = path_of(disk.file.ref()),
                   .interface = {},
                   .mac = {},
                   .read_only = disk.read_only,
                   .rdev = rdev_of(disk.file.ref())};
  // Shared, since std::function copies what it holds; in truth the model owns it.
  const auto shared = std::make_shared<Disk>(std::move(disk));
  model.worker_profiles = [shared](common::EngineKind engine) {
    return std::vector<const policy::Profile*>{&profile_of(*shared, engine)};
  };
  model.worker_recipe = [shared, config, tsc_per_us = std::move(tsc_per_us)](
                            std::uint32_t,
                            common::EngineKind engine) -> common::Result<WorkerRecipe> {
    return blk_recipe(*shared, config, engine, tsc_per_us());
  };
  model.look_for_change = [shared, config] { return look_at_size(*shared, config); };
  model.files = [shared] {
    std::vector<common::FdRef> files = {shared->file.ref()};
    if (shared->buffered.valid()) files.push_back(shared->buffered.ref());
    return files;
  };
  model.release = [shared] {
    unlock(shared->file.ref());
    unlock(shared->buffered.ref());
  };
  return model;
}

}  // namespace broker
