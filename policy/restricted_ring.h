// policy/restricted_ring.h: makes the io_uring of a worker, tied down before the worker exists.
//
// The broker creates it disabled, restricts it, and lets the worker inherit it by exec; the worker
// maps it, registers its files and the ring fd, and enables it, which makes the worker its only
// submitter. A worker never holds an unrestricted ring. The broker never maps or reads it.
// Never SQPOLL: its kernel thread would work in the broker's address space and with its rights.
#pragma once

#include <cstdint>
#include <span>

#include "common/fd.h"
#include "common/ipc/worker_messages.h"
#include "common/result.h"

namespace policy {

// R_DISABLED | SINGLE_ISSUER | DEFER_TASKRUN | TASKRUN_FLAG | SUBMIT_ALL | CQSIZE, and NO_SQARRAY
// where the kernel has it. Restrictions: exactly `opcodes`, IOSQE_FIXED_FILE required, no other SQE
// flag, no register operation after ENABLE. At most `bounded_workers` io-wq threads for files, one
// for the rest.
struct RingRequest {
  std::uint32_t entries = 0;
  std::uint32_t completion_entries = 0;
  std::uint32_t bounded_workers = 0;
  std::span<const std::uint8_t> opcodes;
};

struct RestrictedRing {
  common::Fd fd;
  common::ipc::UringLayout layout;
};

[[nodiscard]] common::Result<RestrictedRing> make_restricted_ring(const RingRequest& request);

// What this kernel offers. `engine_possible` false: use the fallback; `os_errno` and `step` say
// why.
struct UringSupport {
  bool engine_possible = false;  // io_uring_setup with restrictions and DEFER_TASKRUN works (6.1).
  bool message_fds = false;      // IORING_MSG_SEND_FD (6.0).
  const char* step = "";
  int os_errno = 0;
};
[[nodiscard]] UringSupport probe_uring();

}  // namespace policy
