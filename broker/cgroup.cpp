#include "broker/cgroup.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdlib>
#include <string_view>
#include <utility>

#include "broker/text.h"
#include "policy/proc_files.h"

namespace broker {
namespace {

using common::fail_errno;
using common::Fd;
using common::FdRef;
using common::Result;

constexpr const char* kMount = "/sys/fs/cgroup";
constexpr std::string_view kDevicePrefix = "device-";
constexpr const char* kLeaves[] = {"session", "workers"};
// Limits need the first two; the others where they are there.
constexpr std::string_view kControllers[] = {"+memory", "+pids", "+cpu", "+io"};
constexpr std::size_t kControllersNeeded = 2;

Result<Fd> open_at(FdRef directory, const char* name, int flags, const char* what) {
  Fd file(::openat(directory.number, name, flags | O_CLOEXEC));
  if (!file.valid()) return fail_errno(what, errno);
  return file;
}

Result<Fd> open_directory(FdRef directory, const char* name) {
  return open_at(directory, name, O_PATH | O_DIRECTORY | O_NOFOLLOW, "open a cgroup");
}

Result<void> write_at(FdRef directory, const char* name, std::string_view text, const char* what) {
  TRY_LET(const Fd file, open_at(directory, name, O_WRONLY, what));
  const ssize_t wrote = ::write(file.ref().number, text.data(), text.size());
  if (wrote != static_cast<ssize_t>(text.size())) return fail_errno(what, wrote < 0 ? errno : EIO);
  return {};
}

// One that a killed broker has left is taken over.
Result<void> make_directory(FdRef directory, const char* name) {
  if (::mkdirat(directory.number, name, 0755) != 0 && errno != EEXIST) {
    return fail_errno("make a cgroup", errno);
  }
  return {};
}

Result<void> give_controllers(FdRef directory) {
  for (std::size_t i = 0; i < std::size(kControllers); ++i) {
    const auto given = write_at(directory, "cgroup.subtree_control", kControllers[i],
                                "give controllers to the cgroups of devices");
    if (!given && i < kControllersNeeded) return given;
  }
  return {};
}

std::string text_of(const std::string& path) { return policy::read_file(path).value_or(""); }

// systemd marks what it has delegated, and goes on managing everything else itself.
bool is_delegated(const std::string& path) {
  if (::access("/run/systemd/system", F_OK) != 0) return true;
  char value = 0;
  for (const char* const name : {"user.delegate", "trusted.delegate"}) {
    if (::getxattr(path.c_str(), name, &value, 1) == 1 && value == '1') return true;
  }
  return false;
}

bool is_alone(const std::string& path) {
  return text_of(path + "/cgroup.procs") == std::to_string(::getpid()) + "\n";
}

Answer<std::string> own_cgroup() {
  const std::string own = cgroup_path_in(text_of("/proc/self/cgroup"));
  if (own.empty()) return common::fail("this host has no cgroups of version 2");
  std::string path = kMount + (own == "/" ? "" : own);
  if (!is_delegated(path)) {
    return common::fail(in_quotes(path) + " is systemd's: Delegate=yes in the unit gives it to us");
  }
  if (!is_alone(path)) {
    return common::fail("other processes are in " + in_quotes(path) +
                        ", too: it is not the broker's to divide; --cgroup=PATH names one that is");
  }
  return path;
}

// A partition is limited by its disk: the kernel refuses io.max for it.
dev_t whole_disk_of(dev_t device) {
  const std::string at =
      "/sys/dev/block/" + std::to_string(major(device)) + ":" + std::to_string(minor(device));
  if (::access((at + "/partition").c_str(), F_OK) != 0) return device;
  const std::string number = text_of(at + "/../dev");
  const std::size_t colon = number.find(':');
  if (colon == std::string::npos) return device;
  const auto part = [&](std::size_t from) {
    return static_cast<unsigned>(std::strtoul(number.c_str() + from, nullptr, 10));
  };
  return makedev(part(0), part(colon + 1));
}

}  // namespace

IoRates kernel_rates(const DeviceLimits& limits) {
  using common::Rate;
  const auto strictest = [&limits](Rate one_way, Rate both) {
    std::uint64_t least = 0;
    for (const Rate rate : {one_way, both}) {
      const RateLimit& limit = limits.at(rate);
      if (limit.per_second == 0) continue;
      const std::uint64_t most = limit.per_second + burst_of(limit);
      least = least == 0 ? most : std::min(least, most);
    }
    return least;
  };
  return {strictest(Rate::kReadBytes, Rate::kBytes), strictest(Rate::kWriteBytes, Rate::kBytes),
          strictest(Rate::kReadOperations, Rate::kOperations),
          strictest(Rate::kWriteOperations, Rate::kOperations)};
}

std::string cgroup_number(std::uint64_t value) {
  return value == 0 ? "max" : std::to_string(value);
}

std::string cgroup_cpu_max(std::uint32_t percent) {
  constexpr std::uint64_t kPeriodUs = 100'000;
  return cgroup_number(percent * kPeriodUs / 100) + " " + std::to_string(kPeriodUs);
}

std::string cgroup_io_max(dev_t disk, const IoRates& rates) {
  return std::to_string(major(disk)) + ":" + std::to_string(minor(disk)) +
         " rbps=" + cgroup_number(rates.read_bytes) + " wbps=" + cgroup_number(rates.write_bytes) +
         " riops=" + cgroup_number(rates.read_requests) +
         " wiops=" + cgroup_number(rates.write_requests);
}

std::string cgroup_path_in(const std::string& text) {
  constexpr std::string_view kVersion2 = "0::";
  for (const std::string& line : policy::lines_of(text)) {
    if (line.starts_with(kVersion2)) return line.substr(kVersion2.size());
  }
  return "";
}

Answer<std::unique_ptr<Cgroups>> Cgroups::open(const std::string& where) {
  std::string path = where;
  if (where == "auto") {
    TRY_LET(path, own_cgroup());
  }
  Fd root(::open(path.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  struct statfs system {};
  if (!root.valid() || ::fstatfs(root.ref().number, &system) != 0) {
    return common::fail("cannot open " + in_quotes(path) + ": " + errno_text(errno));
  }
  if (system.f_type != CGROUP2_SUPER_MAGIC) {
    return common::fail(in_quotes(path) + " is no cgroup of version 2");
  }
  auto made = std::unique_ptr<Cgroups>(new Cgroups(std::move(path), std::move(root)));
  TRY(made->take_over());
  return made;
}

Answer<std::unique_ptr<Cgroups>> Cgroups::take(const std::string& where, Log& log) {
  if (where == "off") return nullptr;
  auto opened = open(where);
  if (opened) return opened;
  if (where != "auto") return common::fail("--cgroup: " + opened.error());
  log.debug("", "no limits by cgroup: " + opened.error());
  return nullptr;
}

Answer<void> Cgroups::take_over() {
  const auto taken = [this]() -> Result<void> {
    TRY(make_directory(root_.ref(), "broker"));
    TRY_LET(const Fd broker, open_directory(root_.ref(), "broker"));
    TRY(write_at(broker.ref(), "cgroup.procs", "0", "move the broker to a cgroup of its own"));
    return give_controllers(root_.ref());
  }();
  if (taken) {
    remove_leftovers();
    return {};
  }
  return common::fail(std::string(taken.error().what) + " in " + in_quotes(path_) + ": " +
                      errno_text(taken.error().os_errno));
}

// Of a broker that was killed. What still has processes stays.
void Cgroups::remove_leftovers() {
  for (const std::string& name :
       policy::list_directory(path_).value_or(std::vector<std::string>{})) {
    if (name.starts_with(kDevicePrefix)) remove_tree(name);
  }
}

void Cgroups::remove_tree(const std::string& name) noexcept {
  if (const auto directory = open_directory(root_.ref(), name.c_str())) {
    for (const char* const leaf : kLeaves) {
      (void)::unlinkat(directory->ref().number, leaf, AT_REMOVEDIR);
    }
  }
  (void)::unlinkat(root_.ref().number, name.c_str(), AT_REMOVEDIR);
}

Cgroups::~Cgroups() {
  for (const auto& [device, home] : homes_) remove_tree(home.name);
}

Result<Cgroups::Home> Cgroups::make_home(const std::string& name) {
  Home home;
  home.name = std::string(kDevicePrefix) + name;
  TRY(make_directory(root_.ref(), home.name.c_str()));
  TRY_LET(home.directory, open_directory(root_.ref(), home.name.c_str()));
  TRY(give_controllers(home.directory.ref()));
  for (const char* const leaf : kLeaves) TRY(make_directory(home.directory.ref(), leaf));
  TRY_LET(home.session, open_directory(home.directory.ref(), kLeaves[0]));
  TRY_LET(home.workers, open_directory(home.directory.ref(), kLeaves[1]));
  return home;
}

Result<void> Cgroups::add(uid_t device, const std::string& name, const CgroupLimits& limits) {
  TRY_LET(Home home, make_home(name));
  homes_.insert_or_assign(device, std::move(home));
  const auto limited = limit(device, limits);
  if (!limited) remove(device);
  return limited;
}

void Cgroups::remove(uid_t device) noexcept {
  const auto found = homes_.find(device);
  if (found == homes_.end()) return;
  remove_tree(found->second.name);
  homes_.erase(found);
}

FdRef Cgroups::leaf(uid_t device, CgroupLeaf which) const noexcept {
  const auto found = homes_.find(device);
  if (found == homes_.end()) return {};
  return (which == CgroupLeaf::kSession ? found->second.session : found->second.workers).ref();
}

Result<void> Cgroups::limit(uid_t device, const CgroupLimits& limits) {
  const auto found = homes_.find(device);
  if (found == homes_.end()) return fail_errno("limit a device without a cgroup", ENOENT);
  const FdRef home = found->second.directory.ref();
  const std::string memory = cgroup_number(std::uint64_t{limits.memory_max_mib} << 20);
  TRY(write_at(home, "memory.max", memory, "set memory.max"));
  // What is over the limit is not to go to swap instead. Kernels without swap have no such file.
  if (limits.memory_max_mib != 0) (void)write_at(home, "memory.swap.max", "0", "set swap.max");
  TRY(write_at(home, "pids.max", cgroup_number(limits.pids_max), "set pids.max"));
  const auto cpu = write_at(home, "cpu.max", cgroup_cpu_max(limits.cpu_max_percent), "set cpu.max");
  // Without the controller there is no such limit; none was asked for.
  if (!cpu && (limits.cpu_max_percent != 0 || cpu.error().os_errno != ENOENT)) return cpu;
  return {};
}

Result<void> Cgroups::limit_io(uid_t device, dev_t disk, const IoRates& rates) {
  const auto found = homes_.find(device);
  if (found == homes_.end()) return fail_errno("limit a device without a cgroup", ENOENT);
  return write_at(found->second.directory.ref(), "io.max",
                  cgroup_io_max(whole_disk_of(disk), rates), "set io.max");
}

}  // namespace broker
