#include "broker/disk_limits.h"

#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <optional>
#include <string>

#include "common/checked.h"

namespace broker {
namespace {

using common::fail;
using common::Fd;
using common::FdRef;

// What no disk asks more than: assumed where the kernel does not say.
constexpr std::uint32_t kAlignmentAssumed = 4096;
constexpr std::uint32_t kAlignmentMax = 1 << 20;

// A limit of the queue of block device `number`; a partition's queue is that of its disk.
std::optional<std::uint64_t> queue_limit(dev_t number, const char* name) {
  const std::string device =
      "/sys/dev/block/" + std::to_string(::major(number)) + ":" + std::to_string(::minor(number));
  for (const char* queue : {"/queue/", "/../queue/"}) {
    const Fd file(::open((device + queue + name).c_str(), O_RDONLY | O_CLOEXEC));
    if (!file.valid()) continue;
    char text[32];
    const ssize_t length = ::read(file.ref().number, text, sizeof(text));
    std::uint64_t value = 0;
    if (length <= 0 || std::from_chars(text, text + length, value).ec != std::errc()) continue;
    return value;
  }
  return std::nullopt;
}

bool is_alignment(std::uint64_t value) {
  return common::is_power_of_two(value) && value <= kAlignmentMax;
}

// Before Linux 6.1, and on file systems that do not tell: the block size of the device below, which
// is enough for both.
Alignment guess_alignment(FdRef file, const struct stat& status) {
  int logical = 0;
  std::uint64_t bytes = kAlignmentAssumed;
  if (S_ISBLK(status.st_mode)) {
    if (::ioctl(file.number, BLKSSZGET, &logical) == 0 && logical > 0) {
      bytes = static_cast<std::uint64_t>(logical);
    }
  } else {
    bytes = queue_limit(status.st_dev, "logical_block_size").value_or(kAlignmentAssumed);
  }
  const auto alignment =
      is_alignment(bytes) ? static_cast<std::uint32_t>(bytes) : kAlignmentAssumed;
  return Alignment{alignment, alignment};
}

}  // namespace

Answer<Alignment> direct_alignment(FdRef file, const struct stat& status) {
  struct statx more {};
  const int result = ::statx(file.number, "", AT_EMPTY_PATH, STATX_DIOALIGN, &more);
  if (result != 0 || (more.stx_mask & STATX_DIOALIGN) == 0) return guess_alignment(file, status);
  if (more.stx_dio_offset_align == 0) {
    return fail(std::string("its file system has no direct I/O for it"));
  }
  if (!is_alignment(more.stx_dio_mem_align) || !is_alignment(more.stx_dio_offset_align)) {
    return fail(std::string("its file system asks for an alignment that is not supported"));
  }
  return Alignment{more.stx_dio_mem_align, more.stx_dio_offset_align};
}

bool can_discard(FdRef file, const struct stat& status, std::uint64_t size_bytes) {
  if (S_ISBLK(status.st_mode)) {
    // The kernel punches a hole into a block device by zeroing with leave to deallocate, and
    // refuses where the device cannot (block/fops.c).
    return queue_limit(status.st_rdev, "discard_max_bytes").value_or(0) > 0 &&
           queue_limit(status.st_rdev, "write_zeroes_max_bytes").value_or(0) > 0;
  }
  // A hole beyond the end changes nothing and is refused where holes are.
  constexpr std::uint64_t kProbeBytes = 4096;
  const std::uint64_t beyond = common::round_down(size_bytes, kProbeBytes) + kProbeBytes;
  return ::fallocate(file.number, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                     static_cast<off_t>(beyond), kProbeBytes) == 0;
}

Topology topology_of(FdRef file, const struct stat& status) {
  // A file system's preferred size may be a megabyte; what guests should align to is its block.
  constexpr std::uint32_t kFileBlockMax = 4096;
  if (!S_ISBLK(status.st_mode)) {
    const auto preferred = static_cast<std::uint64_t>(std::max<blksize_t>(status.st_blksize, 0));
    const bool usable = common::is_power_of_two(preferred);
    return Topology{
        usable ? static_cast<std::uint32_t>(std::min<std::uint64_t>(preferred, kFileBlockMax)) : 0,
        0};
  }
  Topology topology;
  unsigned int bytes = 0;
  if (::ioctl(file.number, BLKPBSZGET, &bytes) == 0) topology.physical_block_bytes = bytes;
  if (::ioctl(file.number, BLKIOOPT, &bytes) == 0) topology.optimal_io_bytes = bytes;
  return topology;
}

}  // namespace broker
