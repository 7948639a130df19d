// broker/program_files.h: finds and opens the programs that the broker starts, once, before any VMM
// connects: what lies at their paths later does not matter.
#pragma once

#include <string>
#include <vector>

#include "broker/config.h"
#include "common/fd.h"

namespace broker {

// For execveat(): opened O_PATH | O_CLOEXEC.
struct Programs {
  common::Fd session;
  common::Fd worker_blk;
  common::Fd worker_net;
  common::Fd keeper;
};

// Looks beside our own binary (/proc/self/exe), then in ../libexec/bulkhead from there.
[[nodiscard]] Answer<Programs> open_programs();

// The same, in these directories, first one first.
[[nodiscard]] Answer<Programs> open_programs_in(const std::vector<std::string>& directories);

}  // namespace broker
