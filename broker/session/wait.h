// broker/session/wait.h: the one place where a session sleeps.
#pragma once

#include <poll.h>

#include <span>

#include "common/result.h"

namespace session {

enum class Patience : bool { kNone, kForEver };

// How many of `sockets` are ready. With Patience::kNone it only looks.
// syscalls: ppoll
[[nodiscard]] common::Result<int> wait(std::span<pollfd> sockets, Patience patience) noexcept;

}  // namespace session
