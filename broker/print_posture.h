// broker/print_posture.h: `bulkhead posture --pid=N`.
#pragma once

#include <sys/types.h>

namespace broker {

// Prints the table of `pid` and all its descendants to stdout. Returns the exit code: 1 where there
// is no such process or it may not be looked at, with one line on stderr.
[[nodiscard]] int print_posture(pid_t pid);

}  // namespace broker
