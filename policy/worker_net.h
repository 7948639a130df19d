// policy/worker_net.h: everything a network worker may do once it is sealed, all on this page.
//
// One profile for each role and engine. None has ioctl: through a tap's descriptor even an
// unprivileged process could change the interface's MAC, owner, carrier and filters.
//
// What can be said here, and what cannot. Fallback: the filter sees descriptor numbers, so receive
// cannot write the tap and transmit cannot read it. io_uring: restrictions know operations and not
// files. Transmit has no reading operation at all, so it cannot read the tap (it polls its kick and
// never reads it). Receive has WRITE, because ringing the guest's bell is a write, and could direct
// it at the tap; what that yields is to send as the guest to which it belongs, whose transmit
// worker may do that anyway.
#pragma once

#include <linux/io_uring.h>
#include <sys/syscall.h>

#include <cstdint>

#include "policy/profile.h"
#include "policy/worker_limits.h"

namespace policy {

// --- io_uring engine: two system calls, no descriptor -------------------------------------------

inline constexpr SyscallRule kWorkerNetUringSyscalls[] = {
    {SYS_io_uring_enter,
     {arg_is(0, kRegisteredRing), arg_within(3, kEnterFlags)},
     "worker/uring.cpp: enter"},
    {SYS_exit_group, {kExitCode}, "worker/leave.h: leave"},
};

// Each needs IOSQE_FIXED_FILE as well: only descriptors registered before sealing can be named.
inline constexpr std::uint8_t kWorkerNetReceiveOpcodes[] = {
    IORING_OP_POLL_ADD,  // Kick and tap; worker/tap_uring.cpp: arm_kick, arm_tap
    IORING_OP_READ,      // Tap; worker/tap_uring.cpp: prepare
    IORING_OP_READV,     // Tap; worker/tap_uring.cpp: prepare
    IORING_OP_WRITE,     // Call; worker/uring_port.cpp: ring_call
};
inline constexpr std::uint8_t kWorkerNetTransmitOpcodes[] = {
    IORING_OP_POLL_ADD,  // Kick and tap; worker/tap_uring.cpp: arm_kick, arm_tap
    IORING_OP_WRITEV,    // Tap; worker/tap_uring.cpp: prepare
    IORING_OP_WRITE,     // Call and tap; worker/uring_port.cpp: ring_call; worker/tap_uring.cpp:
                         // prepare
};

inline constexpr Profile kWorkerNetReceiveUring{
    .name = "worker-net receive (io_uring)",
    .may = "move packets from one tap queue into one guest's memory, and ring that guest's bell",
    .must_never = "open, map, fork, exec, connect, configure the tap, or hold a descriptor",
    .syscalls = kWorkerNetUringSyscalls,
    .uring_opcodes = kWorkerNetReceiveOpcodes,
    .descriptors = {},
};
inline constexpr Profile kWorkerNetTransmitUring{
    .name = "worker-net transmit (io_uring)",
    .may = "move packets from one guest's memory into one tap queue, and ring that guest's bell",
    .must_never =
        "read from anything, open, map, fork, exec, connect, configure the tap, or hold "
        "a descriptor",
    .syscalls = kWorkerNetUringSyscalls,
    .uring_opcodes = kWorkerNetTransmitOpcodes,
    .descriptors = {},
};

// --- fallback engine: no io_uring on this host --------------------------------------------------

// Where each descriptor sits after worker/net_start.cpp has moved it. Part of the policy, because
// the rules below compare against these numbers.
enum class NetFd : int {
  kTap = 5,  // Or, in a control worker, its socket to the broker.
  kStop = 6,
  kKick = 8,
  kCall = 9,
};
inline constexpr std::uint64_t fd_of(NetFd fd) { return static_cast<std::uint64_t>(fd); }
inline constexpr int kWorkerNetFds[] = {5, 6, 8, 9};

inline constexpr SyscallRule kWorkerNetReceiveFallbackSyscalls[] = {
    {SYS_ppoll, {kPolledMax, kNoSignalMask}, "worker/eventfds.cpp: poll"},
    {SYS_read, {arg_is(0, fd_of(NetFd::kKick)), kEventfdBytes}, "worker/eventfds.cpp: drain"},
    {SYS_write, {arg_is(0, fd_of(NetFd::kCall)), kEventfdBytes}, "worker/eventfds.cpp: ring_call"},
    {SYS_readv,
     {arg_is(0, fd_of(NetFd::kTap)), arg_at_most(2, kSegmentsMax)},
     "worker/tap_fallback.cpp: perform"},
    {SYS_exit_group, {kExitCode}, "worker/leave.h: leave"},
};
inline constexpr Profile kWorkerNetReceiveFallback{
    .name = "worker-net receive (fallback)",
    .may = kWorkerNetReceiveUring.may,
    .must_never =
        "write or configure the tap, open, map, fork, exec, connect, or name a "
        "descriptor it was not started with",
    .syscalls = kWorkerNetReceiveFallbackSyscalls,
    .uring_opcodes = {},
    .descriptors = kWorkerNetFds,
};

inline constexpr SyscallRule kWorkerNetTransmitFallbackSyscalls[] = {
    {SYS_ppoll, {kPolledMax, kNoSignalMask}, "worker/eventfds.cpp: poll"},
    {SYS_read, {arg_is(0, fd_of(NetFd::kKick)), kEventfdBytes}, "worker/eventfds.cpp: drain"},
    {SYS_write, {arg_is(0, fd_of(NetFd::kCall)), kEventfdBytes}, "worker/eventfds.cpp: ring_call"},
    {SYS_writev,
     {arg_is(0, fd_of(NetFd::kTap)), arg_at_most(2, kSegmentsMax)},
     "worker/tap_fallback.cpp: perform"},
    {SYS_exit_group, {kExitCode}, "worker/leave.h: leave"},
};
inline constexpr Profile kWorkerNetTransmitFallback{
    .name = "worker-net transmit (fallback)",
    .may = kWorkerNetTransmitUring.may,
    .must_never =
        "read or configure the tap, open, map, fork, exec, connect, or name a "
        "descriptor it was not started with",
    .syscalls = kWorkerNetTransmitFallbackSyscalls,
    .uring_opcodes = {},
    .descriptors = kWorkerNetFds,
};

// --- the control virtqueue: no tap, a few commands in the life of a guest ------------------------

inline constexpr std::uint64_t kNetControlBytes = 416;     // ipc::NetControl
inline constexpr std::uint64_t kNetControlDoneBytes = 16;  // ipc::NetControlDone

inline constexpr SyscallRule kWorkerNetControlSyscalls[] = {
    {SYS_ppoll, {kPolledMax, kNoSignalMask}, "worker/eventfds.cpp: poll"},
    {SYS_read, {arg_is(0, fd_of(NetFd::kKick)), kEventfdBytes}, "worker/eventfds.cpp: drain"},
    {SYS_write, {arg_is(0, fd_of(NetFd::kCall)), kEventfdBytes}, "worker/eventfds.cpp: ring_call"},
    {SYS_write,
     {arg_is(0, fd_of(NetFd::kTap)), arg_is(2, kNetControlBytes)},
     "worker/net_control.cpp: ask"},
    {SYS_read,
     {arg_is(0, fd_of(NetFd::kTap)), arg_is(2, kNetControlDoneBytes)},
     "worker/net_control.cpp: ask"},
    {SYS_exit_group, {kExitCode}, "worker/leave.h: leave"},
};
inline constexpr Profile kWorkerNetControl{
    .name = "worker-net control",
    .may =
        "answer one guest's control commands, ask the broker to do them, and ring that guest's "
        "bell",
    .must_never =
        "hold a tap, open, map, fork, exec, connect, or name a descriptor it was not "
        "started with",
    .syscalls = kWorkerNetControlSyscalls,
    .uring_opcodes = {},
    .descriptors = kWorkerNetFds,
};

}  // namespace policy
