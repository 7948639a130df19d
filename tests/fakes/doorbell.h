// tests/fakes/doorbell.h: what a guest hears: the call eventfds of one queue.
#pragma once

#include <cstdint>
#include <mutex>
#include <vector>

#include "common/fd.h"

namespace fakes {

// One thread waits, another may replace the eventfd meanwhile. An old one that was rung before it
// went is passed on, as a VMM passes on what arrived while a vector was masked.
class Doorbell {
 public:
  Doorbell();

  // A fresh eventfd, to be sent with SET_VRING_CALL; the old ones are still heard.
  common::FdRef replace();
  [[nodiscard]] common::FdRef current() const;
  // After the back-end has acknowledged the new one: stops listening to the old ones.
  void drop_old();

  // Sleeps until rung; false after `timeout_ms`.
  [[nodiscard]] bool wait(int timeout_ms);
  // How often wait() found it rung.
  [[nodiscard]] std::uint64_t rings() const noexcept { return rings_; }

 private:
  mutable std::mutex mutex_;
  common::Fd epoll_;
  std::vector<common::Fd> fds_;  // The last is current.
  std::uint64_t rings_ = 0;      // The waiting thread's.
};

}  // namespace fakes
