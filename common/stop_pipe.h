// common/stop_pipe.h: how a process that must hold no socket is told to stop: it has the reading
// end of a pipe, and whoever may stop it the other ones. When the last of these is gone, that means
// stop as well.
#pragma once

#include "common/fd.h"
#include "common/result.h"

namespace common {

struct StopPipe {
  Fd reading;
  Fd writing;
};
// CLOEXEC and non-blocking.
[[nodiscard]] Result<StopPipe> make_stop_pipe() noexcept;

// `writing` of one. False where nobody can hear it any more. The caller ignores SIGPIPE.
[[nodiscard]] bool tell_to_stop(FdRef writing) noexcept;

}  // namespace common
