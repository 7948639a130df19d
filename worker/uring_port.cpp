#include "worker/uring_port.h"

#include <array>
#include <cerrno>
#include <utility>

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
using common::ipc::kSlotStop;

// Without a kick eventfd the ring is looked at this often.
constexpr std::uint32_t kUnkickedPollUs = 100;
// An entry of the submission queue is free after one enter(), unless the kernel is out of memory.
constexpr int kClaimAttempts = 1000;

}  // namespace

Result<UringPort> UringPort::open(const Parts& parts) noexcept {
  TRY_LET(Uring ring, Uring::map(parts.ring, parts.layout));
  std::array<int, kSlotCount> files{};
  files[kSlotKick] = parts.kick.number;
  files[kSlotCall] = parts.call.number;
  files[kSlotDevice] = parts.device.number;
  files[kSlotDeviceBuffered] = parts.device_buffered.number;
  files[kSlotStop] = parts.stop.number;
  TRY(ring.enable(parts.ring, files));
  return UringPort(std::move(ring), parts);
}

UringPort::UringPort(Uring ring, const Parts& parts) noexcept
    : ring_(std::move(ring)),
      has_kick_(parts.kick.valid()),
      has_call_(parts.call.valid()),
      has_stop_(parts.stop.valid()) {}

bool UringPort::enter(bool sleep, std::uint32_t sleep_us_max) noexcept {
  if (sleep_us_max == 0 && !has_kick_) sleep_us_max = kUnkickedPollUs;
  const int result = ring_.enter(sleep ? 1 : 0, sleep_us_max);
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

UringPort::Message UringPort::take(const io_uring_cqe& completion) noexcept {
  if (completion.user_data == kRingStop) {
    stopping_ = true;
    return Message::kStop;
  }
  if (completion.user_data == kRingCallSwapped) {
    // A WRITE to the file that was there before may stay pending; it is of no interest any more.
    ++call_generation_;
    has_call_ = true;
    call_queued_ = call_pending_ = call_again_ = false;
    return Message::kCallSwapped;
  }
  if (completion.user_data == kKindStop) {
    if (completion.res == -EINTR || completion.res == -ECANCELED) return Message::kStopLost;
    stopping_ = stopping_ || completion.res >= 0;
    return Message::kStop;
  }
  if ((completion.user_data & kKindMask) == kKindCall) {
    finish_call(static_cast<std::uint32_t>(completion.user_data), completion.res);
  }
  return Message::kNone;
}

void UringPort::finish_call(std::uint32_t generation, std::int32_t result) noexcept {
  if (generation != call_generation_) return;
  call_queued_ = call_pending_ = false;
  const bool lost = result == -EINTR || result == -ECANCELED;
  if (std::exchange(call_again_, false) || lost) ring_call();
}

// opcodes: WRITE
void UringPort::ring_call() noexcept {
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

io_uring_sqe* UringPort::claim_after_submitting(std::uint8_t opcode, std::uint32_t slot) noexcept {
  for (int attempt = 0; attempt < kClaimAttempts; ++attempt) {
    if (!enter(false)) break;
    if (io_uring_sqe* const entry = ring_.claim(opcode, slot); entry != nullptr) return entry;
  }
  broken_ = true;
  return nullptr;
}

}  // namespace worker
