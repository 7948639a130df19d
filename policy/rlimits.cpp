#include "policy/rlimits.h"

#include <sys/resource.h>

#include <algorithm>
#include <cerrno>
#include <csignal>

#include "policy/jail.h"

namespace policy {
namespace {

using common::fail_errno;
using common::Result;

// Lowers soft and hard limit to `value`; a limit that is lower already stays.
template <typename Resource>
Result<void> lower(Resource resource, rlim_t value,
                   const char* what) noexcept {  // syscalls: prlimit64
  rlimit now{};
  if (::getrlimit(resource, &now) != 0) return fail_errno(what, errno);
  const rlim_t bound = std::min(value, now.rlim_max);
  const rlimit wanted{bound, bound};
  if (::setrlimit(resource, &wanted) != 0) return fail_errno(what, errno);
  return {};
}

}  // namespace

Result<void> set_early_rlimits() noexcept {
  // A limit of 0 does not stop a dump into a pipe (core_pattern "|..."), 1 does.
  TRY(lower(RLIMIT_CORE, 1, "RLIMIT_CORE"));
  TRY(lower(RLIMIT_MSGQUEUE, 0, "RLIMIT_MSGQUEUE"));
  TRY(lower(RLIMIT_RTPRIO, 0, "RLIMIT_RTPRIO"));
  if (::signal(SIGXFSZ, SIG_IGN) == SIG_ERR) return fail_errno("ignore SIGXFSZ", errno);
  return {};
}

Result<void> set_final_rlimits(const JailLimits& limits, bool own_user_namespace) noexcept {
  TRY(lower(RLIMIT_FSIZE, limits.file_size_bytes, "RLIMIT_FSIZE"));
  TRY(lower(RLIMIT_MEMLOCK, 0, "RLIMIT_MEMLOCK"));
  // Counted for each uid of a user namespace. Without one of our own it would count the processes
  // of strangers, and io_uring's threads, which count too, would fail for reasons nobody can see.
  if (own_user_namespace) TRY(lower(RLIMIT_NPROC, limits.processes, "RLIMIT_NPROC"));
  return lower(RLIMIT_NOFILE, limits.descriptors, "RLIMIT_NOFILE");
}

}  // namespace policy
