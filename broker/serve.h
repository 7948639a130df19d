// broker/serve.h: the broker at work: from a checked configuration to the end of the process.
#pragma once

#include "broker/config.h"
#include "broker/log.h"

namespace broker {

// Opens every disk, probes the host, listens (or connects), says so (log, sd_notify), and serves
// until SIGTERM or SIGINT, which drain. Returns the exit code: 0 after a clean stop, 1 where
// starting failed (with one clear line per reason).
[[nodiscard]] int serve(const BrokerConfig& config, Log& log);

}  // namespace broker
