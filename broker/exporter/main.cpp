// broker/exporter/main.cpp: `bulkhead-exporter`: a broker's counters over HTTP, for Prometheus.
//
// May:        listen on loopback (or have systemd do it), and ask the operator's socket, as a user
//             who may look and not change anything.
// Must never: be part of a broker; run as root; hold anything of a device or a guest.
// Trusts:     whoever started it, and the broker. Not: who connects.
// Stages:     1. command line, sockets. 2. no new privileges, not dumpable. 3. serve.
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <string>
#include <string_view>

#include "broker/control/client.h"
#include "broker/control/scrape.h"
#include "broker/exporter/http.h"
#include "broker/exporter/listener.h"
#include "broker/systemd.h"
#include "broker/text.h"

namespace {

using broker::Answer;

// A broker that does not answer must not keep those waiting for ever who ask us.
constexpr std::chrono::milliseconds kPatience{5000};

constexpr const char* kHelp =
    "Usage: bulkhead-exporter [OPTION]...\n\n"
    "Serves the counters of a running broker over HTTP, for Prometheus: GET /metrics, and nothing\n"
    "else. It is a client of the operator's socket, so its user must be one who may look: in the\n"
    "broker's --control-read-group. Listens on the socket that systemd passes, where there is "
    "one.\n\n"
    "Options:\n"
    "  --listen=ADDRESS:PORT   where to listen, on loopback only [127.0.0.1:9821]\n"
    "  --control-socket=PATH   the operator's socket of the broker [/run/bulkhead/control.sock]\n"
    "  --help                  this text\n"
    "  --version               the version\n\n"
    "Exit status: 0, or 1 where it could not be done, 2 for wrong usage.\n";

struct Options {
  std::string listen = broker::exporter::kDefaultListen;
  std::string control_socket = broker::control::kDefaultSocket;
};

int complain(const std::string& text, int exit_code = 1) {
  std::fprintf(stderr, "bulkhead-exporter: %s\n", text.c_str());
  return exit_code;
}

bool take(std::string_view argument, std::string_view name, std::string& value) {
  if (!argument.starts_with(name)) return false;
  value = argument.substr(name.size());
  return true;
}

Answer<std::string> read_page(const std::string& socket) {
  using broker::control::Client;
  TRY_LET(Client client, Client::connect(socket, kPatience));
  return broker::control::scrape(client, broker::control::MetricsFormat::kPrometheus);
}

Answer<common::Fd> open_listener(const Options& options) {
  TRY_LET(common::Fd activated, broker::exporter::take_activated());
  if (activated.valid()) return activated;
  return broker::exporter::listen_on_loopback(options.listen);
}

Answer<void> serve(const Options& options) {
  TRY_LET(common::Fd listener, open_listener(options));
  const auto number = static_cast<unsigned>(listener.ref().number);
  if (number > STDERR_FILENO + 1) ::syscall(SYS_close_range, STDERR_FILENO + 1, number - 1, 0U);
  ::syscall(SYS_close_range, number + 1, ~0U, 0U);
  if (::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 || ::prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) != 0) {
    return common::fail(std::string("cannot give up privileges"));
  }
  const auto manager = broker::ServiceManager::from_environment();
  TRY_LET(const auto server, broker::exporter::HttpServer::make(std::move(listener), [&options] {
            return read_page(options.control_socket);
          }));
  manager.notify("READY=1");
  while (true) TRY(server->turn());
}

}  // namespace

int main(int argc, char** argv) {
  Options options;
  for (int i = 1; i < argc; ++i) {
    const std::string_view argument = argv[i];
    if (argument == "--help") return std::fputs(kHelp, stdout) < 0 ? 1 : 0;
    if (argument == "--version")
      return std::puts("bulkhead-exporter " BULKHEAD_VERSION) < 0 ? 1 : 0;
    if (take(argument, "--listen=", options.listen)) continue;
    if (take(argument, "--control-socket=", options.control_socket)) continue;
    return complain(broker::in_quotes(argument) + " is no option; see --help", 2);
  }
  if (::geteuid() == 0) {
    return complain(
        "it must not run as root; start bulkhead-exporter.service, or run it as a user "
        "of the broker's --control-read-group");
  }
  (void)std::signal(SIGPIPE, SIG_IGN);
  const Answer<void> served = serve(options);
  return served ? 0 : complain(served.error());
}
