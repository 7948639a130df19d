#include "worker/tap_uring.h"

#include <poll.h>
#include <sys/uio.h>

#include <cerrno>
#include <utility>

namespace worker {
namespace {

using common::Result;
using common::ipc::kSlotDevice;
using common::ipc::kSlotKick;
using common::ipc::kSlotStop;

// A batch takes one enter(), unless the kernel is out of memory.
constexpr int kAttempts = 1000;

}  // namespace

Result<std::unique_ptr<TapEngine>> TapUring::create(TapDirection direction,
                                                    const UringPort::Parts& parts) noexcept {
  TRY_LET(UringPort port, UringPort::open(parts));
  return std::unique_ptr<TapEngine>(new TapUring(direction, std::move(port)));
}

TapUring::TapUring(TapDirection direction, UringPort port) noexcept
    : direction_(direction), port_(std::move(port)) {
  if (port_.has_kick()) arm_kick();
  if (port_.has_stop()) arm_stop();
}

TapWakeup TapUring::transfer(std::span<TapPacket> packets) noexcept {
  TapWakeup wakeup;
  moving_ = packets;
  moved_ = 0;
  for (std::uint32_t i = 0; i < packets.size(); ++i) prepare(packets[i], i);
  // Once, but for a lack of memory or a signal. Nothing of it can wait: RWF_NOWAIT. Without packets
  // it is the bell that goes out.
  const auto unfinished = [this, &packets] {
    return moved_ < packets.size() || port_.unsubmitted() != 0;
  };
  for (int attempt = 0; unfinished() && !port_.broken(); ++attempt) {
    if (attempt == kAttempts) {
      port_.give_up();
    } else {
      port_.enter(false);
    }
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
  while (again && !port_.stopping() && !port_.broken()) {
    const bool news = wakeup.kicked || wakeup.tap_ready || wakeup.call_swapped;
    port_.enter(!news, sleep_us_max());
    reap(wakeup);
    // What woke us may have been our own bell, or a signal: no news for the caller.
    again = sleep_us_max() == 0 && port_.has_kick() && !wakeup.kicked && !wakeup.tap_ready &&
            !wakeup.call_swapped;
  }
  if (port_.stopping() && port_.unsubmitted() != 0) port_.enter(false);
  return done(wakeup);
}

void TapUring::watch_tap() noexcept {
  arm_tap();
  if (port_.unsubmitted() != 0) port_.enter(false);
}

bool TapUring::ready() noexcept {
  return port_.completions_waiting() || port_.work_pending() || port_.stopping() || port_.broken();
}

TapWakeup TapUring::done(TapWakeup wakeup) const noexcept {
  wakeup.stop = port_.stopping();
  wakeup.host_fault = port_.faulty();
  return wakeup;
}

void TapUring::reap(TapWakeup& wakeup) noexcept {
  io_uring_cqe completion;
  while (port_.next(completion)) take(completion, wakeup);
}

void TapUring::take(const io_uring_cqe& completion, TapWakeup& wakeup) noexcept {
  const auto low = static_cast<std::uint32_t>(completion.user_data);
  switch (completion.user_data & UringPort::kKindMask) {
    case UringPort::kKindData:
      if (low < moving_.size()) moving_[low].result = completion.res;
      ++moved_;
      return;
    case UringPort::kKindKick:
      wakeup.kicked = true;
      // Polled once for all, until the kernel says that it does not go on.
      if ((completion.flags & IORING_CQE_F_MORE) == 0) {
        if (completion.res < 0 && completion.res != -ECANCELED) return port_.lose_kick();
        arm_kick();
      }
      return;
    case UringPort::kKindDevice:
      tap_armed_ = false;
      wakeup.tap_ready = true;
      return;
    default:
      const UringPort::Message message = port_.take(completion);
      if (message == UringPort::Message::kCallSwapped) wakeup.call_swapped = true;
      if (message == UringPort::Message::kStopLost) arm_stop();
      return;
  }
}

void TapUring::prepare(const TapPacket& packet, std::uint32_t index) noexcept {
  const bool receive = direction_ == TapDirection::kReceive;
  // One segment needs no array to be copied, which is a tenth of the packet's whole cost.
  const bool single = packet.count == 1;
  const std::uint8_t opcode = receive ? (single ? IORING_OP_READ : IORING_OP_READV)
                                      : (single ? IORING_OP_WRITE : IORING_OP_WRITEV);
  io_uring_sqe* const entry = port_.claim(opcode, kSlotDevice);
  if (entry == nullptr) return;
  if (single) {
    entry->addr = reinterpret_cast<std::uint64_t>(packet.segments[0].iov_base);
    entry->len = static_cast<std::uint32_t>(packet.segments[0].iov_len);
  } else {
    entry->addr = reinterpret_cast<std::uint64_t>(packet.segments);
    entry->len = packet.count;
  }
  entry->rw_flags = RWF_NOWAIT;  // Without it an empty tap would be polled for us, out of order.
  entry->user_data = UringPort::kKindData | index;
}

void TapUring::arm_kick() noexcept {
  io_uring_sqe* const entry = port_.claim(IORING_OP_POLL_ADD, kSlotKick);
  if (entry == nullptr) return;
  entry->poll32_events = POLLIN;
  entry->len = IORING_POLL_ADD_MULTI;
  entry->user_data = UringPort::kKindKick;
}

void TapUring::arm_stop() noexcept {
  io_uring_sqe* const entry = port_.claim(IORING_OP_POLL_ADD, kSlotStop);
  if (entry == nullptr) return;
  entry->poll32_events = POLLIN;
  entry->user_data = UringPort::kKindStop;
}

void TapUring::arm_tap() noexcept {
  if (tap_armed_) return;
  io_uring_sqe* const entry = port_.claim(IORING_OP_POLL_ADD, kSlotDevice);
  if (entry == nullptr) return;
  entry->poll32_events = direction_ == TapDirection::kReceive ? POLLIN : POLLOUT;
  entry->user_data = UringPort::kKindDevice;
  tap_armed_ = true;
}

}  // namespace worker
