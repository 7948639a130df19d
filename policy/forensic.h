// policy/forensic.h: what --forensic changes in a jail. Instead of being killed by the kernel, a
// process that does what its profile does not list is stopped there; the broker reads what it was
// about to do, with its arguments, writes it down and kills it (broker/forensics.h). It never goes
// on, and the broker never answers for it.
//
// For hosts whose audit log the broker cannot read (containers), and for those who want arguments.
// The price: were the broker killed in that very moment, the call would fail (ENOSYS) and the
// process live on, still in its jail. And the broker has no list of its own then: its children
// inherit it, the kernel does what the strictest filter says, and a refusal (EPERM) is stricter
// than asking; they would be refused, and nobody would hear of it.
//
// Two filters make the one of a profile. The first stops what the profile does not list; besides,
// it lets the process hand its end of this (the listener) to the broker. The second, right after
// that and for good, kills for what only the handing over needed.
#pragma once

#include <linux/seccomp.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#include "common/ipc/jail_order.h"
#include "policy/profile.h"

namespace policy {

// Not for a call that the profile lists itself: then its own rows do.
inline constexpr SyscallRule kHandOverSyscalls[] = {
    {SYS_sendmsg,
     {arg_is(0, common::ipc::kForensicFd), arg_within(2, MSG_NOSIGNAL)},
     "common/ipc/channel.cpp: send_bytes"},
    {SYS_close, {}, "common/fd.h: reset"},
    {SYS_prlimit64, {arg_is(0, 0)}, "policy/rlimits.cpp: lower"},
    {SYS_seccomp,
     {arg_is(0, SECCOMP_SET_MODE_FILTER), arg_is(1, 0)},
     "policy/jail.cpp: install_filter"},
};

}  // namespace policy
