// broker/open_disk.h: from a path to a checked, locked, open disk.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <vector>

#include "broker/config.h"
#include "common/fd.h"

namespace broker {

struct Disk {
  common::Fd file;      // O_DIRECT where `direct`; opened O_RDONLY where `read_only`.
  common::Fd buffered;  // Only where direct I/O asks for more than 512-byte offsets.
  std::string path;     // As configured.
  std::uint64_t capacity_sectors =
      0;                             // Whole blocks of the device's block size, in 512-byte units.
  std::uint32_t unserved_bytes = 0;  // At the end of the file, less than a block: worth a warning.
  bool is_short = false;             // It has shrunk below that since.
  bool block_device = false;
  bool read_only = false;
  bool direct = false;
  // A single write can be made durable (O_DSYNC). Not by asynchronous direct writes on FUSE, whose
  // completion the kernel tells without the flush that belongs to it.
  bool durable_writes = true;
  bool discard = false;  // Offered: configured, writable, and the file can.
  bool write_zeroes = false;
  std::uint32_t block_size = 512;
  std::uint32_t physical_block_bytes = 512;
  std::uint32_t optimal_io_bytes = 0;
  std::uint32_t memory_alignment = 1;  // Bytes, for `file`; 1 where not direct.
  std::uint32_t offset_alignment = 1;
  dev_t io_device = 0;  // The block device itself, or the one that has its file system.
  dev_t device = 0;     // Identity of what was opened (stat).
  ino_t inode = 0;
};

// Opens `config.blk_file`: openat2 without magic links; a regular file or a block device; an OFD
// lock (write lock unless read-only) so that no image is served twice; size at least one block.
// `kept`: as an earlier broker has opened it, under its lock; then that is used, if it is the same
// disk opened in the same way.
[[nodiscard]] Answer<Disk> open_disk(const DeviceConfig& config, std::vector<common::Fd> kept = {});

// The same without changing or locking anything: opened for reading, and what writing would need is
// asked for. `locked_by_us`: that it is locked is no error.
[[nodiscard]] Answer<Disk> inspect_disk(const DeviceConfig& config, bool locked_by_us);

// The size of what is open, in bytes, now. It may have been changed by others.
[[nodiscard]] common::Result<std::uint64_t> disk_bytes(common::FdRef file) noexcept;

}  // namespace broker
