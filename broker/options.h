// broker/options.h: the command line. CLI11 lives in options.cpp only.
#pragma once

#include <sys/types.h>

#include <span>
#include <string>
#include <variant>

#include "broker/audit/command.h"
#include "broker/config.h"
#include "broker/control/command.h"

namespace broker {

// What the command line asks for.
struct PrintAndExit {
  std::string text;  // For stdout; exit code 0: --help, --version, --print-capabilities.
};
struct RunServe {
  BrokerConfig config;
};
struct RunPosture {
  pid_t pid = -1;
};
struct RunDoctor {
  std::string log = "-";
};
struct RunAudit {
  audit::Command command;
};
struct RunUpgrade {
  pid_t pid = -1;
};
using Command = std::variant<PrintAndExit, RunServe, RunPosture, RunDoctor, RunAudit, RunUpgrade,
                             control::RunOperator>;

// Why there is no command: the lines for stderr, and the exit code (2: wrong usage).
struct UsageError {
  std::string text;
  int exit_code = 2;
};

// `arguments` as main() has them, argv[0] included: called as `vhost-user-blk` or
// `vhost-user-net` this is `bulkhead blk` or `bulkhead net`. Reads the configuration file of
// `serve` and nothing else. `listen_fds`: how many sockets the service manager has opened
// (systemd.h); a device without a socket takes the only one.
[[nodiscard]] common::Result<Command, UsageError> parse_command(
    std::span<const std::string> arguments, int listen_fds = 0);

}  // namespace broker
