#include "worker/uring_engine.h"

#include <sys/uio.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <limits>
#include <utility>

#include "policy/worker_blk.h"

namespace worker {
namespace {

using common::Result;
using common::ipc::kRingCallSwapped;
using common::ipc::kRingStop;
using common::ipc::kSlotCall;
using common::ipc::kSlotCount;
using common::ipc::kSlotDevice;
using common::ipc::kSlotDeviceBuffered;
using common::ipc::kSlotKick;

// user_data: the tag of a request, or one of these above it. The broker's have the top byte set.
constexpr std::uint64_t kKindMask = 0xffff'ffff'0000'0000ULL;
constexpr std::uint64_t kKindRequest = 0;
constexpr std::uint64_t kKindKick = 1ULL << 32;
constexpr std::uint64_t kKindCall = 2ULL << 32;  // Low half: the generation.

// Without a kick eventfd the ring is looked at this often.
constexpr std::uint32_t kUnkickedPollUs = 100;
// An entry of the submission queue is free after one enter(), unless the kernel is out of memory.
constexpr int kClaimAttempts = 1000;

}  // namespace

Result<std::unique_ptr<Engine>> UringEngine::create(const Parts& parts) noexcept {
  TRY_LET(Uring ring, Uring::map(parts.ring, parts.layout));
  std::array<int, kSlotCount> files{};
  files[kSlotKick] = parts.kick.number;
  files[kSlotCall] = parts.call.number;
  files[kSlotDevice] = parts.device.number;
  files[kSlotDeviceBuffered] = parts.device_buffered.number;
  TRY(ring.enable(parts.ring, files));
  return std::unique_ptr<Engine>(
      new UringEngine(std::move(ring), parts.kick.valid(), parts.call.valid()));
}

UringEngine::UringEngine(Uring ring, bool has_kick, bool has_call) noexcept
    : ring_(std::move(ring)), has_kick_(has_kick), has_call_(has_call) {
  if (has_kick_) arm_kick();
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
    const bool sleep = may_sleep && !news && !(stopping_ && in_flight_ == 0);
    if (sleep || ring_.unsubmitted() != 0 || ring_.work_pending()) {
      if (!enter(sleep)) break;
      reap(wakeup);
    }
    // What woke us may have been our own bell, or a signal: no news for the caller.
    again = sleep && has_kick_ && done_.empty() && !wakeup.kicked && !wakeup.stop &&
            !wakeup.call_swapped;
  } while (again);
  wakeup.stop = stopping_;
  wakeup.host_fault = broken_ || ring_.overflowed();
  return wakeup;
}

bool UringEngine::ready() const noexcept {
  return !done_.empty() || ring_.completions_waiting() || ring_.work_pending() ||
         ring_.unsubmitted() != 0;
}

// False where the ring does not work any more.
bool UringEngine::enter(bool sleep) noexcept {
  const int result = ring_.enter(sleep ? 1 : 0, has_kick_ ? 0 : kUnkickedPollUs);
  if (call_queued_ && ring_.unsubmitted() == 0) {
    call_queued_ = false;
    call_pending_ = true;
  }
  switch (result) {
    case -EINTR:   // Stopped and continued, or traced.
    case -ETIME:   // Nothing within timeout_us.
    case -EAGAIN:  // No memory for requests just now: they stay in the queue.
    case -EBUSY:   // Completions are to be taken first.
      return true;
    default:
      if (result < 0) broken_ = true;
      return result >= 0;
  }
}

void UringEngine::reap(Wakeup& wakeup) noexcept {
  io_uring_cqe completion;
  while (ring_.next(completion)) {
    if (completion.user_data == kRingStop) {
      stopping_ = wakeup.stop = true;
    } else if (completion.user_data == kRingCallSwapped) {
      // A WRITE to the file that was there before may stay pending; it is of no interest any more.
      ++call_generation_;
      has_call_ = true;
      call_queued_ = call_pending_ = call_again_ = false;
      wakeup.call_swapped = true;
    } else if ((completion.user_data & kKindMask) == kKindRequest) {
      --in_flight_;
      done_.push(static_cast<std::uint32_t>(completion.user_data), completion.res);
    } else if ((completion.user_data & kKindMask) == kKindKick) {
      finish_kick(completion.res, wakeup);
    } else if ((completion.user_data & kKindMask) == kKindCall) {
      finish_call(completion.user_data, completion.res);
    }
  }
}

void UringEngine::finish_kick(std::int32_t result, Wakeup& wakeup) noexcept {
  wakeup.kicked = true;
  const bool transient = result == -EINTR || result == -ECANCELED;
  if (result >= 0 || transient) {
    arm_kick();
  } else {
    has_kick_ = false;  // It was an eventfd when we started; without it, look from time to time.
  }
}

void UringEngine::finish_call(std::uint64_t user_data, std::int32_t result) noexcept {
  if (static_cast<std::uint32_t>(user_data) != call_generation_) return;
  call_queued_ = call_pending_ = false;
  const bool lost = result == -EINTR || result == -ECANCELED;
  if (std::exchange(call_again_, false) || lost) ring_call();
}

// opcodes: READ
void UringEngine::arm_kick() noexcept {
  io_uring_sqe* const entry = claim(IORING_OP_READ, kSlotKick);
  if (entry == nullptr) return;
  entry->addr = reinterpret_cast<std::uint64_t>(&kick_value_);
  entry->len = sizeof(kick_value_);
  entry->user_data = kKindKick;
}

// opcodes: WRITE
void UringEngine::ring_call() noexcept {
  if (!has_call_ || call_queued_) return;
  if (call_pending_) {
    call_again_ = true;
    return;
  }
  io_uring_sqe* const entry = claim(IORING_OP_WRITE, kSlotCall);
  if (entry == nullptr) return;
  entry->addr = reinterpret_cast<std::uint64_t>(&call_value_);
  entry->len = sizeof(call_value_);
  entry->user_data = kKindCall | call_generation_;
  call_queued_ = true;
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
      if (io_uring_sqe* const entry = claim(IORING_OP_FSYNC, kSlotDevice); entry != nullptr) {
        entry->fsync_flags = IORING_FSYNC_DATASYNC;
        entry->user_data = kKindRequest | request.tag;
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
  io_uring_sqe* const entry = claim(opcode, request.buffered ? kSlotDeviceBuffered : kSlotDevice);
  if (entry == nullptr) return;
  entry->off = request.offset;
  entry->user_data = kKindRequest | request.tag;
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
  io_uring_sqe* const entry = claim(IORING_OP_FALLOCATE, kSlotDevice);
  if (entry == nullptr) return;
  entry->off = request.offset;
  entry->addr = request.length;  // As fallocate(2) wants them: length here, mode in `len`.
  entry->len = static_cast<std::uint32_t>(
      request.kind == IoRequest::Kind::kPunchHole ? policy::kPunchHole : policy::kZeroRange);
  entry->user_data = kKindRequest | request.tag;
}

// Null only where the ring does not work any more; the next turn() reports that.
io_uring_sqe* UringEngine::claim(std::uint8_t opcode, std::uint32_t slot) noexcept {
  for (int attempt = 0; attempt < kClaimAttempts; ++attempt) {
    if (io_uring_sqe* const entry = ring_.claim(opcode, slot); entry != nullptr) return entry;
    if (!enter(false)) break;
  }
  broken_ = true;
  return nullptr;
}

}  // namespace worker
