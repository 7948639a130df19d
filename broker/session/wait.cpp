#include "broker/session/wait.h"

#include <cerrno>
#include <ctime>

namespace session {

// No time limit anywhere: the broker ends a session that takes too long, and it has a clock.
common::Result<int> wait(std::span<pollfd> sockets, Patience patience) noexcept {
  int ready = 0;
  do {
    timespec none{};
    ready = ::ppoll(sockets.data(), sockets.size(), patience == Patience::kNone ? &none : nullptr,
                    nullptr);
  } while (ready < 0 && errno == EINTR);
  if (ready < 0) return common::fail_errno("ppoll", errno);
  return ready;
}

}  // namespace session
