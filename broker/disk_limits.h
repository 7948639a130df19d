// broker/disk_limits.h: what an open disk can do and asks for, from the kernel's word about it.
// Reads no byte of the disk: a guest wrote those.
#pragma once

#include <sys/stat.h>

#include <cstdint>

#include "broker/config.h"
#include "common/fd.h"

namespace broker {

struct Alignment {
  std::uint32_t memory = 1;  // Bytes, of buffers.
  std::uint32_t offset = 1;  // Bytes, of offsets and lengths.
};

// Of O_DIRECT on `file`. An error where the file cannot do that at all.
[[nodiscard]] Answer<Alignment> direct_alignment(common::FdRef file, const struct stat& status);

// Whether punching holes gives space back.
[[nodiscard]] bool can_discard(common::FdRef file, const struct stat& status,
                               std::uint64_t size_bytes);

// Sizes for the guest's topology, in bytes; 0: not known.
struct Topology {
  std::uint32_t physical_block_bytes = 0;
  std::uint32_t optimal_io_bytes = 0;
};
[[nodiscard]] Topology topology_of(common::FdRef file, const struct stat& status);

}  // namespace broker
