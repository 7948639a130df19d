// policy/sanitizer.h: what a sanitizer's run-time asks of the kernel, added to every profile in
// builds with -DBULKHEAD_SANITIZE. A release build contains an empty list.
//
// Those builds look for our bugs; they are no jail to rely on. Three things differ in them: these
// system calls, descriptor 2 stays open for the report, and tests/escape leaves out the acts that
// the list permits.
#pragma once

#include <sys/syscall.h>

#include <span>

#include "policy/profile.h"

namespace policy {

#ifdef BULKHEAD_SANITIZER

inline constexpr bool kSanitizerBuild = true;
inline constexpr SyscallRule kSanitizerRules[] = {
    // Shadow memory, and the allocator behind a report.
    {SYS_mmap, {}, "sanitizer"},
    {SYS_munmap, {}, "sanitizer"},
    {SYS_madvise, {}, "sanitizer"},
    {SYS_mprotect, {}, "sanitizer"},
    {SYS_prctl, {}, "sanitizer"},
    // The report: text to descriptor 2, names from /proc/self, which an empty root does not have.
    {SYS_write, {arg_is(0, 2)}, "sanitizer"},
    {SYS_openat, {}, "sanitizer"},
    {SYS_open, {}, "sanitizer"},
    {SYS_readlink, {}, "sanitizer"},
    {SYS_readlinkat, {}, "sanitizer"},
    {SYS_stat, {}, "sanitizer"},
    {SYS_newfstatat, {}, "sanitizer"},
    {SYS_close, {}, "sanitizer"},
    {SYS_getpid, {}, "sanitizer"},
    {SYS_gettid, {}, "sanitizer"},
    {SYS_sigaltstack, {}, "sanitizer"},
    {SYS_getrlimit, {}, "sanitizer"},
    {SYS_prlimit64, {}, "sanitizer"},
    {SYS_uname, {}, "sanitizer"},
    {SYS_ioctl, {arg_is(0, 2)}, "sanitizer"},  // Is descriptor 2 a terminal?
    // ThreadSanitizer's own thread and locks.
    {SYS_rt_sigprocmask, {}, "sanitizer"},
    {SYS_rt_sigaction, {}, "sanitizer"},
    {SYS_rt_sigreturn, {}, "sanitizer"},
    {SYS_futex, {}, "sanitizer"},
    {SYS_sched_yield, {}, "sanitizer"},
    {SYS_nanosleep, {}, "sanitizer"},
    {SYS_clock_nanosleep, {}, "sanitizer"},
    {SYS_clock_gettime, {}, "sanitizer"},
};
inline constexpr std::span<const SyscallRule> kSanitizerSyscalls = kSanitizerRules;

#else

inline constexpr bool kSanitizerBuild = false;
inline constexpr std::span<const SyscallRule> kSanitizerSyscalls{};

#endif

}  // namespace policy
