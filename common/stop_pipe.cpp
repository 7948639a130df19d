#include "common/stop_pipe.h"

#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <cerrno>

namespace common {

// syscalls: pipe2
Result<StopPipe> make_stop_pipe() noexcept {
  std::array<int, 2> ends{};
  if (::pipe2(ends.data(), O_CLOEXEC | O_NONBLOCK) != 0) return fail_errno("pipe", errno);
  return StopPipe{Fd(ends[0]), Fd(ends[1])};
}

// syscalls: write
bool tell_to_stop(FdRef writing) noexcept {
  const char word = 1;
  // Full is readable, which is all that it is for.
  return ::write(writing.number, &word, sizeof(word)) == 1 || errno == EAGAIN;
}

}  // namespace common
