#include "worker/uring_engine.h"

#include <sys/uio.h>

#include <cerrno>
#include <limits>
#include <utility>

#include "policy/worker_blk.h"

namespace worker {
namespace {

using common::Result;
using common::ipc::kSlotDevice;
using common::ipc::kSlotDeviceBuffered;
using common::ipc::kSlotKick;
using common::ipc::kSlotStop;

}  // namespace

Result<std::unique_ptr<Engine>> UringEngine::create(const Parts& parts) noexcept {
  TRY_LET(UringPort port, UringPort::open(parts));
  return std::unique_ptr<Engine>(new UringEngine(std::move(port)));
}

UringEngine::UringEngine(UringPort port) noexcept : port_(std::move(port)) {
  if (port_.has_kick()) arm_kick();
  if (port_.has_stop()) arm_stop();
}

// Sleeps for a single completion: a guest may be waiting for just that request, and what gathers
// during a wake-up is answered together anyway. To the kernel a kick and a message are completions
// like any other, and the second of two may never come; a minimum wait time arms a timer in each
// sleep, measured at 40 us a request, and gathering cached writes slowed them down. For the same
// reason our own bell, which completes at once, ends a sleep; the next one follows.
Wakeup UringEngine::turn(bool may_sleep) noexcept {
  Wakeup wakeup;
  reap(wakeup);
  bool again = false;
  do {
    const bool news = !done_.empty() || wakeup.kicked || wakeup.stop || wakeup.call_swapped;
    const bool sleep = may_sleep && !news && !(port_.stopping() && in_flight_ == 0);
    if (sleep || port_.unsubmitted() != 0 || port_.work_pending()) {
      if (!port_.enter(sleep, sleep_us_max())) break;
      reap(wakeup);
    }
    // What woke us may have been our own bell, or a signal: no news for the caller.
    again = sleep && sleep_us_max() == 0 && port_.has_kick() && done_.empty() && !wakeup.kicked &&
            !wakeup.stop && !wakeup.call_swapped;
  } while (again);
  wakeup.stop = port_.stopping();
  wakeup.host_fault = port_.faulty();
  return wakeup;
}

bool UringEngine::ready() const noexcept {
  return !done_.empty() || port_.completions_waiting() || port_.work_pending() ||
         port_.unsubmitted() != 0;
}

void UringEngine::reap(Wakeup& wakeup) noexcept {
  io_uring_cqe completion;
  while (port_.next(completion)) {
    switch (completion.user_data & UringPort::kKindMask) {
      case UringPort::kKindData:
        --in_flight_;
        done_.push(static_cast<std::uint32_t>(completion.user_data), completion.res);
        break;
      case UringPort::kKindKick:
        finish_kick(completion.res, wakeup);
        break;
      default:
        const UringPort::Message message = port_.take(completion);
        if (message == UringPort::Message::kStop) wakeup.stop = true;
        if (message == UringPort::Message::kStopLost) arm_stop();
        if (message == UringPort::Message::kCallSwapped) wakeup.call_swapped = true;
        break;
    }
  }
}

void UringEngine::finish_kick(std::int32_t result, Wakeup& wakeup) noexcept {
  wakeup.kicked = true;
  const bool transient = result == -EINTR || result == -ECANCELED;
  if (result >= 0 || transient) {
    arm_kick();
  } else {
    port_.lose_kick();
  }
}

// opcodes: READ
void UringEngine::arm_kick() noexcept {
  io_uring_sqe* const entry = port_.claim(IORING_OP_READ, kSlotKick);
  if (entry == nullptr) return;
  entry->addr = reinterpret_cast<std::uint64_t>(&kick_value_);
  entry->len = sizeof(kick_value_);
  entry->user_data = UringPort::kKindKick;
}

// opcodes: READ
void UringEngine::arm_stop() noexcept {
  io_uring_sqe* const entry = port_.claim(IORING_OP_READ, kSlotStop);
  if (entry == nullptr) return;
  entry->addr = reinterpret_cast<std::uint64_t>(&stop_value_);
  entry->len = sizeof(stop_value_);
  entry->user_data = UringPort::kKindStop;
}

// opcodes: FSYNC
void UringEngine::start(const IoRequest& request) noexcept {
  ++in_flight_;
  switch (request.kind) {
    case IoRequest::Kind::kRead:
    case IoRequest::Kind::kWrite:
      return prepare_transfer(request);
    case IoRequest::Kind::kPunchHole:
    case IoRequest::Kind::kZeroRange:
      return prepare_fallocate(request);
    case IoRequest::Kind::kSync:
      if (io_uring_sqe* const entry = port_.claim(IORING_OP_FSYNC, kSlotDevice); entry != nullptr) {
        entry->fsync_flags = IORING_FSYNC_DATASYNC;
        entry->user_data = UringPort::kKindData | request.tag;
      }
      return;
  }
}

// opcodes: READ, WRITE, READV, WRITEV
void UringEngine::prepare_transfer(const IoRequest& request) noexcept {
  const bool write = request.kind == IoRequest::Kind::kWrite;
  // One segment needs no array to be copied; its length must fit into 32 bits.
  const bool single = request.segments.size() == 1 &&
                      request.segments[0].iov_len <= std::numeric_limits<std::int32_t>::max();
  const std::uint8_t opcode = single ? (write ? IORING_OP_WRITE : IORING_OP_READ)
                                     : (write ? IORING_OP_WRITEV : IORING_OP_READV);
  io_uring_sqe* const entry =
      port_.claim(opcode, request.buffered ? kSlotDeviceBuffered : kSlotDevice);
  if (entry == nullptr) return;
  entry->off = request.offset;
  entry->user_data = UringPort::kKindData | request.tag;
  if (write && request.durable) entry->rw_flags = RWF_DSYNC;
  if (single) {
    entry->addr = reinterpret_cast<std::uint64_t>(request.segments[0].iov_base);
    entry->len = static_cast<std::uint32_t>(request.segments[0].iov_len);
  } else {
    entry->addr = reinterpret_cast<std::uint64_t>(request.segments.data());
    entry->len = static_cast<std::uint32_t>(request.segments.size());
  }
}

// opcodes: FALLOCATE
void UringEngine::prepare_fallocate(const IoRequest& request) noexcept {
  io_uring_sqe* const entry = port_.claim(IORING_OP_FALLOCATE, kSlotDevice);
  if (entry == nullptr) return;
  entry->off = request.offset;
  entry->addr = request.length;  // As fallocate(2) wants them: length here, mode in `len`.
  entry->len = static_cast<std::uint32_t>(
      request.kind == IoRequest::Kind::kPunchHole ? policy::kPunchHole : policy::kZeroRange);
  entry->user_data = UringPort::kKindData | request.tag;
}

}  // namespace worker
