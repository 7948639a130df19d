#include "broker/least_privilege.h"

#include <linux/capability.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <string>

#include "policy/broker.h"
#include "policy/capabilities.h"
#include "policy/sanitizer.h"
#include "policy/seccomp.h"

namespace broker {
namespace {

// True where root without CAP_DAC_OVERRIDE could not remove the socket at the end.
bool directory_is_anothers(const std::string& socket_path) {
  const std::size_t slash = socket_path.rfind('/');
  const std::string directory =
      slash == std::string::npos ? "." : socket_path.substr(0, std::max<std::size_t>(slash, 1));
  struct stat status {};
  if (::stat(directory.c_str(), &status) != 0) return false;
  return status.st_uid != ::geteuid() || (status.st_mode & S_IWUSR) == 0;
}

bool reaches_into_others_directories(const DeviceConfig& device) {
  if (device.socket_path.empty()) return false;
  return device.client || directory_is_anothers(device.socket_path);
}

}  // namespace

std::vector<unsigned> needed_capabilities(const BrokerConfig& config, const Host& host) {
  // Where there is an operator's socket, devices can be added that nobody knows of yet.
  const std::string control = config.control_socket.value_or("");
  std::vector<unsigned> needed;
  if (host.may_change_ids) {
    needed.push_back(CAP_SETUID);  // Sessions and workers get a uid of their own:
    needed.push_back(CAP_SETGID);  // uid_map, gid_map, or setresuid in the child.
  }
  const bool own_user_namespaces = (host.namespaces.flags & CLONE_NEWUSER) != 0;
  if (host.may_change_ids && !own_user_namespaces) {
    // Whoever made a user namespace may do these to everybody in it, without a capability.
    needed.push_back(CAP_KILL);             // They are to be killed under their uid.
    needed.push_back(CAP_SYS_PTRACE);       // SIGUSR1 shows their fd tables, maps and namespaces
    needed.push_back(CAP_DAC_READ_SEARCH);  // (/proc/PID of another uid).
  }
  if (config.keeps_orphans() && ::geteuid() == 0) {
    needed.push_back(CAP_SETFCAP);  // The user namespace of a keeper has our uid, and that is root.
  }
  if (host.namespaces.admin_only) {
    needed.push_back(CAP_SYS_ADMIN);  // clone(), and without a user namespace mounts in the child.
  }
  if (host.namespaces.flags != 0 && !own_user_namespaces) {
    needed.push_back(CAP_SETPCAP);  // The child's bounding set and securebits.
  }
  const auto may_use_rings = [](const DeviceConfig& device) {
    return device.engine != EngineChoice::kFallback;
  };
  if (host.uring.engine_possible &&
      (!control.empty() || config.control_by_default ||
       std::any_of(config.devices.begin(), config.devices.end(), may_use_rings))) {
    // A ring that is made without it counts against RLIMIT_MEMLOCK, which all rings of a user share
    // and which is 8 MiB on most hosts: enough for some 90 workers.
    needed.push_back(CAP_IPC_LOCK);
  }
  if (std::any_of(config.devices.begin(), config.devices.end(), reaches_into_others_directories) ||
      (!control.empty() && directory_is_anothers(control)) ||
      (!config.takeover_socket.empty() && directory_is_anothers(config.takeover_socket))) {
    needed.push_back(CAP_DAC_OVERRIDE);  // --client connects, and stopping removes a socket, there.
  }
  if (config.audit.kernel != KernelAudit::kOff) {
    needed.push_back(CAP_AUDIT_WRITE);  // Each record.
  }
  return needed;
}

const policy::Profile* own_list(const BrokerConfig& config, bool cgroups) noexcept {
  if (config.forensic) return nullptr;  // policy/forensic.h
  // By an operator, or in the file that SIGHUP has read again.
  const bool operated =
      config.control_socket ? !config.control_socket->empty() : config.control_by_default;
  const bool adds = operated || !config.config_path.empty();
  if (adds) return cgroups ? &policy::kBrokerThatAddsWithCgroups : &policy::kBrokerThatAdds;
  return cgroups ? &policy::kBrokerWithCgroups : &policy::kBroker;
}

common::Result<void> give_up_privileges(const std::vector<unsigned>& kept,
                                        const policy::Profile* own_list) {
  TRY(policy::keep_capabilities(kept));
  if (::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) {
    return common::fail_errno("no_new_privs", errno);
  }
  if (::prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) != 0) return common::fail_errno("not dumpable", errno);
  // Sanitizers ask the kernel for more, and at the end of a broker for much more.
  if (policy::kSanitizerBuild || own_list == nullptr) return {};
  return policy::install_own_filter(*own_list);
}

void raise_limits() noexcept {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) == 0) {
    limit.rlim_cur = limit.rlim_max;
    (void)::setrlimit(RLIMIT_NOFILE, &limit);
  }
  // A worker's ring counts as locked memory of ours: the usual 8 MiB are full at some 100 of them.
  constexpr rlimit kNone{RLIM_INFINITY, RLIM_INFINITY};
  if (::setrlimit(RLIMIT_MEMLOCK, &kNone) != 0 && ::getrlimit(RLIMIT_MEMLOCK, &limit) == 0) {
    limit.rlim_cur = limit.rlim_max;
    (void)::setrlimit(RLIMIT_MEMLOCK, &limit);
  }
}

}  // namespace broker
