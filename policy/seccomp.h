// policy/seccomp.h: from a permission table to a filter. libseccomp lives in seccomp.cpp only,
// which only the broker links: a jailed process receives its filter as bytes and needs no library.
#pragma once

#include <string>
#include <vector>

#include "common/ipc/jail_order.h"
#include "common/result.h"
#include "policy/profile.h"

namespace policy {

// The filter: default action KILL_PROCESS, for foreign architectures too. Errors: what libseccomp
// says, or ENOSPC if it came out longer than common::ipc::kFilterInstructionsMax, which only one
// that refuses instead of killing may: no message carries it.
[[nodiscard]] common::Result<std::vector<common::ipc::FilterInstruction>> compile_filter(
    const Profile& profile);

// The same for --forensic (policy/forensic.h): the filter that waits for the broker, and the one
// that closes it, which together are not longer than that.
struct ForensicFilters {
  std::vector<common::ipc::FilterInstruction> waiting;
  std::vector<common::ipc::FilterInstruction> closing;
};
[[nodiscard]] common::Result<ForensicFilters> compile_forensic(const Profile& profile);

// One that allows everything but `not_there`, which fails with ENOSYS.
[[nodiscard]] common::Result<std::vector<common::ipc::FilterInstruction>> compile_absence(
    const Profile& profile);

// Installs both filters in this process, for good; all its threads and children have it from now
// on. What the first refuses or kills for is logged.
[[nodiscard]] common::Result<void> install_own_filter(const Profile& profile);

// The name of a system call of this architecture ("openat"), or "#462" for one that is newer than
// libseccomp.
[[nodiscard]] std::string syscall_name(int number);

}  // namespace policy
