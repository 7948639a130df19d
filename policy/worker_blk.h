// policy/worker_blk.h: everything a block worker may do once it is sealed, all on this page.
#pragma once

#include <linux/falloc.h>
#include <linux/io_uring.h>
#include <sys/syscall.h>
#include <sys/uio.h>

#include <cstdint>

#include "policy/profile.h"
#include "policy/worker_limits.h"

namespace policy {

// --- io_uring engine: two system calls, no descriptor -------------------------------------------

inline constexpr SyscallRule kWorkerBlkUringSyscalls[] = {
    {SYS_io_uring_enter,
     {arg_is(0, kRegisteredRing), arg_within(3, kEnterFlags)},
     "worker/uring.cpp: enter"},
    {SYS_exit_group, {kExitCode}, "worker/leave.h: leave"},
};

// Each needs IOSQE_FIXED_FILE as well: only descriptors registered before sealing can be named.
inline constexpr std::uint8_t kWorkerBlkUringOpcodes[] = {
    IORING_OP_READ,    // Kick and disk; worker/uring_engine.cpp: arm_kick, prepare_transfer
    IORING_OP_WRITE,   // Call and disk; worker/uring_port.cpp: ring_call, worker/uring_engine.cpp:
                       // prepare_transfer
    IORING_OP_READV,   // Disk; worker/uring_engine.cpp: prepare_transfer
    IORING_OP_WRITEV,  // Disk; worker/uring_engine.cpp: prepare_transfer
    IORING_OP_FSYNC,   // FLUSH; worker/uring_engine.cpp: start
    IORING_OP_FALLOCATE,  // DISCARD and WRITE_ZEROES; worker/uring_engine.cpp: prepare_fallocate
};

inline constexpr Profile kWorkerBlkUring{
    .name = "worker-blk (io_uring)",
    .may = "move bytes between one guest's memory and one open disk, and ring that guest's bell",
    .must_never = "open, map, fork, exec, connect, or hold a descriptor",
    .syscalls = kWorkerBlkUringSyscalls,
    .uring_opcodes = kWorkerBlkUringOpcodes,
    .descriptors = {},
};

// --- fallback engine: no io_uring on this host --------------------------------------------------

// Where each descriptor sits after worker/start.cpp has moved it. Part of the policy, because the
// rules below compare against these numbers.
enum class FallbackFd : int {
  kDisk = 5,
  kStop = 6,
  kDiskBuffered = 7,
  kKick = 8,
  kCall = 9,
  kAio = 10,  // Eventfd that Linux AIO completes into; direct disks only.
};
inline constexpr std::uint64_t fd_of(FallbackFd fd) { return static_cast<std::uint64_t>(fd); }

// ZERO_RANGE and PUNCH_HOLE without KEEP_SIZE would let a worker change the size of the image.
inline constexpr std::uint64_t kPunchHole = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
inline constexpr std::uint64_t kZeroRange = FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE;

inline constexpr SyscallRule kWorkerBlkFallbackSyscalls[] = {
    {SYS_ppoll, {kPolledMax, kNoSignalMask}, "worker/eventfds.cpp: poll"},
    {SYS_read, {arg_is(0, fd_of(FallbackFd::kKick)), kEventfdBytes}, "worker/eventfds.cpp: drain"},
    {SYS_write,
     {arg_is(0, fd_of(FallbackFd::kCall)), kEventfdBytes},
     "worker/eventfds.cpp: ring_call"},
    {SYS_preadv2,
     {arg_is(0, fd_of(FallbackFd::kDisk)), arg_at_most(2, kSegmentsMax), arg_is(5, 0)},
     "worker/fallback_engine.cpp: perform"},
    {SYS_pwritev2,
     {arg_is(0, fd_of(FallbackFd::kDisk)), arg_at_most(2, kSegmentsMax), arg_within(5, RWF_DSYNC)},
     "worker/fallback_engine.cpp: perform"},
    {SYS_fdatasync, {arg_is(0, fd_of(FallbackFd::kDisk))}, "worker/fallback_engine.cpp: perform"},
    {SYS_fallocate,
     {arg_is(0, fd_of(FallbackFd::kDisk)), arg_is(1, kPunchHole)},
     "worker/fallback_engine.cpp: perform"},
    {SYS_fallocate,
     {arg_is(0, fd_of(FallbackFd::kDisk)), arg_is(1, kZeroRange)},
     "worker/fallback_engine.cpp: perform"},
    {SYS_exit_group, {kExitCode}, "worker/leave.h: leave"},
};
inline constexpr int kWorkerBlkFallbackFds[] = {5, 6, 8, 9};

inline constexpr Profile kWorkerBlkFallback{
    .name = "worker-blk (fallback)",
    .may = "move bytes between one guest's memory and one open disk, and ring that guest's bell",
    .must_never = "open, map, fork, exec, connect, or name a descriptor it was not started with",
    .syscalls = kWorkerBlkFallbackSyscalls,
    .uring_opcodes = {},
    .descriptors = kWorkerBlkFallbackFds,
};

// With --direct=on: reads, writes and flushes go through Linux AIO, so that queue depth survives.
// Its context is an address, and what is submitted lies behind a pointer: the filter sees neither,
// so the descriptors that are there are the limit. Completions are read from mapped memory.
inline constexpr std::uint64_t kAioBatchMax = 64;

inline constexpr SyscallRule kWorkerBlkFallbackDirectSyscalls[] = {
    {SYS_ppoll, {kPolledMax, kNoSignalMask}, "worker/eventfds.cpp: poll"},
    {SYS_read, {arg_is(0, fd_of(FallbackFd::kKick)), kEventfdBytes}, "worker/eventfds.cpp: drain"},
    {SYS_read, {arg_is(0, fd_of(FallbackFd::kAio)), kEventfdBytes}, "worker/eventfds.cpp: drain"},
    {SYS_write,
     {arg_is(0, fd_of(FallbackFd::kCall)), kEventfdBytes},
     "worker/eventfds.cpp: ring_call"},
    {SYS_io_submit, {arg_at_most(1, kAioBatchMax)}, "worker/aio.cpp: submit"},
    {SYS_fallocate,
     {arg_is(0, fd_of(FallbackFd::kDisk)), arg_is(1, kPunchHole)},
     "worker/fallback_engine.cpp: perform"},
    {SYS_fallocate,
     {arg_is(0, fd_of(FallbackFd::kDisk)), arg_is(1, kZeroRange)},
     "worker/fallback_engine.cpp: perform"},
    {SYS_exit_group, {kExitCode}, "worker/leave.h: leave"},
};
inline constexpr int kWorkerBlkFallbackDirectFds[] = {5, 6, 7, 8, 9, 10};

inline constexpr Profile kWorkerBlkFallbackDirect{
    .name = "worker-blk (fallback, direct)",
    .may = kWorkerBlkFallback.may,
    .must_never = kWorkerBlkFallback.must_never,
    .syscalls = kWorkerBlkFallbackDirectSyscalls,
    .uring_opcodes = {},
    .descriptors = kWorkerBlkFallbackDirectFds,
};

}  // namespace policy
