// broker/main.cpp: `bulkhead`: the broker and its command line.
//
// May: read the configuration; bind, accept and connect unix sockets; open disks and taps; start,
// watch and
//   stop sessions and workers; write the log.
// Must never: read a byte that a VMM or a guest wrote (sessions' fixed-size messages aside, which
//   it treats as hostile); map guest memory; die because of a peer.
// Trusts: whoever started it, its configuration, and the programs it finds beside itself.
// Stages: 1. command line and configuration (here). 2. open, probe, listen (serve). 3. serve.
#include <fcntl.h>
#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <fstream>
#include <string>
#include <variant>
#include <vector>

#include "broker/control/run.h"
#include "broker/doctor.h"
#include "broker/log.h"
#include "broker/options.h"
#include "broker/print_posture.h"
#include "broker/serve.h"
#include "broker/systemd.h"

namespace {

// A descriptor that is closed at start would be given to the first disk or socket that is opened,
// and what is then written to stderr would land there.
void occupy_standard_descriptors() {
  int fd = -1;
  do {
    fd = ::open("/dev/null", O_RDWR);
  } while (fd >= 0 && fd <= STDERR_FILENO);
  if (fd >= 0) ::close(fd);
}

// What a shell or a service manager left open by accident would stay open as long as we run.
void close_uninvited_descriptors(const broker::BrokerConfig& config) {
  std::vector<unsigned> invited;
  for (const auto& device : config.devices) {
    if (device.fd > STDERR_FILENO) invited.push_back(static_cast<unsigned>(device.fd));
    for (const int fd : device.tap_fds) {
      if (fd > STDERR_FILENO) invited.push_back(static_cast<unsigned>(fd));
    }
  }
  std::sort(invited.begin(), invited.end());
  unsigned next = STDERR_FILENO + 1;
  for (const unsigned kept : invited) {
    if (kept > next) ::syscall(SYS_close_range, next, kept - 1, 0U);
    next = kept + 1;
  }
  ::syscall(SYS_close_range, next, ~0U, 0U);
}

int run(const broker::PrintAndExit& command) {
  const bool written = std::fputs(command.text.c_str(), stdout) >= 0 && std::fflush(stdout) == 0;
  return written ? 0 : 1;
}

int run(const broker::RunDoctor& command) { return broker::run_doctor(command.log); }

int run(const broker::RunPosture& command) { return broker::print_posture(command.pid); }

int run(const broker::control::RunOperator& command) {
  if (command.command == "posture") return broker::control::run_posture(command);
  return broker::control::find_operator_command(command.command)->run(command);
}

int run(const broker::RunAudit& command) { return broker::audit::run_command(command.command); }

// Only to a broker: any other process would be ended by this signal.
int run(const broker::RunUpgrade& command) {
  std::array<char, 64> path{};
  std::snprintf(path.data(), path.size(), "/proc/%d/comm", static_cast<int>(command.pid));
  std::ifstream file(path.data());
  std::string name;
  std::getline(file, name);
  if (name != "bulkhead" && !name.starts_with("vhost-user-")) {
    std::fprintf(stderr, "bulkhead: process %d is no broker; give --pid=$(pidof bulkhead)\n",
                 static_cast<int>(command.pid));
    return 1;
  }
  if (::kill(command.pid, SIGRTMIN) == 0) return 0;
  std::fprintf(stderr, "bulkhead: cannot tell broker %d: %s; run this as its user\n",
               static_cast<int>(command.pid), ::strerror(errno));
  return 1;
}

int run(const broker::RunServe& command) {
  // A VMM that goes away while something is written to it must not end us.
  ::signal(SIGPIPE, SIG_IGN);
  close_uninvited_descriptors(command.config);
  auto log = broker::Log::open(command.config.log_level);
  if (!log) {
    std::fprintf(stderr, "bulkhead: %s\n", log.error().c_str());
    return 1;
  }
  return broker::serve(command.config, *log);
}

int run_command(const std::vector<std::string>& arguments) {
  const auto command = broker::parse_command(arguments, broker::take_listen_fds());
  if (!command) {
    std::fputs(command.error().text.c_str(), stderr);
    return command.error().exit_code;
  }
  return std::visit([](const auto& one) { return run(one); }, *command);
}

}  // namespace

int main(int count, char** arguments) {
  occupy_standard_descriptors();
  try {
    return run_command(std::vector<std::string>(arguments, arguments + count));
  } catch (const std::exception& error) {
    // No code of ours throws: this is memory that ran out, or a library at its wits' end.
    std::fprintf(stderr, "bulkhead: %s\n", error.what());
    return 1;
  }
}
