#include "tests/fakes/process.h"

#include <poll.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "common/fd.h"
#include "tests/fakes/failure.h"
#include "tests/fakes/vhost_frontend.h"

namespace fakes {
namespace {

std::string read_file(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  std::ostringstream text;
  text << in.rdbuf();
  return text.str();
}

std::string proc(pid_t pid, const std::string& file) {
  return "/proc/" + std::to_string(pid) + "/" + file;
}

std::vector<std::string> entries_of(const std::string& directory) {
  std::vector<std::string> names;
  std::error_code error;
  for (std::filesystem::directory_iterator entry(directory, error), end; !error && entry != end;
       entry.increment(error)) {
    names.push_back(entry->path().filename());
  }
  return names;
}

// The value of "name:   value" in a file of such lines.
std::string field_of(const std::string& text, const std::string& field) {
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    if (!line.starts_with(field + ":")) continue;
    const std::size_t start = line.find_first_not_of(" \t", field.size() + 1);
    return start == std::string::npos ? "" : line.substr(start);
  }
  return "";
}

}  // namespace

std::vector<pid_t> children_of(pid_t pid) {
  std::vector<pid_t> children;
  for (const std::string& thread : entries_of(proc(pid, "task"))) {
    std::istringstream list(read_file(proc(pid, "task/" + thread + "/children")));
    for (pid_t child = 0; list >> child;) children.push_back(child);
  }
  return children;
}

std::vector<pid_t> tree_of(pid_t pid) {
  std::vector<pid_t> tree{pid};
  for (std::size_t i = 0; i < tree.size(); ++i) {
    const std::vector<pid_t> below = children_of(tree[i]);
    tree.insert(tree.end(), below.begin(), below.end());
  }
  return tree;
}

std::string command_line_of(pid_t pid) {
  std::string line = read_file(proc(pid, "cmdline"));
  std::ranges::replace(line, '\0', ' ');
  return line;
}

std::vector<pid_t> processes_titled(const std::string& title) {
  std::vector<pid_t> found;
  for (const std::string& name : entries_of("/proc")) {
    if (name.find_first_not_of("0123456789") != std::string::npos) continue;
    const auto pid = static_cast<pid_t>(std::stol(name));
    if (command_line_of(pid).starts_with(title)) found.push_back(pid);
  }
  return found;
}

std::vector<std::string> descriptors_of(pid_t pid) {
  std::vector<std::string> table;
  for (const std::string& number : entries_of(proc(pid, "fd"))) {
    std::error_code error;
    const auto target = std::filesystem::read_symlink(proc(pid, "fd/" + number), error);
    table.push_back(number + " -> " + target.string());
  }
  std::ranges::sort(table);
  return table;
}

std::string status_field(pid_t pid, const std::string& field) {
  return field_of(read_file(proc(pid, "status")), field);
}

std::uint64_t kilobytes_of(pid_t pid, const char* file, const std::string& field) {
  const std::string value = field_of(read_file(proc(pid, file)), field);
  return value.empty() ? 0 : std::stoull(value);
}

int maps_with(pid_t pid, const std::string& text) {
  std::istringstream lines(read_file(proc(pid, "maps")));
  int count = 0;
  for (std::string line; std::getline(lines, line);) {
    if (line.find(text) != std::string::npos) ++count;
  }
  return count;
}

bool wait_gone(pid_t pid) {
  const common::Fd pidfd(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)));
  if (!pidfd.valid()) return errno == ESRCH;
  pollfd waiting{pidfd.ref().number, POLLIN, 0};
  const auto patience = std::chrono::milliseconds(kPatience).count();
  return ::poll(&waiting, 1, static_cast<int>(patience)) == 1;
}

bool wait_uninterruptible(pid_t pid) {
  const auto end = std::chrono::steady_clock::now() + kPatience;
  while (std::chrono::steady_clock::now() < end) {
    for (const std::string& thread : entries_of(proc(pid, "task"))) {
      // "PID (comm) STATE …"
      const std::string stat = read_file(proc(pid, "task/" + thread + "/stat"));
      const std::size_t name_end = stat.rfind(") ");
      if (name_end != std::string::npos && stat[name_end + 2] == 'D') return true;
    }
    ::poll(nullptr, 0, 1);
  }
  return false;
}

#if defined(__x86_64__)
namespace {

constexpr unsigned kInstructionBytes = 2;
constexpr long kSyscallInstruction = 0x050f;

// The tracee is stopped. False where it does not stand behind a `syscall`.
bool turn_back_to(pid_t pid, long number) {
  user_regs_struct registers{};
  if (::ptrace(PTRACE_GETREGS, pid, nullptr, &registers) != 0) return false;
  registers.rip -= kInstructionBytes;
  const long code = ::ptrace(PTRACE_PEEKTEXT, pid, registers.rip, nullptr);
  if ((code & 0xffff) != kSyscallInstruction) return false;
  registers.rax = static_cast<unsigned long long>(number);
  registers.orig_rax = ~0ULL;  // No call that would be restarted.
  return ::ptrace(PTRACE_SETREGS, pid, nullptr, &registers) == 0;
}

}  // namespace

bool inject_system_call(pid_t pid, long number) {
  const auto end = std::chrono::steady_clock::now() + kPatience;
  while (std::chrono::steady_clock::now() < end) {
    int status = 0;
    if (::ptrace(PTRACE_ATTACH, pid, nullptr, nullptr) != 0) return false;
    const bool stopped = ::waitpid(pid, &status, __WALL) == pid && WIFSTOPPED(status);
    const bool done = stopped && turn_back_to(pid, number);
    if (::ptrace(PTRACE_DETACH, pid, nullptr, nullptr) != 0) return false;
    if (done) return true;
    ::poll(nullptr, 0, 1);  // It was at work: once more.
  }
  return false;
}
#else
bool inject_system_call(pid_t, long) { return false; }
#endif

CpuUse cpu_use_of(const std::vector<pid_t>& pids) {
  CpuUse sum;
  for (const pid_t pid : pids) {
    for (const std::string& thread : entries_of(proc(pid, "task"))) {
      std::istringstream times(read_file(proc(pid, "task/" + thread + "/schedstat")));
      std::uint64_t run_ns = 0;
      times >> run_ns;
      sum.run_ns += run_ns;
      const std::string status = read_file(proc(pid, "task/" + thread + "/status"));
      const std::string switches = field_of(status, "voluntary_ctxt_switches");
      if (!switches.empty()) sum.switches += std::stoull(switches);
    }
  }
  return sum;
}

}  // namespace fakes
