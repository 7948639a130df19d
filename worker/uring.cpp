#include "worker/uring.h"

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "common/checked.h"
#include "common/uring_sys.h"
#include "common/verify.h"
#include "policy/worker_limits.h"

namespace worker {
namespace {

using common::fail_errno;
using common::FdRef;
using common::Result;
using common::ipc::UringLayout;

std::uint64_t queue_bytes(const UringLayout& layout) noexcept {
  const std::uint64_t cq_end =
      layout.cqes + std::uint64_t{layout.cq_entries} * sizeof(io_uring_cqe);
  if (layout.no_sq_array != 0) return cq_end;
  const std::uint64_t array_end =
      layout.sq_array + std::uint64_t{layout.sq_entries} * sizeof(std::uint32_t);
  return std::max(cq_end, array_end);
}

std::uint32_t* word_at(std::span<std::byte> region, std::uint32_t offset) noexcept {
  common::verify(common::range_within<std::uint64_t>(offset, sizeof(std::uint32_t), region.size()));
  return reinterpret_cast<std::uint32_t*>(region.data() + offset);
}

}  // namespace

Result<Uring> Uring::map(FdRef ring, const UringLayout& layout) noexcept {
  if (!common::is_power_of_two(layout.sq_entries) || !common::is_power_of_two(layout.cq_entries)) {
    return fail_errno("layout of the ring", EINVAL);
  }
  constexpr auto kReadWrite = common::SharedRegion::Access::kReadWrite;
  Uring made;
  TRY_LET(made.queues_,
          common::SharedRegion::map(ring, IORING_OFF_SQ_RING, queue_bytes(layout), kReadWrite));
  TRY_LET(made.entries_, common::SharedRegion::map(
                             ring, IORING_OFF_SQES,
                             std::uint64_t{layout.sq_entries} * sizeof(io_uring_sqe), kReadWrite));
  const std::span<std::byte> queues = made.queues_.bytes();
  made.sq_head_ = word_at(queues, layout.sq_head);
  made.sq_tail_shared_ = word_at(queues, layout.sq_tail);
  made.sq_flags_ = word_at(queues, layout.sq_flags);
  made.cq_head_ = word_at(queues, layout.cq_head);
  made.cq_tail_ = word_at(queues, layout.cq_tail);
  made.cq_overflow_ = word_at(queues, layout.cq_overflow);
  made.cqes_ = reinterpret_cast<io_uring_cqe*>(queues.data() + layout.cqes);
  made.sqes_ = reinterpret_cast<io_uring_sqe*>(made.entries_.bytes().data());
  made.sq_entries_ = layout.sq_entries;
  made.cq_entries_ = layout.cq_entries;
  made.sq_tail_ = __atomic_load_n(made.sq_tail_shared_, __ATOMIC_RELAXED);
  made.cq_head_local_ = __atomic_load_n(made.cq_head_, __ATOMIC_RELAXED);
  if (layout.no_sq_array == 0) {
    // The indirection before 6.6: entry i is always at place i.
    std::uint32_t* const array = word_at(queues, layout.sq_array);
    for (std::uint32_t i = 0; i < layout.sq_entries; ++i) array[i] = i;
  }
  return made;
}

Result<void> Uring::enable(FdRef ring, std::span<const int> files) noexcept {
  if (common::uring::reg(ring.number, IORING_REGISTER_FILES, files.data(),
                         static_cast<std::uint32_t>(files.size())) != 0) {
    return fail_errno("register files", errno);
  }
  io_uring_rsrc_update place{};
  place.offset = policy::kRegisteredRing;
  place.data = static_cast<__u64>(ring.number);
  if (common::uring::reg(ring.number, IORING_REGISTER_RING_FDS, &place, 1) != 1) {
    return fail_errno("register the ring", errno);
  }
  if (common::uring::reg(ring.number, IORING_REGISTER_ENABLE_RINGS, nullptr, 0) != 0) {
    return fail_errno("enable the ring", errno);
  }
  return {};
}

io_uring_sqe* Uring::claim(std::uint8_t opcode, std::uint32_t slot) noexcept {
  if (unsubmitted() == sq_entries_) return nullptr;
  io_uring_sqe* const entry = &sqes_[sq_tail_++ & (sq_entries_ - 1)];
  std::memset(entry, 0, sizeof(*entry));
  entry->opcode = opcode;
  entry->flags = IOSQE_FIXED_FILE;
  entry->fd = static_cast<std::int32_t>(slot);
  return entry;
}

// syscalls: io_uring_enter
int Uring::enter(std::uint32_t completions, std::uint32_t timeout_us) noexcept {
  __kernel_timespec timeout{};
  timeout.tv_sec = timeout_us / 1'000'000;
  timeout.tv_nsec = static_cast<long long>(timeout_us % 1'000'000) * 1000;
  io_uring_getevents_arg argument{};
  argument.ts = reinterpret_cast<std::uint64_t>(&timeout);
  const bool timed = completions != 0 && timeout_us != 0;
  // GETEVENTS without waiting, too: it is what posts completions that are due (DEFER_TASKRUN).
  const std::uint32_t flags =
      IORING_ENTER_GETEVENTS | IORING_ENTER_REGISTERED_RING | (timed ? IORING_ENTER_EXT_ARG : 0U);
  // Release: the kernel that sees the tail sees the entries before it.
  __atomic_store_n(sq_tail_shared_, sq_tail_, __ATOMIC_RELEASE);
  ++system_calls_;
  const int result =
      common::uring::enter(static_cast<int>(policy::kRegisteredRing), unsubmitted(), completions,
                           flags, timed ? &argument : nullptr, timed ? sizeof(argument) : 0);
  return result < 0 ? -errno : result;
}

bool Uring::next(io_uring_cqe& completion) noexcept {
  if (!completions_waiting()) return false;
  completion = cqes_[cq_head_local_++ & (cq_entries_ - 1)];
  // Release: our copy was taken before the kernel may use the place again.
  __atomic_store_n(cq_head_, cq_head_local_, __ATOMIC_RELEASE);
  return true;
}

}  // namespace worker
