#include "worker/tap_fallback.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "policy/worker_net.h"

namespace worker {
namespace {

// Without a kick eventfd the ring is looked at this often.
constexpr long kUnkickedPollNs = 100'000;
// Whoever has packets to move need not look for kicks, but a guest that always has some must not
// keep a stop from being seen.
constexpr std::uint32_t kTransfersUnpolledMax = 32;

}  // namespace

std::unique_ptr<TapEngine> TapFallback::create(const Parts& parts) noexcept {
  const bool call_blocks =
      parts.call.valid() && (::fcntl(parts.call.number, F_GETFL) & O_NONBLOCK) == 0;
  return std::unique_ptr<TapEngine>(new TapFallback(parts, call_blocks));
}

TapFallback::TapFallback(const Parts& parts, bool call_blocks) noexcept
    : parts_(parts), call_blocks_(call_blocks) {
  polled_[kStop] = {parts.stop.number, POLLIN, 0};
  polled_[kKick] = {parts.kick.number, POLLIN, 0};
  const bool receives = parts.direction == TapDirection::kReceive;
  polled_[kTap] = {-1, static_cast<short>(receives ? POLLIN : POLLOUT), 0};
}

TapWakeup TapFallback::transfer(std::span<TapPacket> packets) noexcept {
  bool again = false;
  for (TapPacket& packet : packets) {
    packet.result = -EAGAIN;  // Once the tap has nothing more, nobody overtakes.
    if (!again) perform(packet);
    again = packet.result == -EAGAIN;
  }
  TapWakeup wakeup;
  if (++transfers_unpolled_ >= kTransfersUnpolledMax && poll(false) > 0) take_news(wakeup);
  wakeup.stop = stopping_;
  return wakeup;
}

// syscalls: readv, writev
void TapFallback::perform(TapPacket& packet) noexcept {
  const int count = static_cast<int>(packet.count);
  ssize_t moved = 0;
  do {
    ++system_calls_;
    moved = parts_.direction == TapDirection::kReceive
                ? ::readv(parts_.tap.number, packet.segments, count)
                : ::writev(parts_.tap.number, packet.segments, count);
  } while (moved < 0 && errno == EINTR);
  packet.result = moved < 0 ? -errno : static_cast<std::int32_t>(moved);
}

TapWakeup TapFallback::wait(Until until) noexcept {
  TapWakeup wakeup;
  polled_[kTap].fd = until == Until::kTap ? parts_.tap.number : -1;
  if (poll(!stopping_) > 0) take_news(wakeup);
  polled_[kTap].fd = -1;
  wakeup.stop = stopping_;
  return wakeup;
}

bool TapFallback::ready() noexcept { return poll(false) > 0; }

// syscalls: ppoll
int TapFallback::poll(bool sleep) noexcept {
  transfers_unpolled_ = 0;
  const bool polled_ring = polled_[kKick].fd < 0;
  const timespec timeout{0, sleep ? kUnkickedPollNs : 0};
  ++system_calls_;
  return ::ppoll(polled_.data(), polled_.size(), sleep && !polled_ring ? nullptr : &timeout,
                 nullptr);
}

void TapFallback::take_news(TapWakeup& wakeup) noexcept {
  if (polled_[kStop].revents != 0) {
    stopping_ = true;
    polled_[kStop].fd = -1;  // It stays readable: said once, it must not wake us again.
  }
  if (polled_[kTap].revents != 0) wakeup.tap_ready = true;
  if ((polled_[kKick].revents & POLLIN) != 0) {
    drain();
    wakeup.kicked = true;
  } else if (polled_[kKick].revents != 0) {
    polled_[kKick].fd = -1;  // Nothing will come of it: look at the ring from time to time instead.
  }
}

// syscalls: read
void TapFallback::drain() noexcept {
  std::uint64_t value = 0;
  ++system_calls_;
  // EAGAIN: somebody else has read it, which is the VMM's business.
  [[maybe_unused]] const ssize_t got = ::read(parts_.kick.number, &value, sizeof(value));
}

// syscalls: write
void TapFallback::ring_call() noexcept {
  if (!parts_.call.valid() || !call_has_room()) return;
  const std::uint64_t one = 1;
  ssize_t written = 0;
  do {
    ++system_calls_;
    written = ::write(parts_.call.number, &one, sizeof(one));
  } while (written < 0 && errno == EINTR);
  // EAGAIN: the counter is full, so the guest has not looked since; it will find this too.
}

// A front-end may have made its eventfd blocking, and filled it: that must not hold us up. The flag
// is not ours to change, since the front-end may rely on reads that wait.
bool TapFallback::call_has_room() noexcept {
  if (!call_blocks_) return true;
  pollfd room{parts_.call.number, POLLOUT, 0};
  const timespec now{0, 0};
  ++system_calls_;
  return ::ppoll(&room, 1, &now, nullptr) == 1 && (room.revents & POLLOUT) != 0;
}

}  // namespace worker
