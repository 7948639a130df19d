#include "broker/open_disk.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <linux/openat2.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "broker/disk_limits.h"
#include "broker/text.h"
#include "common/addresses.h"
#include "common/checked.h"

namespace broker {
namespace {

using common::fail;
using common::Fd;
using common::FdRef;

// Offsets that every request keeps to: virtio-blk counts in sectors.
constexpr std::uint32_t kSectorAlignment = static_cast<std::uint32_t>(common::kSectorBytes);
constexpr std::uint32_t kPhysicalBlockMax = 1 << 16;

std::unexpected<std::string> disk_error(const std::string& path, const std::string& text) {
  return fail("disk " + in_quotes(path) + " " + text);
}

std::string open_failed(int os_errno, const DeviceConfig& config) {
  switch (os_errno) {
    case ENOENT:
      return "does not exist; check --blk-file, or make it: truncate -s 10G FILE";
    case ELOOP:
      return "is reached through a link into /proc or a loop of links; give the file's own path";
    case EACCES:
    case EPERM:
      return config.read_only
                 ? "may not be read by this user; change its permissions"
                 : "may not be opened for writing by this user; change its permissions, or give "
                   "--read-only";
    case EROFS:
      return "cannot be written to: its file system or device is read-only; give --read-only";
    case ETXTBSY:
      return "is a program that runs, or swap space, and cannot be written to";
    case EBUSY:
      return "is mounted or in use by the host; unmount it, or give --read-only";
    default:
      return "cannot be opened: " + errno_text(os_errno);
  }
}

// What it is, without opening it yet: opening a pipe waits, and some devices act when opened. Links
// are followed (/dev/disk/by-id is made of them), those of /proc are not: where they lead depends
// on who looks.
Answer<Fd> look_up(const DeviceConfig& config, std::uint64_t flags) {
  open_how how{};
  how.flags = O_PATH | O_CLOEXEC | flags;
  how.resolve = RESOLVE_NO_MAGICLINKS;
  const long number = ::syscall(SYS_openat2, AT_FDCWD, config.blk_file.c_str(), &how, sizeof(how));
  if (number < 0) return disk_error(config.blk_file, open_failed(errno, config));
  return Fd(static_cast<int>(number));
}

// A link of somebody's who could lead us to a file that he may not open himself. As the kernel has
// it in directories that everybody may write to (fs.protected_symlinks).
Answer<void> refuse_strange_link(FdRef named, FdRef found, const std::string& path) {
  struct stat link {};
  struct stat file {};
  if (::fstat(named.number, &link) != 0 || ::fstat(found.number, &file) != 0) {
    return disk_error(path, "cannot be looked at: " + errno_text(errno));
  }
  if (!S_ISLNK(link.st_mode)) {
    if (link.st_dev == file.st_dev && link.st_ino == file.st_ino) return {};
    return disk_error(path, "was replaced while it was opened; try again");
  }
  if (link.st_uid == 0 || link.st_uid == ::geteuid() || link.st_uid == file.st_uid) return {};
  return disk_error(path, "is a symbolic link of user " + std::to_string(link.st_uid) +
                              "'s to a file of user " + std::to_string(file.st_uid) +
                              "'s; give the file's own path, or make the link as root");
}

Answer<Fd> look_up(const DeviceConfig& config) {
  TRY_LET(const Fd named, look_up(config, O_NOFOLLOW));
  TRY_LET(Fd found, look_up(config, 0));
  TRY(refuse_strange_link(named.ref(), found.ref(), config.blk_file));
  return found;
}

Answer<struct stat> check_type(FdRef file, const std::string& path) {
  struct stat status {};
  if (::fstat(file.number, &status) != 0) {
    return disk_error(path, "cannot be looked at: " + errno_text(errno));
  }
  if (S_ISREG(status.st_mode) || S_ISBLK(status.st_mode)) return status;
  std::string what = "a file of an unknown kind";
  if (S_ISDIR(status.st_mode)) what = "a directory";
  if (S_ISCHR(status.st_mode)) what = "a character device";
  if (S_ISFIFO(status.st_mode)) what = "a pipe";
  if (S_ISSOCK(status.st_mode)) what = "a socket";
  return disk_error(path, "is " + what + "; give a regular file (a raw image) or a block device");
}

// A broker that was killed or stopped a moment ago still has the disk until the kernel has taken
// its workers' rings apart: whoever restarts it at once should not be told that the disk is in use.
constexpr int kBusyAttempts = 26;
constexpr int kBusyRetryMs = 20;

// `attempt` until it succeeds or fails for another reason than `busy`: true, or false with errno.
template <typename Attempt, typename Busy>
bool patiently(Attempt attempt, Busy busy) {
  for (int i = 0; i < kBusyAttempts; ++i) {
    if (attempt()) return true;
    if (!busy(errno)) return false;
    if (i + 1 < kBusyAttempts) {
      const int os_errno = errno;
      ::poll(nullptr, 0, kBusyRetryMs);
      errno = os_errno;
    }
  }
  return false;
}

// The file that was looked at, and no other: through its descriptor, not its path.
Answer<Fd> open_for_use(FdRef found, int flags, const DeviceConfig& config) {
  const std::string magic = "/proc/self/fd/" + std::to_string(found.number);
  Fd file;
  const auto open = [&] {
    file = Fd(::open(magic.c_str(), flags | O_CLOEXEC | O_NOCTTY));
    return file.valid();
  };
  if (patiently(open, [](int os_errno) { return os_errno == EBUSY; })) return file;
  if (errno == EINVAL && (flags & O_DIRECT) != 0) {
    return disk_error(config.blk_file, "is on a file system without direct I/O; give --direct=off");
  }
  return disk_error(config.blk_file, open_failed(errno, config));
}

// Nothing where nobody else has a lock on it that would keep us from ours.
Answer<void> refuse_lock(FdRef file, const DeviceConfig& config) {
  struct flock whole {};
  whole.l_type = static_cast<short>(config.read_only ? F_RDLCK : F_WRLCK);
  whole.l_whence = SEEK_SET;
  if (::fcntl(file.number, F_OFD_GETLK, &whole) != 0 || whole.l_type == F_UNLCK) return {};
  const std::string holder =
      whole.l_pid > 0 ? "process " + std::to_string(whole.l_pid) : "another device or process";
  return disk_error(config.blk_file, "is in use: " + holder + " holds a lock on it" +
                                         (config.read_only ? "" : " (only one may write)") +
                                         "; stop that, or give another disk; --lock=off is for the "
                                         "destination of a migration");
}

// Held by the open file description, hence by every worker that has it, even if the broker dies.
// It covers the bytes that QEMU locks, too: a QEMU that uses this image is noticed, and notices us.
Answer<void> lock(FdRef file, const DeviceConfig& config) {
  struct flock whole {};
  whole.l_type = static_cast<short>(config.read_only ? F_RDLCK : F_WRLCK);
  whole.l_whence = SEEK_SET;
  const auto take = [&] { return ::fcntl(file.number, F_OFD_SETLK, &whole) == 0; };
  const auto taken = [](int os_errno) { return os_errno == EAGAIN || os_errno == EACCES; };
  // Where it is no error that another has it, there is nothing to wait for either: the guest that
  // migrates waits for us.
  if (config.lock ? patiently(take, taken) : take()) return {};
  if (!taken(errno)) {
    return disk_error(config.blk_file, "cannot be locked: " + errno_text(errno));
  }
  if (!config.lock) return {};
  TRY(refuse_lock(file, config));
  return disk_error(config.blk_file, "was in use just now; try again");
}

Answer<void> measure(Disk& disk, const struct stat& status, const DeviceConfig& config) {
  const auto size = disk_bytes(disk.file.ref());
  if (!size) {
    return disk_error(config.blk_file,
                      "does not tell its size: " + errno_text(size.error().os_errno));
  }
  const std::uint64_t bytes = *size;
  const std::uint64_t served = common::round_down(bytes, config.block_size);
  if (bytes == 0) {
    return disk_error(config.blk_file, "is empty; give it a size first: truncate -s 10G FILE");
  }
  if (served == 0) {
    return disk_error(config.blk_file, "has " + std::to_string(bytes) +
                                           " bytes, less than one block of " +
                                           std::to_string(config.block_size));
  }
  disk.capacity_sectors = served / common::kSectorBytes;
  disk.unserved_bytes = static_cast<std::uint32_t>(bytes - served);
  if (!config.read_only) {
    disk.discard = config.discard && can_discard(disk.file.ref(), status, bytes);
    disk.write_zeroes =
        config.write_zeroes;  // Where the disk has no help for it, zeros are written.
  }
  const Topology topology = topology_of(disk.file.ref(), status);
  const std::uint32_t physical = std::max(topology.physical_block_bytes, config.block_size);
  const bool usable = common::is_power_of_two(physical) && physical <= kPhysicalBlockMax;
  disk.physical_block_bytes = usable ? physical : config.block_size;
  disk.optimal_io_bytes = topology.optimal_io_bytes;
  return {};
}

Answer<void> align(Disk& disk, FdRef found, int access, const struct stat& status,
                   const DeviceConfig& config, Fd kept) {
  if (!config.direct) return {};
  const Answer<Alignment> alignment = direct_alignment(disk.file.ref(), status);
  if (!alignment) {
    return disk_error(config.blk_file, "cannot be used with --direct=on: " + alignment.error() +
                                           "; give --direct=off");
  }
  disk.memory_alignment = alignment->memory;
  disk.offset_alignment = alignment->offset;
  if (alignment->offset > kSectorAlignment) {
    disk.buffered = std::move(kept);
    if (!disk.buffered.valid()) {
      TRY_LET(disk.buffered, open_for_use(found, access, config));
    }
  }
  return {};
}

bool is_on_fuse(FdRef file) {
  struct statfs system {};
  return ::fstatfs(file.number, &system) == 0 && system.f_type == FUSE_SUPER_MAGIC;
}

// What there is to know of a disk whose file is open.
Answer<void> describe(Disk& disk, FdRef found, int access, const struct stat& status,
                      const DeviceConfig& config, Fd kept_buffered) {
  disk.path = config.blk_file;
  disk.block_device = S_ISBLK(status.st_mode);
  disk.read_only = config.read_only;
  disk.direct = config.direct;
  disk.block_size = config.block_size;
  disk.io_device = disk.block_device ? status.st_rdev : status.st_dev;
  disk.device = status.st_dev;
  disk.inode = status.st_ino;
  TRY(measure(disk, status, config));
  TRY(align(disk, found, access, status, config, std::move(kept_buffered)));
  disk.durable_writes = !(disk.direct && is_on_fuse(disk.file.ref()));
  return {};
}

// Its workers go on with it, so what it is cannot be changed under them.
Answer<Fd> use_kept(Fd kept, const struct stat& wanted, int flags, const DeviceConfig& config) {
  struct stat status {};
  const int now = ::fcntl(kept.ref().number, F_GETFL);
  const bool same = ::fstat(kept.ref().number, &status) == 0 && status.st_dev == wanted.st_dev &&
                    status.st_ino == wanted.st_ino && status.st_rdev == wanted.st_rdev;
  if (!same) {
    return disk_error(config.blk_file,
                      "is another file than the one that is served; end what is "
                      "served first (bulkhead takeover, then SIGTERM)");
  }
  constexpr int kWays = O_ACCMODE | O_DIRECT;
  if ((now & kWays) != (flags & kWays)) {
    return disk_error(config.blk_file,
                      "is served with another --read-only or --direct, which "
                      "cannot be changed while it is; give the same");
  }
  return kept;
}

}  // namespace

common::Result<std::uint64_t> disk_bytes(FdRef file) noexcept {
  struct stat status {};
  if (::fstat(file.number, &status) != 0) return common::fail_errno("fstat", errno);
  if (!S_ISBLK(status.st_mode)) return static_cast<std::uint64_t>(status.st_size);
  std::uint64_t bytes = 0;
  if (::ioctl(file.number, BLKGETSIZE64, &bytes) != 0) {
    return common::fail_errno("BLKGETSIZE64", errno);
  }
  return bytes;
}

Answer<Disk> open_disk(const DeviceConfig& config, std::vector<Fd> kept) {
  TRY_LET(const Fd found, look_up(config));
  TRY_LET(const struct stat status, check_type(found.ref(), config.blk_file));
  const bool block_device = S_ISBLK(status.st_mode);
  const int access = config.read_only ? O_RDONLY : O_RDWR;
  // O_EXCL without O_CREAT: a block device that is mounted, or that another writer has, is refused.
  const int flags = access | (config.direct ? O_DIRECT : 0) |
                    (block_device && !config.read_only && config.lock ? O_EXCL : 0);
  Disk disk;
  if (kept.empty()) {
    TRY_LET(disk.file, open_for_use(found.ref(), flags, config));
  } else {
    TRY_LET(disk.file, use_kept(std::move(kept[0]), status, flags, config));
  }
  TRY(lock(disk.file.ref(), config));
  TRY(describe(disk, found.ref(), access, status, config,
               kept.size() > 1 ? std::move(kept[1]) : Fd()));
  return disk;
}

Answer<Disk> inspect_disk(const DeviceConfig& config, bool locked_by_us) {
  TRY_LET(const Fd found, look_up(config));
  TRY_LET(const struct stat status, check_type(found.ref(), config.blk_file));
  const std::string magic = "/proc/self/fd/" + std::to_string(found.ref().number);
  if (!config.read_only && ::faccessat(AT_FDCWD, magic.c_str(), W_OK, AT_EACCESS) != 0) {
    return disk_error(config.blk_file, open_failed(errno, config));
  }
  Disk disk;
  TRY_LET(disk.file, open_for_use(found.ref(), O_RDONLY | (config.direct ? O_DIRECT : 0), config));
  if (!locked_by_us && config.lock) TRY(refuse_lock(disk.file.ref(), config));
  TRY(describe(disk, found.ref(), O_RDONLY, status, config, {}));
  return disk;
}

}  // namespace broker
