// broker/cgroup.h: a cgroup (v2) of its own for each device, where such a tree is delegated to the
// broker: what session and workers of one VM may use, enforced by the kernel whatever they do.
//
//   <ours>/broker                the broker itself, and probes: only leaves may have processes
//   <ours>/device-NAME           the limits
//   <ours>/device-NAME/session   each child is born here (policy/spawn.h),
//   <ours>/device-NAME/workers   or here
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>

#include "broker/config.h"
#include "broker/limits.h"
#include "broker/log.h"
#include "common/fd.h"
#include "common/result.h"

namespace broker {

// 0: no limit.
struct CgroupLimits {
  std::uint32_t memory_max_mib = 0;
  std::uint32_t cpu_max_percent = 0;  // Of one processor.
  std::uint32_t pids_max = 0;         // Threads of rings are counted, too.
};

// Each second; 0: no limit.
struct IoRates {
  std::uint64_t read_bytes = 0;
  std::uint64_t write_bytes = 0;
  std::uint64_t read_requests = 0;
  std::uint64_t write_requests = 0;
};

// What the kernel is to hold a device to whose workers hold their guest to `limits`: also a worker
// that a guest has taken over. It knows reads and writes only, so a limit on both together is one
// on each; and bursts are added, so that honest workers never meet it.
[[nodiscard]] IoRates kernel_rates(const DeviceLimits& limits);

enum class CgroupLeaf : std::uint8_t { kSession, kWorkers };

class Cgroups {
 public:
  // `where`: "auto", which takes the broker's own cgroup where it was delegated, or the path of
  // one. Moves the broker to its leaf. The error says what is missing.
  [[nodiscard]] static Answer<std::unique_ptr<Cgroups>> open(const std::string& where);
  // The same, as configured: null with "off", and where "auto" has none, which the log then says.
  [[nodiscard]] static Answer<std::unique_ptr<Cgroups>> take(const std::string& where, Log& log);
  Cgroups(const Cgroups&) = delete;
  Cgroups& operator=(const Cgroups&) = delete;
  ~Cgroups();

  // A device is known by the uid of its processes, which no two share.
  [[nodiscard]] common::Result<void> add(uid_t device, const std::string& name,
                                         const CgroupLimits& limits);
  // Its processes are gone.
  void remove(uid_t device) noexcept;
  // For policy::SpawnRequest; invalid where the device has none.
  [[nodiscard]] common::FdRef leaf(uid_t device, CgroupLeaf which) const noexcept;

  // Now, whatever runs. Controllers that were not delegated: ENOENT.
  [[nodiscard]] common::Result<void> limit(uid_t device, const CgroupLimits& limits);
  // `disk`: the block device, or the one whose file system the image is on (st_dev). A partition's
  // limit is its whole disk's. ENODEV where there is no block device behind it.
  [[nodiscard]] common::Result<void> limit_io(uid_t device, dev_t disk, const IoRates& rates);

  [[nodiscard]] const std::string& path() const noexcept { return path_; }

 private:
  struct Home {
    std::string name;  // "device-vda"
    common::Fd directory;
    common::Fd session;
    common::Fd workers;
  };

  Cgroups(std::string path, common::Fd root) : path_(std::move(path)), root_(std::move(root)) {}
  [[nodiscard]] Answer<void> take_over();
  void remove_leftovers();
  void remove_tree(const std::string& name) noexcept;
  [[nodiscard]] common::Result<Home> make_home(const std::string& name);

  std::string path_;
  common::Fd root_;
  std::map<uid_t, Home> homes_;
};

// "BYTES" and "max": what the kernel takes for a limit, 0 meaning none.
[[nodiscard]] std::string cgroup_number(std::uint64_t value);
// "50000 100000": half of one processor in each 100 ms.
[[nodiscard]] std::string cgroup_cpu_max(std::uint32_t percent);
// "8:0 rbps=max wbps=1048576 riops=max wiops=100"
[[nodiscard]] std::string cgroup_io_max(dev_t disk, const IoRates& rates);
// The path of /proc/self/cgroup's one line of version 2; empty where there is none.
[[nodiscard]] std::string cgroup_path_in(const std::string& text);

}  // namespace broker
