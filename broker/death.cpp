#include "broker/death.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <charconv>
#include <cstdint>
#include <cstdio>
#include <string_view>
#include <system_error>
#include <utility>

#include "broker/event_text.h"
#include "policy/seccomp.h"

namespace broker {

namespace {

// struct pidfd_info, newer than the headers of most build hosts. As of Linux 6.15, 64 bytes.
struct PidfdInfo {
  std::uint64_t mask;
  std::uint64_t cgroup_id;
  std::array<std::uint32_t, 11> ids;
  std::int32_t exit_code;
};
static_assert(sizeof(PidfdInfo) == 64);
constexpr unsigned kPidfdMagic = 0xff;
constexpr unsigned kGetInfo = 11;
constexpr std::uint64_t kInfoExit = 1U << 3;

Death death_of_status(int status) noexcept {
  if (WIFEXITED(status)) return {CLD_EXITED, WEXITSTATUS(status)};
  return {WCOREDUMP(status) ? CLD_DUMPED : CLD_KILLED, WTERMSIG(status)};
}

// The last field of /proc/PID/stat. The name, which may be anything, is in the only parentheses
// that the last one of the line closes.
std::optional<int> status_of_zombie(pid_t pid) noexcept {
  std::array<char, 64> path{};
  std::snprintf(path.data(), path.size(), "/proc/%d/stat", static_cast<int>(pid));
  const common::Fd file(::open(path.data(), O_RDONLY | O_CLOEXEC));
  std::array<char, 1024> text{};
  const ssize_t got = file.valid() ? ::read(file.ref().number, text.data(), text.size() - 1) : -1;
  if (got <= 0) return std::nullopt;
  std::string_view line(text.data(), static_cast<std::size_t>(got));
  while (!line.empty() && (line.back() == '\n' || line.back() == ' ')) line.remove_suffix(1);
  const std::size_t name_end = line.rfind(") ");
  const std::size_t last = line.rfind(' ');
  if (name_end == line.npos || line.substr(name_end + 2, 1) != "Z" || last <= name_end + 2) {
    return std::nullopt;
  }
  int status = 0;
  const auto parsed = std::from_chars(line.data() + last + 1, line.data() + line.size(), status);
  return parsed.ec == std::errc() ? std::optional(status) : std::nullopt;
}

}  // namespace

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
  return Death{info.si_code, info.si_status};
}

std::optional<Death> death_of_adopted(const policy::Child& child) noexcept {
  const int pidfd = child.pidfd.ref().number;
  PidfdInfo info{};
  info.mask = kInfoExit;
  const int asked = ::ioctl(pidfd, _IOWR(kPidfdMagic, kGetInfo, PidfdInfo), &info);
  if (asked == 0 && (info.mask & kInfoExit) != 0) return death_of_status(info.exit_code);
  const auto status = status_of_zombie(child.pid);
  // Still there after it was read: so it was that process, and not another one of its number.
  const bool zombie = ::syscall(SYS_pidfd_send_signal, pidfd, 0, nullptr, 0U) == 0;
  if (zombie && status && *status != 0) return death_of_status(*status);
  // 0 is also what somebody reads who may not know. Once it is reaped, the pidfd tells.
  if (asked == 0) return std::nullopt;
  return Death{CLD_KILLED, 0, false};
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
  if (!death.known)
    return tell(
        "ended; only the broker that started it could have seen how, so it counts as a plain "
        "death");
  if (!death.by_seccomp() || death.caught || audit == nullptr) return tell(words_for(death));
  audit->find(pid, [death, tell = std::move(tell)](const std::optional<SeccompKill>& kill) {
    tell(kill ? describe_kill(*kill) : words_for(death));
  });
}

}  // namespace broker
