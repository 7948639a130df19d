// tests/fakes/process.h: what /proc says about processes, and descriptors that tests need.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <vector>

namespace fakes {

[[nodiscard]] std::vector<pid_t> children_of(pid_t pid);
// The process and everything below it, parents first.
[[nodiscard]] std::vector<pid_t> tree_of(pid_t pid);
// All there are whose command line begins with this, whoever their parent is.
[[nodiscard]] std::vector<pid_t> processes_titled(const std::string& title);
// argv, with blanks between.
[[nodiscard]] std::string command_line_of(pid_t pid);
// "3 -> socket:[123]" for each descriptor; empty where the table is empty or the process is gone.
[[nodiscard]] std::vector<std::string> descriptors_of(pid_t pid);
// The kilobytes of a line of /proc/PID/status or smaps_rollup ("VmRSS"); 0 if there is none.
[[nodiscard]] std::uint64_t kilobytes_of(pid_t pid, const char* file, const std::string& field);
// How many lines of /proc/PID/maps contain `text`.
[[nodiscard]] int maps_with(pid_t pid, const std::string& text);
// One field of /proc/PID/status ("Seccomp"), or empty.
[[nodiscard]] std::string status_field(pid_t pid, const std::string& field);
// Sleeps until the process has ended; false after the fakes' patience. It need not be our child.
[[nodiscard]] bool wait_gone(pid_t pid);

// Looks until a thread of it waits in the kernel where no signal reaches it; false after the fakes'
// patience.
[[nodiscard]] bool wait_uninterruptible(pid_t pid);

// Makes a process that waits in a system call do another one, as code that was slipped into it
// would. False where it cannot be made to.
[[nodiscard]] bool inject_system_call(pid_t pid, long number);

// What threads have used, in nanoseconds and voluntary switches: of the given processes together.
struct CpuUse {
  std::uint64_t run_ns = 0;
  std::uint64_t switches = 0;
};
[[nodiscard]] CpuUse cpu_use_of(const std::vector<pid_t>& pids);

}  // namespace fakes
