#include "worker/eventfds.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>

namespace worker {
namespace {

// Without a kick eventfd the ring is looked at this often.
constexpr std::uint32_t kUnkickedPollUs = 100;

}  // namespace

// Before the seal: fcntl() is not allowed afterwards.
Eventfds::Eventfds(const Parts& parts, pollfd device) noexcept
    : parts_(parts),
      call_blocks_(parts.call.valid() && (::fcntl(parts.call.number, F_GETFL) & O_NONBLOCK) == 0) {
  polled_[kStop] = {parts.stop.number, POLLIN, 0};
  polled_[kKick] = {parts.kick.number, POLLIN, 0};
  polled_[kDevice] = device;
}

// syscalls: ppoll
bool Eventfds::poll(bool sleep, std::uint32_t sleep_us_max) noexcept {
  const bool polled_ring = polled_[kKick].fd < 0;
  if (sleep_us_max == 0 && polled_ring) sleep_us_max = kUnkickedPollUs;
  const bool forever = sleep && sleep_us_max == 0;
  timespec timeout{};
  if (sleep) {
    timeout.tv_sec = sleep_us_max / 1'000'000;
    timeout.tv_nsec = static_cast<long>(sleep_us_max % 1'000'000) * 1000;
  }
  ++system_calls_;
  return ::ppoll(polled_.data(), polled_.size(), forever ? nullptr : &timeout, nullptr) > 0;
}

Eventfds::News Eventfds::take_news() noexcept {
  News news;
  if (polled_[kStop].revents != 0) {
    stopping_ = true;
    polled_[kStop].fd = -1;  // It stays readable: said once, it must not wake us again.
  }
  news.device_ready = polled_[kDevice].revents != 0;
  if ((polled_[kKick].revents & POLLIN) != 0) {
    drain(parts_.kick);
    news.kicked = true;
  } else if (polled_[kKick].revents != 0) {
    polled_[kKick].fd = -1;  // Nothing will come of it: look at the ring from time to time instead.
  }
  return news;
}

// syscalls: read
void Eventfds::drain(common::FdRef eventfd) noexcept {
  std::uint64_t value = 0;
  ++system_calls_;
  // EAGAIN: somebody else has read it, which is the VMM's business.
  [[maybe_unused]] const ssize_t got = ::read(eventfd.number, &value, sizeof(value));
}

// syscalls: write
void Eventfds::ring_call() noexcept {
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
// syscalls: ppoll
bool Eventfds::call_has_room() noexcept {
  if (!call_blocks_) return true;
  pollfd room{parts_.call.number, POLLOUT, 0};
  const timespec now{0, 0};
  ++system_calls_;
  return ::ppoll(&room, 1, &now, nullptr) == 1 && (room.revents & POLLOUT) != 0;
}

}  // namespace worker
