// policy/core_scheduling.h: cookies of core scheduling (prctl(2), PR_SCHED_CORE; Linux 5.14 with
// CONFIG_SCHED_CORE, on processors whose cores have several hardware threads).
//
// The kernel never runs two processes with different cookies at once on one core, so neither learns
// from the caches and predictors that its threads share what the other is doing. All processes of
// one VMM's connection have one cookie, which nobody else has:
//
// * A session makes it, before it reads anything. So does any process that is given none.
// * A worker is given its session's between clone() and exec, by the broker, which alone can name
//   both. The kernel asks for the right to trace them: the broker made their user namespace, or has
//   CAP_SYS_PTRACE, or, of a child that is no other program yet, is the same user.
// * The broker itself has none of them at any moment: a thread of its own, which ends, carries a
//   cookie over.
//
// A worker that finds another cookie than the one it was promised makes one: it then shares a core
// with less than it might, never with more.
#pragma once

#include <sys/types.h>

#include <cstdint>

#include "common/result.h"

namespace policy {

// Newer than the headers of some build hosts.
inline constexpr std::uint64_t kPrSchedCore = 62;
inline constexpr std::uint64_t kCookieGet = 0;
inline constexpr std::uint64_t kCookieCreate = 1;
inline constexpr std::uint64_t kCookieShareTo = 2;    // The caller's, to that thread.
inline constexpr std::uint64_t kCookieShareFrom = 3;  // That thread's, for the caller.

// What the kernel names a cookie by; 0: none.
using CoreCookie = std::uint64_t;

// A new one for the caller, with all of its threads. ENODEV: no core has several threads; EINVAL:
// the kernel knows no cookies.
[[nodiscard]] common::Result<void> make_core_cookie() noexcept;

// Of one thread; 0: the caller.
[[nodiscard]] common::Result<CoreCookie> core_cookie_of(pid_t thread) noexcept;

// Broker only. `to`, a child that has one thread and waits, gets the cookie of `from`. It need not
// be said whether that worked: the child will look.
void carry_core_cookie(pid_t from, pid_t to) noexcept;

}  // namespace policy
