// broker/death.h: how a child ended.
#pragma once

#include <sys/types.h>

#include <functional>
#include <optional>
#include <string>

#include "broker/audit_reader.h"
#include "common/fd.h"
#include "policy/spawn.h"

namespace broker {

// As in siginfo_t.
struct Death {
  int si_code = 0;
  int status = 0;
  bool known = true;  // False: it has ended, and how cannot be found out any more.
  std::optional<SeccompKill> caught{};  // --forensic: we have killed it for this.

  [[nodiscard]] bool exited_with(int code) const noexcept;
  [[nodiscard]] bool exited() const noexcept;
  [[nodiscard]] bool by_seccomp() const noexcept;
};

// Nothing while the child still runs.
[[nodiscard]] std::optional<Death> reap(common::FdRef pidfd) noexcept;

// Of a process that is not our child, whose pidfd says that it has ended: while its parent has not
// reaped it from /proc, if we may know, and then from the pidfd (Linux 6.15; `known` false where
// that does not tell). Nothing where /proc does not tell and that may be different soon.
[[nodiscard]] std::optional<Death> death_of_adopted(const policy::Child& child) noexcept;

// SIGKILL; does nothing where it is dead already.
void kill_child(common::FdRef pidfd) noexcept;

// "killed by seccomp: system call openat at 0x7f4a", the last of it the instruction pointer.
[[nodiscard]] std::string describe_kill(const SeccompKill& kill);

// How it ended, without the kernel's audit record.
[[nodiscard]] std::string words_for(const Death& death);

// The same where it was that, else how it ended. Calls back at once, or after a short while where
// the kernel's audit record is still to come. `audit` may be null.
void explain_death(const Death& death, pid_t pid, AuditReader* audit,
                   std::function<void(const std::string& words)> tell);

}  // namespace broker
