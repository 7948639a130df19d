// policy/keeper.h: everything a keeper may do once it is sealed, all on this page.
//
// It holds copies of the broker's descriptors, disks and taps included, and reads nothing but the
// fixed-size messages of brokers: no byte of a VMM, a guest, a session or a worker.
#pragma once

#include <sys/socket.h>
#include <sys/syscall.h>

#include "common/ipc/keeper_messages.h"
#include "policy/profile.h"

namespace policy {

// As many as a broker may have.
inline constexpr std::uint64_t kKeeperDescriptorsMax = 524288;
inline constexpr ArgLimit kKeeperAnyFd = arg_at_most(0, kKeeperDescriptorsMax - 1);

inline constexpr SyscallRule kKeeperSyscalls[] = {
    {SYS_ppoll, {kNoSignalMask}, "broker/keeper/keeper.cpp: sleep"},
    {SYS_recvmsg,
     {kKeeperAnyFd, arg_within(2, MSG_CMSG_CLOEXEC | MSG_DONTWAIT)},
     "common/ipc/channel.cpp: receive"},
    {SYS_sendmsg,
     {kKeeperAnyFd, arg_within(2, MSG_NOSIGNAL | MSG_DONTWAIT)},
     "common/ipc/channel.cpp: send_bytes"},
    {SYS_close, {kKeeperAnyFd}, "common/fd.h: reset"},
    {SYS_accept4,
     {arg_is(0, static_cast<std::uint64_t>(common::ipc::KeeperFd::kDoor)),
      arg_is(3, SOCK_CLOEXEC | SOCK_NONBLOCK)},
     "broker/keeper/keeper.cpp: let_in"},
    {SYS_getsockopt,
     {kKeeperAnyFd, arg_is(1, SOL_SOCKET), arg_is(2, SO_PEERCRED)},
     "broker/keeper/keeper.cpp: may_come_in"},
    {SYS_write, {kKeeperAnyFd, arg_is(2, 1)}, "common/stop_pipe.cpp: tell_to_stop"},
    {SYS_exit_group, {kExitCode}, "broker/keeper/main.cpp: leave"},
};

inline constexpr int kKeeperFds[] = {static_cast<int>(common::ipc::KeeperFd::kBroker),
                                     static_cast<int>(common::ipc::KeeperFd::kDoor)};

inline constexpr Profile kKeeper{
    .name = "keeper",
    .may = "hold descriptors for brokers that die, and end workers that nobody is left for",
    .must_never = "read a disk, a tap or a VMM's socket, open, connect, fork, exec",
    .syscalls = kKeeperSyscalls,
    .uring_opcodes = {},
    .descriptors = kKeeperFds,
};

}  // namespace policy
