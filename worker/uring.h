// worker/uring.h: the worker's io_uring, raw: the two queues it shares with the kernel, and the one
// system call that moves them on.
//
// The broker made the ring, restricted it and left it disabled (policy/restricted_ring.h). Here it
// is mapped, given its files, registered as index 0 of this task, and enabled, which makes this
// process its only submitter. From then on no descriptor of it is needed.
// Trusts: the broker, who made the ring and its layout, and the kernel.
#pragma once

#include <linux/io_uring.h>

#include <cstddef>
#include <cstdint>
#include <span>

#include "common/fd.h"
#include "common/ipc/worker_messages.h"
#include "common/result.h"
#include "common/shared_region.h"

namespace worker {

class Uring {
 public:
  // Maps the queues of `ring`. Makes nothing usable yet.
  [[nodiscard]] static common::Result<Uring> map(common::FdRef ring,
                                                 const common::ipc::UringLayout& layout) noexcept;

  // Registers `files` (-1: an empty slot that the broker may fill later) and the ring itself, then
  // enables it. In this order: an enabled ring refuses to register anything.
  [[nodiscard]] common::Result<void> enable(common::FdRef ring,
                                            std::span<const int> files) noexcept;

  // The next free entry, zeroed and meant for registered file `slot`; null where the queue is full.
  // Sent with the next enter().
  [[nodiscard]] io_uring_sqe* claim(std::uint8_t opcode, std::uint32_t slot) noexcept;

  [[nodiscard]] std::uint32_t unsubmitted() const noexcept {
    return sq_tail_ - __atomic_load_n(sq_head_, __ATOMIC_ACQUIRE);
  }
  // Completions that the kernel has ready and posts with the next enter()
  // (IORING_SETUP_TASKRUN_FLAG).
  [[nodiscard]] bool work_pending() const noexcept { return has_flag(IORING_SQ_TASKRUN); }
  [[nodiscard]] bool completions_waiting() const noexcept {
    return cq_head_local_ != __atomic_load_n(cq_tail_, __ATOMIC_ACQUIRE);
  }
  // Completions were lost, or wait outside the ring: more were in flight than it was made for.
  [[nodiscard]] bool overflowed() const noexcept {
    return has_flag(IORING_SQ_CQ_OVERFLOW) || __atomic_load_n(cq_overflow_, __ATOMIC_RELAXED) != 0;
  }

  // Submits what was claimed and, with `completions` not 0, waits for as many, but no longer than
  // `timeout_us` (0: for ever). Returns what the kernel does: >= 0, or a negative errno.
  [[nodiscard]] int enter(std::uint32_t completions, std::uint32_t timeout_us) noexcept;

  // The next completion, copied out.
  [[nodiscard]] bool next(io_uring_cqe& completion) noexcept;

  [[nodiscard]] std::uint64_t system_calls() const noexcept { return system_calls_; }

 private:
  [[nodiscard]] bool has_flag(std::uint32_t flag) const noexcept {
    return (__atomic_load_n(sq_flags_, __ATOMIC_RELAXED) & flag) != 0;
  }

  common::SharedRegion queues_;
  common::SharedRegion entries_;
  std::uint32_t* sq_head_ = nullptr;  // The kernel's.
  std::uint32_t* sq_tail_shared_ = nullptr;
  std::uint32_t* sq_flags_ = nullptr;
  std::uint32_t* cq_head_ = nullptr;
  std::uint32_t* cq_tail_ = nullptr;  // The kernel's.
  std::uint32_t* cq_overflow_ = nullptr;
  io_uring_sqe* sqes_ = nullptr;
  io_uring_cqe* cqes_ = nullptr;
  std::uint32_t sq_entries_ = 0;
  std::uint32_t cq_entries_ = 0;
  std::uint32_t sq_tail_ = 0;
  std::uint32_t cq_head_local_ = 0;
  std::uint64_t system_calls_ = 0;
};

}  // namespace worker
