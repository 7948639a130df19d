#include "worker/tap_fallback.h"

#include <unistd.h>

#include <cerrno>

namespace worker {
namespace {

// Whoever has packets to move need not look for kicks, but a guest that always has some must not
// keep a stop from being seen.
constexpr std::uint32_t kTransfersUnpolledMax = 32;

}  // namespace

std::unique_ptr<TapEngine> TapFallback::create(const Parts& parts) noexcept {
  return std::unique_ptr<TapEngine>(new TapFallback(parts));
}

TapFallback::TapFallback(const Parts& parts) noexcept
    : direction_(parts.direction),
      tap_(parts.tap),
      events_(
          parts.events,
          {-1, static_cast<short>(direction_ == TapDirection::kReceive ? POLLIN : POLLOUT), 0}) {}

TapWakeup TapFallback::transfer(std::span<TapPacket> packets) noexcept {
  bool again = false;
  for (TapPacket& packet : packets) {
    packet.result = -EAGAIN;  // Once the tap has nothing more, nobody overtakes.
    if (!again) perform(packet);
    again = packet.result == -EAGAIN;
  }
  TapWakeup wakeup;
  if (++transfers_unpolled_ >= kTransfersUnpolledMax && poll(false)) take_news(wakeup);
  wakeup.stop = events_.stopping();
  return wakeup;
}

// syscalls: readv, writev
void TapFallback::perform(TapPacket& packet) noexcept {
  const int count = static_cast<int>(packet.count);
  ssize_t moved = 0;
  do {
    ++system_calls_;
    moved = direction_ == TapDirection::kReceive ? ::readv(tap_.number, packet.segments, count)
                                                 : ::writev(tap_.number, packet.segments, count);
  } while (moved < 0 && errno == EINTR);
  packet.result = moved < 0 ? -errno : static_cast<std::int32_t>(moved);
}

TapWakeup TapFallback::wait(Until until) noexcept {
  TapWakeup wakeup;
  events_.watch_device(until == Until::kTap ? tap_ : common::FdRef{});
  if (poll(!events_.stopping(), sleep_us_max())) take_news(wakeup);
  events_.watch_device({});
  wakeup.stop = events_.stopping();
  return wakeup;
}

bool TapFallback::ready() noexcept { return poll(false); }

bool TapFallback::poll(bool sleep, std::uint32_t sleep_us_max) noexcept {
  transfers_unpolled_ = 0;
  return events_.poll(sleep, sleep_us_max);
}

void TapFallback::take_news(TapWakeup& wakeup) noexcept {
  const Eventfds::News news = events_.take_news();
  wakeup.kicked = wakeup.kicked || news.kicked;
  wakeup.tap_ready = wakeup.tap_ready || news.device_ready;
}

}  // namespace worker
