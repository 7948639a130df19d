// policy/posture.cpp: reads /proc. What stands there about a jailed process is the kernel's word,
// except its title, which is cleaned.
#include "policy/posture.h"

#include <sys/fsuid.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <cstdlib>
#include <iterator>
#include <map>
#include <optional>
#include <string_view>
#include <utility>

#include "common/fd.h"
#include "policy/core_scheduling.h"
#include "policy/proc_files.h"

namespace policy {
namespace {

using common::fail_errno;
using common::Layer;
using common::LayerResult;
using common::Result;

LayerView enforced(Layer layer, std::string reason) {
  return {layer, LayerState::kEnforced, std::move(reason)};
}
LayerView degraded(Layer layer, std::string reason) {
  return {layer, LayerState::kDegraded, std::move(reason)};
}
LayerView absent(Layer layer, std::string reason) {
  return {layer, LayerState::kAbsent, std::move(reason)};
}
LayerView unknown(Layer layer, std::string reason) {
  return {layer, LayerState::kUnknown, std::move(reason)};
}
LayerView unreadable(Layer layer, const std::string& what, int os_errno) {
  return unknown(layer, "cannot look: " + what + ": " + error_text(os_errno));
}

// What one process is looked at with.
struct Subject {
  pid_t pid;
  pid_t parent;
  ProcStatus status;
  ProcStatus parent_status;
  const common::LayerResults* claimed;
};

// What the kernel does not show: the process's own word.
LayerView as_reported(const Subject& subject, Layer layer) {
  if (subject.claimed == nullptr) return unknown(layer, "not shown by the kernel");
  const LayerResult result = (*subject.claimed)[static_cast<std::size_t>(layer)];
  std::string reason = "reported by the process";
  if (layer == Layer::kLandlock && result.detail != 0) {
    reason += ", ABI " + std::to_string(result.detail);
  }
  if (result.os_errno != 0) reason += ": " + error_text(result.os_errno);
  switch (result.state) {
    case LayerResult::State::kEnforced:
      return enforced(layer, std::move(reason));
    case LayerResult::State::kDegraded:
      return degraded(layer, std::move(reason));
    case LayerResult::State::kAbsent:
      return absent(layer, std::move(reason));
    case LayerResult::State::kNotTried:
      break;
  }
  return unknown(layer, "not shown by the kernel, not reported");
}

// A namespace is a layer where it is another than the parent's.
LayerView view_namespace(const Subject& subject, Layer layer, std::string_view name) {
  const std::string file = "ns/" + std::string(name);
  const auto own = read_link(proc_path(subject.pid, file));
  if (!own) return unreadable(layer, file, errno);
  const auto parents = read_link(proc_path(subject.parent, file));
  if (!parents) return unreadable(layer, "the parent's " + file, errno);
  if (*own == *parents) return absent(layer, *own + ", the parent's");
  return enforced(layer, *own);
}

LayerView view_network(const Subject& subject) {
  LayerView view = view_namespace(subject, Layer::kNetNamespace, "net");
  if (view.state != LayerState::kEnforced) return view;
  const auto devices = read_file(proc_path(subject.pid, "net/dev"));
  if (!devices) return view;
  // Two lines of headings; an empty namespace has its loopback, which is down.
  const auto lines = lines_of(*devices);
  if (lines.size() > 3) return degraded(Layer::kNetNamespace, view.reason + ", has interfaces");
  view.reason += ", no interface but lo";
  return view;
}

LayerView view_root(const Subject& subject) {
  constexpr Layer kLayer = Layer::kEmptyRoot;
  const auto mounts = read_file(proc_path(subject.pid, "mountinfo"));
  if (!mounts) return unreadable(kLayer, "mountinfo", errno);
  const auto names = list_directory(proc_path(subject.pid, "root"));
  if (!names) return unreadable(kLayer, "root", errno);

  const auto lines = lines_of(*mounts);
  const std::string seen =
      std::to_string(lines.size()) + " mounts, " + std::to_string(names->size()) + " entries in /";
  if (lines.size() != 1 || !names->empty()) return absent(kLayer, seen);
  // mountinfo: id, parent, device, root, mount point, options (proc_pid_mountinfo(5)).
  const auto words = words_of(lines.front());
  if (words.size() < 6 || (words[5] != "ro" && !words[5].starts_with("ro,"))) {
    return degraded(kLayer, "empty, but writable");
  }
  return enforced(kLayer, "one read-only mount, no entry in /");
}

LayerView view_uid(const Subject& subject) {
  const auto own = words_of(value_of(subject.status, "Uid"));
  const auto parents = words_of(value_of(subject.parent_status, "Uid"));
  if (own.size() < 4 || parents.size() < 4) return unknown(Layer::kOwnUid, "no Uid line");
  if (own[0] == parents[0]) {
    const bool own_namespace =
        view_namespace(subject, Layer::kUserNamespace, "user").state == LayerState::kEnforced;
    const std::string seen = "uid " + own[0] + ", the parent's";
    return own_namespace ? degraded(Layer::kOwnUid, seen) : absent(Layer::kOwnUid, seen);
  }
  return enforced(Layer::kOwnUid, "uid " + own[0]);
}

LayerView view_capabilities(const Subject& subject) {
  std::string held;
  bool effective = false;
  for (const char* const set : {"CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"}) {
    const std::string value = value_of(subject.status, set);
    if (value.empty()) return unknown(Layer::kNoCapabilities, std::string("no ") + set + " line");
    if (value.find_first_not_of('0') == std::string::npos) continue;
    held += (held.empty() ? "" : ", ") + std::string(set) + " " + value;
    effective = effective || std::string_view(set) != "CapBnd";
  }
  if (held.empty()) return enforced(Layer::kNoCapabilities, "all five sets empty");
  if (effective) return absent(Layer::kNoCapabilities, held);
  return degraded(Layer::kNoCapabilities, held + ": no_new_privs alone keeps them out of reach");
}

LayerView view_no_new_privs(const Subject& subject) {
  const std::string value = value_of(subject.status, "NoNewPrivs");
  if (value.empty()) return unknown(Layer::kNoNewPrivs, "no NoNewPrivs line");
  if (value != "1") return absent(Layer::kNoNewPrivs, "NoNewPrivs: " + value);
  return enforced(Layer::kNoNewPrivs, "NoNewPrivs: 1");
}

LayerView view_seccomp(const Subject& subject) {
  const std::string mode = value_of(subject.status, "Seccomp");
  const std::string filters = value_of(subject.status, "Seccomp_filters");
  const std::string seen = "Seccomp: " + mode + (filters.empty() ? "" : ", filters: " + filters);
  if (mode.empty()) return unknown(Layer::kSeccomp, "no Seccomp line");
  // A filter that the parent had already is the parent's list, not one of this process.
  const bool inherited = filters == value_of(subject.parent_status, "Seccomp_filters");
  if (mode == "0") return absent(Layer::kSeccomp, seen);
  if (mode == "2" && inherited && !filters.empty()) {
    return absent(Layer::kSeccomp, seen + ", all the parent's");
  }
  return enforced(Layer::kSeccomp, seen);
}

// The soft limit of one line of /proc/PID/limits.
std::string limit_of(const std::string& limits, std::string_view name) {
  const auto line = limits.find(name);
  if (line == std::string::npos) return "";
  const auto words = words_of(limits.substr(line + name.size(), 64));
  return words.empty() ? "" : words.front();
}

LayerView view_rlimits(const Subject& subject) {
  const auto limits = read_file(proc_path(subject.pid, "limits"));
  if (!limits) return unreadable(Layer::kRlimits, "limits", errno);
  const std::string core = limit_of(*limits, "Max core file size");
  const std::string locked = limit_of(*limits, "Max locked memory");
  const std::string seen = "core " + core + ", files " + limit_of(*limits, "Max open files") +
                           ", file size " + limit_of(*limits, "Max file size") + ", locked " +
                           locked + ", processes " + limit_of(*limits, "Max processes");
  // 1 is what stops a dump into a pipe.
  if (core != "1" && core != "0") return absent(Layer::kRlimits, seen);
  if (locked != "0") return degraded(Layer::kRlimits, seen);
  return enforced(Layer::kRlimits, seen);
}

// struct pidfd_info of 6.16, whose last word says how a core dump would go.
struct PidfdInfo {
  std::uint64_t mask;
  std::uint64_t cgroup;
  std::array<std::uint32_t, 11> ids;
  std::int32_t exit_code;
  std::uint32_t dump_mask;
  std::uint32_t spare;
};
constexpr unsigned long kPidfdGetInfo = _IOWR(0xFF, 11, PidfdInfo);
constexpr std::uint64_t kInfoCoredump = 1U << 4;
constexpr std::uint32_t kDumpSkipped = 1U << 1;

std::optional<bool> dump_skipped(pid_t pid) {
  const common::Fd pidfd(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)));
  PidfdInfo info{};
  info.mask = kInfoCoredump;
  if (!pidfd.valid() || ::ioctl(pidfd.ref().number, kPidfdGetInfo, &info) != 0) return std::nullopt;
  if ((info.mask & kInfoCoredump) == 0) return std::nullopt;
  return (info.dump_mask & kDumpSkipped) != 0;
}

LayerView view_dumpable(const Subject& subject) {
  constexpr Layer kLayer = Layer::kNotDumpable;
  if (const auto skipped = dump_skipped(subject.pid)) {
    return *skipped ? enforced(kLayer, "core dumps are skipped") : absent(kLayer, "dumpable");
  }
  // Older kernels tell only by the owner of its files, which is root if it is not dumpable; and
  // only where its own uid is another.
  struct stat directory {};
  struct stat file {};
  if (::stat(proc_path(subject.pid, "").c_str(), &directory) != 0 ||
      ::stat(proc_path(subject.pid, "status").c_str(), &file) != 0) {
    return unreadable(kLayer, "status", errno);
  }
  if (directory.st_uid != file.st_uid) return enforced(kLayer, "its files in /proc are root's");
  return as_reported(subject, kLayer);
}

LayerView view_mseal(const Subject& subject) {
  const auto maps = read_file(proc_path(subject.pid, "smaps"));
  if (!maps) return unreadable(Layer::kMseal, "smaps", errno);
  bool executable = false;
  bool open_text = false;
  bool sealed_text = false;
  for (const std::string& line : lines_of(*maps)) {
    const auto words = words_of(line);
    if (words.empty()) continue;
    if (words.front().find('-') != std::string::npos && words.size() >= 5) {
      executable = words[1].find('x') != std::string::npos && words[4] != "0";  // Of a file.
    } else if (executable && words.front() == "VmFlags:") {
      const bool sealed = std::find(words.begin(), words.end(), "sl") != words.end();
      (sealed ? sealed_text : open_text) = true;
    }
  }
  if (sealed_text && !open_text) return enforced(Layer::kMseal, "text is sealed (smaps: sl)");
  if (sealed_text) return degraded(Layer::kMseal, "part of the text is sealed (smaps: sl)");
  // No "sl" in sight: not sealed, or a kernel that seals without showing it.
  return as_reported(subject, Layer::kMseal);
}

// Limits are those of the cgroup above its leaf: broker/cgroup.h.
LayerView view_cgroup(const Subject& subject) {
  constexpr Layer kLayer = Layer::kCgroupLimits;
  const auto own = read_file(proc_path(subject.pid, "cgroup"));
  if (!own) return unreadable(kLayer, "cgroup", errno);
  for (const std::string& line : lines_of(*own)) {
    const std::size_t device = line.find("/device-");
    if (!line.starts_with("0::") || device == std::string::npos) continue;
    const std::string path = line.substr(3, line.find('/', device + 1) - 3);
    const auto limit = [&](const std::string& name) {
      auto text = read_file(std::string("/sys/fs/cgroup").append(path).append("/").append(name))
                      .value_or("?");
      while (!text.empty() && text.back() == '\n') text.pop_back();
      return printable(text);
    };
    return enforced(kLayer, printable(path) + ", memory.max " + limit("memory.max") +
                                ", pids.max " + limit("pids.max") + ", cpu.max " +
                                limit("cpu.max"));
  }
  return absent(kLayer, "in no device's cgroup");
}

// A cookie is a layer where it is another than the parent's.
LayerView view_core(const Subject& subject) {
  constexpr Layer kLayer = Layer::kCoreScheduling;
  const auto cookie = core_cookie_of(subject.pid);
  if (!cookie && subject.claimed != nullptr) return as_reported(subject, kLayer);
  if (!cookie && cookie.error().os_errno == EPERM) return unreadable(kLayer, "its cookie", EPERM);
  if (!cookie) return absent(kLayer, error_text(cookie.error().os_errno));
  if (*cookie == 0) return absent(kLayer, "no cookie");
  const std::string seen = "cookie " + std::to_string(*cookie);
  const auto parents = core_cookie_of(subject.parent);
  if (parents && *parents == *cookie) return absent(kLayer, seen + ", the parent's");
  return enforced(kLayer, seen);
}

std::vector<LayerView> view_layers(const Subject& subject) {
  return {
      view_namespace(subject, Layer::kUserNamespace, "user"),
      view_namespace(subject, Layer::kPidNamespace, "pid"),
      view_namespace(subject, Layer::kMountNamespace, "mnt"),
      view_network(subject),
      view_namespace(subject, Layer::kIpcNamespace, "ipc"),
      view_namespace(subject, Layer::kUtsNamespace, "uts"),
      view_namespace(subject, Layer::kCgroupNamespace, "cgroup"),
      view_root(subject),
      view_uid(subject),
      view_capabilities(subject),
      as_reported(subject, Layer::kSecurebits),
      view_no_new_privs(subject),
      as_reported(subject, Layer::kLandlock),
      view_rlimits(subject),
      view_dumpable(subject),
      as_reported(subject, Layer::kMdwe),
      view_mseal(subject),
      view_seccomp(subject),
      view_cgroup(subject),
      view_core(subject),
  };
}

std::string title_of(pid_t pid) {
  const auto line = read_file(proc_path(pid, "cmdline"));
  return line ? printable(line->substr(0, line->find('\0'))) : "";
}

ProcessRole role_of(pid_t pid, const std::string& title) {
  std::string name = read_link(proc_path(pid, "exe")).value_or(title);
  if (const auto space = name.find(' '); space != std::string::npos) name.resize(space);
  if (const auto slash = name.rfind('/'); slash != std::string::npos) name.erase(0, slash + 1);
  if (name == "bulkhead" || name == "vhost-user-blk") return ProcessRole::kBroker;
  if (name.starts_with("bulkhead-session")) return ProcessRole::kSession;
  if (name.starts_with("bulkhead-worker")) return ProcessRole::kWorker;
  return ProcessRole::kOther;
}

std::vector<std::string> descriptors_of(pid_t pid) {
  const auto names = list_directory(proc_path(pid, "fd"));
  if (!names) return {"cannot look: " + error_text(errno)};
  std::vector<int> numbers;
  for (const std::string& name : *names) {
    int number = -1;
    if (std::from_chars(name.data(), name.data() + name.size(), number).ec == std::errc()) {
      numbers.push_back(number);
    }
  }
  std::sort(numbers.begin(), numbers.end());
  std::vector<std::string> descriptors;
  for (const int number : numbers) {
    const std::string text = std::to_string(number);
    descriptors.push_back(text + " " +
                          printable(read_link(proc_path(pid, "fd/" + text)).value_or("?")));
  }
  return descriptors;
}

// The last of the four numbers of a Uid or Gid line is the one for files.
std::optional<std::uint32_t> file_id(const ProcStatus& status, const std::string& line) {
  const auto words = words_of(value_of(status, line));
  if (words.size() < 4) return std::nullopt;
  return static_cast<std::uint32_t>(std::strtoul(words[3].c_str(), nullptr, 10));
}

// Whose files in /proc we may open from now on. The group first: the right to change it goes with
// the uid, and comes back with it.
void look_as(std::uint32_t uid, std::uint32_t gid) noexcept {
  (void)::setfsgid(gid);
  (void)::setfsuid(uid);
}

void read_maps(ProcessPosture& posture) {
  const auto maps = read_file(proc_path(posture.pid, "maps"));
  if (!maps) {
    posture.executable_maps.push_back("cannot look: " + error_text(errno));
    return;
  }
  for (const std::string& line : lines_of(*maps)) {
    const auto words = words_of(line);
    if (words.size() < 2 || words[1].find('x') == std::string::npos) continue;
    posture.executable_maps.push_back(printable(line));
    if (words[1].find('w') != std::string::npos) posture.suspicious_maps.push_back(printable(line));
  }
}

}  // namespace

Result<ProcessPosture> read_posture(pid_t pid, const common::LayerResults* claimed) {
  auto status = read_status(pid);
  if (!status) return fail_errno("read /proc/PID/status", errno == 0 ? ESRCH : errno);
  const pid_t parent = parent_of(*status);
  const Subject subject{pid, parent, *std::move(status), read_status(parent).value_or(ProcStatus{}),
                        claimed};
  ProcessPosture posture;
  posture.pid = pid;
  posture.title = title_of(pid);
  posture.role = role_of(pid, posture.title);
  posture.layers = view_layers(subject);
  posture.descriptors = descriptors_of(pid);
  read_maps(posture);
  return posture;
}

Result<ProcessPosture> read_posture_as_owner(pid_t pid, const common::LayerResults* claimed) {
  const auto theirs = read_status(pid);
  const auto ours = read_status(::getpid());
  if (!theirs || !ours) return fail_errno("read /proc/PID/status", errno == 0 ? ESRCH : errno);
  const auto uid = file_id(*theirs, "Uid");
  const auto gid = file_id(*theirs, "Gid");
  if (!uid || !gid) return fail_errno("read the ids in /proc/PID/status", EPROTO);
  look_as(*uid, *gid);
  auto posture = read_posture(pid, claimed);
  look_as(file_id(*ours, "Uid").value_or(::geteuid()), file_id(*ours, "Gid").value_or(::getegid()));
  return posture;
}

std::vector<pid_t> process_tree(pid_t root) {
  std::multimap<pid_t, pid_t> children;
  for (const std::string& name : list_directory("/proc").value_or(std::vector<std::string>{})) {
    pid_t pid = 0;
    const auto parsed = std::from_chars(name.data(), name.data() + name.size(), pid);
    if (parsed.ec != std::errc{} || parsed.ptr != name.data() + name.size()) continue;
    if (const auto status = read_status(pid)) children.emplace(parent_of(*status), pid);
  }
  std::vector<pid_t> tree;
  if (read_status(root)) tree.push_back(root);
  for (std::size_t i = 0; i < tree.size(); ++i) {
    const auto [first, last] = children.equal_range(tree[i]);
    std::vector<pid_t> found;
    std::transform(first, last, std::back_inserter(found),
                   [](const auto& each) { return each.second; });
    std::sort(found.begin(), found.end());
    tree.insert(tree.end(), found.begin(), found.end());
  }
  return tree;
}

// The kernel shows of whom a pidfd is.
std::vector<pid_t> held_processes(pid_t root, const std::vector<pid_t>& tree) {
  std::vector<pid_t> found;
  const std::string directory = proc_path(root, "fdinfo/");
  for (const std::string& fd : list_directory(directory).value_or(std::vector<std::string>{})) {
    const auto info = read_file(directory + fd);
    for (const std::string& line : lines_of(info.value_or(""))) {
      pid_t pid = 0;
      if (!line.starts_with("Pid:\t")) continue;
      (void)std::from_chars(line.data() + 5, line.data() + line.size(), pid);
      const bool known = std::find(tree.begin(), tree.end(), pid) != tree.end() ||
                         std::find(found.begin(), found.end(), pid) != found.end();
      if (pid > 0 && !known) found.push_back(pid);
    }
  }
  std::sort(found.begin(), found.end());
  return found;
}

}  // namespace policy
