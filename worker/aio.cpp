#include "worker/aio.h"

#include <poll.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "common/verify.h"
#include "policy/worker_blk.h"

namespace worker {
namespace {

using common::fail_errno;
using common::FdRef;
using common::Result;

constexpr std::uint32_t kRingMagic = 0xa10a10a1;
constexpr int kWaits = 25;
constexpr int kWaitMs = 20;
constexpr std::uint32_t kBatch = policy::kAioBatchMax;

}  // namespace

Result<std::unique_ptr<Aio>> Aio::create(FdRef notify, std::uint32_t depth) noexcept {
  aio_context_t context = 0;
  depth = std::max(depth, 1U);
  for (int waits = 0; ::syscall(SYS_io_setup, depth, &context) != 0;) {
    // EAGAIN: more than fs.aio-max-nr has left. What has no room waits in our queue instead; and
    // the kernel takes its time to let go of what workers had that are dead.
    if (errno != EAGAIN || (depth == 1 && ++waits > kWaits)) return fail_errno("io_setup", errno);
    if (depth == 1) ::poll(nullptr, 0, kWaitMs);
    depth = std::max(depth / 2, 1U);
  }
  std::unique_ptr<Aio> made(new Aio(context, notify));
  const Ring& ring = *made->ring_;
  if (ring.magic != kRingMagic || ring.incompat_features != 0 ||
      ring.header_bytes != sizeof(Ring)) {
    return fail_errno("layout of the AIO ring", EPROTO);
  }
  return made;
}

void Aio::queue(const IoRequest& request, FdRef file) noexcept {
  common::verify(end_queued_ - first_queued_ < kRequestsMax);
  iocb& entry = queue_[end_queued_++ % kRequestsMax];
  std::memset(&entry, 0, sizeof(entry));
  entry.aio_data = request.tag;
  entry.aio_fildes = static_cast<std::uint32_t>(file.number);
  entry.aio_flags = IOCB_FLAG_RESFD;
  entry.aio_resfd = static_cast<std::uint32_t>(notify_.number);
  if (request.kind == IoRequest::Kind::kSync) {
    entry.aio_lio_opcode = IOCB_CMD_FDSYNC;
    return;
  }
  const bool write = request.kind == IoRequest::Kind::kWrite;
  entry.aio_lio_opcode = write ? IOCB_CMD_PWRITEV : IOCB_CMD_PREADV;
  entry.aio_buf = reinterpret_cast<std::uint64_t>(request.segments.data());
  entry.aio_nbytes = request.segments.size();
  entry.aio_offset = static_cast<std::int64_t>(request.offset);
  if (write && request.durable) entry.aio_rw_flags = RWF_DSYNC;
}

// syscalls: io_submit
bool Aio::submit(CompletionFifo& done) noexcept {
  while (queued()) {
    std::array<iocb*, kBatch> batch;
    const std::uint32_t count = std::min(end_queued_ - first_queued_, kBatch);
    for (std::uint32_t i = 0; i < count; ++i) {
      batch[i] = &queue_[(first_queued_ + i) % kRequestsMax];
    }

    ++system_calls_;
    const long taken = ::syscall(SYS_io_submit, context_, long{count}, batch.data());
    if (taken > 0) {
      first_queued_ += static_cast<std::uint32_t>(taken);
      in_flight_ += static_cast<std::uint32_t>(taken);
      continue;
    }
    const int error = taken == 0 ? EIO : errno;
    if (error == EINTR) continue;
    if (error == EAGAIN && in_flight_ != 0) return true;
    if (error == EFAULT || error == ENOSYS) return false;  // Ours: the arrays are our own memory.
    done.push(static_cast<std::uint32_t>(batch[0]->aio_data), -error);
    ++first_queued_;
  }
  first_queued_ = end_queued_ = 0;
  return true;
}

bool Aio::completed() const noexcept {
  return ring_->head != __atomic_load_n(&ring_->tail, __ATOMIC_ACQUIRE);
}

void Aio::reap(CompletionFifo& done) noexcept {
  const auto* const events = reinterpret_cast<const io_event*>(ring_ + 1);
  const std::uint32_t tail = __atomic_load_n(&ring_->tail, __ATOMIC_ACQUIRE);
  std::uint32_t head = ring_->head;
  while (head != tail) {
    const io_event& event = events[head];
    done.push(static_cast<std::uint32_t>(event.data), static_cast<std::int32_t>(event.res));
    head = head + 1 == ring_->entries ? 0 : head + 1;
    --in_flight_;
  }
  __atomic_store_n(&ring_->head, head, __ATOMIC_RELEASE);
}

}  // namespace worker
