#include "broker/death.h"

#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cstdio>
#include <utility>

#include "broker/event_text.h"
#include "policy/seccomp.h"

namespace broker {

bool Death::exited_with(int code) const noexcept { return exited() && status == code; }
bool Death::exited() const noexcept { return si_code == CLD_EXITED; }
bool Death::by_seccomp() const noexcept {
  return caught.has_value() ||
         ((si_code == CLD_KILLED || si_code == CLD_DUMPED) && status == SIGSYS);
}

std::optional<Death> reap(common::FdRef pidfd) noexcept {
  siginfo_t info{};
  const auto id = static_cast<id_t>(pidfd.number);
  if (::waitid(P_PIDFD, id, &info, WEXITED | WNOHANG) != 0 || info.si_pid == 0) {
    return std::nullopt;
  }
  return Death{info.si_code, info.si_status, {}};
}

void kill_child(common::FdRef pidfd) noexcept {
  (void)::syscall(SYS_pidfd_send_signal, pidfd.number, SIGKILL, nullptr, 0U);
}

std::string describe_kill(const SeccompKill& kill) {
  std::string words = "killed by seccomp: system call ";
  words += kill.native ? policy::syscall_name(kill.system_call)
                       : std::to_string(kill.system_call) + " of another architecture's table";
  if (kill.instruction == 0) return words;
  std::array<char, 48> where{};
  std::snprintf(where.data(), where.size(), " at 0x%llx",
                static_cast<unsigned long long>(kill.instruction));
  words += where.data();
  if (!kill.arguments) return words;
  for (std::size_t i = 0; i < kill.arguments->size(); ++i) {
    std::snprintf(where.data(), where.size(), "%s0x%llx", i == 0 ? ", with arguments " : " ",
                  static_cast<unsigned long long>((*kill.arguments)[i]));
    words += where.data();
  }
  return words;
}

std::string words_for(const Death& death) {
  return death.caught ? describe_kill(*death.caught) : describe_death(death.si_code, death.status);
}

void explain_death(const Death& death, pid_t pid, AuditReader* audit,
                   std::function<void(const std::string& words)> tell) {
  if (!death.by_seccomp() || death.caught || audit == nullptr) return tell(words_for(death));
  audit->find(pid, [death, tell = std::move(tell)](const std::optional<SeccompKill>& kill) {
    tell(kill ? describe_kill(*kill) : words_for(death));
  });
}

}  // namespace broker
