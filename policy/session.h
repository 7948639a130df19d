// policy/session.h: everything a session may do once it is sealed, all on this page.
#pragma once

#include <sys/socket.h>
#include <sys/syscall.h>

#include "common/ipc/session_broker.h"
#include "policy/profile.h"

namespace policy {

// A session receives descriptors as long as it lives (guest memory, eventfds, workers' sockets), so
// their numbers are bounded, not fixed: 509 regions, 4 for each of 129 queues, those of a message,
// and its own.
inline constexpr std::uint64_t kSessionDescriptorsMax = 1088;
inline constexpr ArgLimit kSessionAnyFd = arg_at_most(0, kSessionDescriptorsMax - 1);

inline constexpr SyscallRule kSessionSyscalls[] = {
    {SYS_ppoll, {kNoSignalMask}, "broker/session/wait.cpp: wait"},
    {SYS_recvmsg,
     {kSessionAnyFd, arg_within(2, MSG_CMSG_CLOEXEC | MSG_DONTWAIT)},
     "common/ipc/channel.cpp: receive"},
    {SYS_sendmsg,
     {kSessionAnyFd, arg_within(2, MSG_NOSIGNAL | MSG_DONTWAIT)},
     "common/ipc/channel.cpp: send_bytes"},
    {SYS_close, {kSessionAnyFd}, "common/fd.h: reset"},
    {SYS_fstat, {kSessionAnyFd}, "broker/session/descriptor_check.cpp: mode_of"},
    {SYS_write, {kSessionAnyFd, arg_is(2, 8)}, "broker/session/vring.cpp: signal"},
    {SYS_exit_group, {kExitCode}, "broker/session/main.cpp: leave"},
};

inline constexpr int kSessionFds[] = {static_cast<int>(common::ipc::SessionFd::kBroker),
                                      static_cast<int>(common::ipc::SessionFd::kVmm)};

inline constexpr Profile kSession{
    .name = "session",
    .may = "speak vhost-user with one VMM, and pass what it was given to its workers",
    .must_never = "hold a disk or a tap, map guest memory, open, connect, fork, exec",
    .syscalls = kSessionSyscalls,
    .uring_opcodes = {},
    .descriptors = kSessionFds,
};

}  // namespace policy
