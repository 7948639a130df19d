#include "worker/tap_uring.h"

#include <poll.h>
#include <sys/uio.h>

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

// user_data: the place of a packet in its batch, or one of these above it. The broker's have the
// top byte set.
constexpr std::uint64_t kKindMask = 0xffff'ffff'0000'0000ULL;
constexpr std::uint64_t kKindPacket = 0;
constexpr std::uint64_t kKindKick = 1ULL << 32;
constexpr std::uint64_t kKindCall = 2ULL << 32;  // Low half: the generation.
constexpr std::uint64_t kKindTap = 3ULL << 32;

// Without a kick eventfd the ring is looked at this often.
constexpr std::uint32_t kUnkickedPollUs = 100;
// An entry of the submission queue is free after one enter(), unless the kernel is out of memory.
constexpr int kAttempts = 1000;

}  // namespace

Result<std::unique_ptr<TapEngine>> TapUring::create(const Parts& parts) noexcept {
  TRY_LET(Uring ring, Uring::map(parts.ring, parts.layout));
  std::array<int, kSlotCount> files{};
  files[kSlotKick] = parts.kick.number;
  files[kSlotCall] = parts.call.number;
  files[kSlotDevice] = parts.tap.number;
  files[kSlotDeviceBuffered] = -1;
  TRY(ring.enable(parts.ring, files));
  return std::unique_ptr<TapEngine>(
      new TapUring(std::move(ring), parts.direction, parts.kick.valid(), parts.call.valid()));
}

TapUring::TapUring(Uring ring, TapDirection direction, bool has_kick, bool has_call) noexcept
    : ring_(std::move(ring)), direction_(direction), has_kick_(has_kick), has_call_(has_call) {
  if (has_kick_) arm_kick();
}

TapWakeup TapUring::transfer(std::span<TapPacket> packets) noexcept {
  TapWakeup wakeup;
  moving_ = packets;
  moved_ = 0;
  for (std::uint32_t i = 0; i < packets.size(); ++i) prepare(packets[i], i);
  // Once, but for a lack of memory or a signal. Nothing of it can wait: RWF_NOWAIT. Without packets
  // it is the bell that goes out.
  const auto unfinished = [this, &packets] {
    return moved_ < packets.size() || ring_.unsubmitted() != 0;
  };
  for (int attempt = 0; unfinished() && !broken_; ++attempt) {
    if (attempt == kAttempts || !enter(false)) broken_ = true;
    reap(wakeup);
  }
  moving_ = {};
  return done(wakeup);
}

TapWakeup TapUring::wait(Until until) noexcept {
  TapWakeup wakeup;
  if (until == Until::kTap) arm_tap();
  reap(wakeup);
  bool again = true;
  while (again && !stopping_ && !broken_) {
    const bool news = wakeup.kicked || wakeup.tap_ready || wakeup.call_swapped;
    if (!enter(!news)) broken_ = true;
    reap(wakeup);
    // What woke us may have been our own bell, or a signal: no news for the caller.
    again = has_kick_ && !wakeup.kicked && !wakeup.tap_ready && !wakeup.call_swapped;
  }
  if (stopping_ && ring_.unsubmitted() != 0 && !enter(false)) broken_ = true;
  return done(wakeup);
}

void TapUring::watch_tap() noexcept {
  arm_tap();
  if (ring_.unsubmitted() != 0 && !enter(false)) broken_ = true;
}

bool TapUring::ready() noexcept {
  return ring_.completions_waiting() || ring_.work_pending() || stopping_ || broken_;
}

TapWakeup TapUring::done(TapWakeup wakeup) const noexcept {
  wakeup.stop = stopping_;
  wakeup.host_fault = broken_ || ring_.overflowed();
  return wakeup;
}

// False where the ring does not work any more.
bool TapUring::enter(bool sleep) noexcept {
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
      return result >= 0;
  }
}

void TapUring::reap(TapWakeup& wakeup) noexcept {
  io_uring_cqe completion;
  while (ring_.next(completion)) take(completion, wakeup);
}

void TapUring::take(const io_uring_cqe& completion, TapWakeup& wakeup) noexcept {
  const auto low = static_cast<std::uint32_t>(completion.user_data);
  if (completion.user_data == kRingStop) {
    stopping_ = true;
    return;
  }
  if (completion.user_data == kRingCallSwapped) {
    // A WRITE to the file that was there before may stay pending; it is of no interest any more.
    ++call_generation_;
    has_call_ = true;
    call_queued_ = call_pending_ = call_again_ = false;
    wakeup.call_swapped = true;
    return;
  }
  switch (completion.user_data & kKindMask) {
    case kKindPacket:
      if (low < moving_.size()) moving_[low].result = completion.res;
      ++moved_;
      return;
    case kKindKick:
      wakeup.kicked = true;
      // Polled once for all, until the kernel says that it does not go on.
      if ((completion.flags & IORING_CQE_F_MORE) == 0) {
        has_kick_ = completion.res >= 0 || completion.res == -ECANCELED;
        if (has_kick_) arm_kick();
      }
      return;
    case kKindTap:
      tap_armed_ = false;
      wakeup.tap_ready = true;
      return;
    case kKindCall:
      return finish_call(completion.user_data, completion.res);
    default:
      return;
  }
}

void TapUring::finish_call(std::uint64_t user_data, std::int32_t result) noexcept {
  if (static_cast<std::uint32_t>(user_data) != call_generation_) return;
  call_queued_ = call_pending_ = false;
  const bool lost = result == -EINTR || result == -ECANCELED;
  if (std::exchange(call_again_, false) || lost) ring_call();
}

void TapUring::prepare(const TapPacket& packet, std::uint32_t index) noexcept {
  const bool receive = direction_ == TapDirection::kReceive;
  // One segment needs no array to be copied, which is a tenth of the packet's whole cost.
  const bool single = packet.count == 1;
  const std::uint8_t opcode = receive ? (single ? IORING_OP_READ : IORING_OP_READV)
                                      : (single ? IORING_OP_WRITE : IORING_OP_WRITEV);
  io_uring_sqe* const entry = claim(opcode, kSlotDevice);
  if (entry == nullptr) return;
  if (single) {
    entry->addr = reinterpret_cast<std::uint64_t>(packet.segments[0].iov_base);
    entry->len = static_cast<std::uint32_t>(packet.segments[0].iov_len);
  } else {
    entry->addr = reinterpret_cast<std::uint64_t>(packet.segments);
    entry->len = packet.count;
  }
  entry->rw_flags = RWF_NOWAIT;  // Without it an empty tap would be polled for us, out of order.
  entry->user_data = kKindPacket | index;
}

void TapUring::arm_kick() noexcept {
  io_uring_sqe* const entry = claim(IORING_OP_POLL_ADD, kSlotKick);
  if (entry == nullptr) return;
  entry->poll32_events = POLLIN;
  entry->len = IORING_POLL_ADD_MULTI;
  entry->user_data = kKindKick;
}

void TapUring::arm_tap() noexcept {
  if (tap_armed_) return;
  io_uring_sqe* const entry = claim(IORING_OP_POLL_ADD, kSlotDevice);
  if (entry == nullptr) return;
  entry->poll32_events = direction_ == TapDirection::kReceive ? POLLIN : POLLOUT;
  entry->user_data = kKindTap;
  tap_armed_ = true;
}

void TapUring::ring_call() noexcept {
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

// Null only where the ring does not work any more; the next call reports that.
io_uring_sqe* TapUring::claim(std::uint8_t opcode, std::uint32_t slot) noexcept {
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    if (io_uring_sqe* const entry = ring_.claim(opcode, slot); entry != nullptr) return entry;
    if (!enter(false)) break;
  }
  broken_ = true;
  return nullptr;
}

}  // namespace worker
