// worker/leave.h: the one way out of a sealed worker.
#pragma once

#include <sys/syscall.h>
#include <unistd.h>

#include "common/ipc/worker_messages.h"

namespace worker {

// No destructors and no exit handlers: close() and munmap() are not on the list any more.
// syscalls: exit_group
[[noreturn]] inline void leave(common::ipc::WorkerExit outcome) noexcept {
  ::syscall(SYS_exit_group, static_cast<int>(outcome));
  __builtin_trap();
}

}  // namespace worker
