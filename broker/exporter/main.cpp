// broker/exporter/main.cpp: `bulkhead-exporter`: a broker's counters over HTTP, for Prometheus.
//
// May:        listen on loopback (or have systemd do it), and ask the operator's socket, as a user
//             who may look and not change anything.
// Must never: be part of a broker; run as root; hold anything of a device or a guest.
// Trusts:     whoever started it, and the broker. Not: who connects.
// Stages:     1. command line, sockets. 2. jail (broker/exporter/jail.h). 3. serve.
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <string>
#include <string_view>

#include "broker/control/client.h"
#include "broker/control/scrape.h"
#include "broker/exporter/http.h"
#include "broker/exporter/jail.h"
#include "broker/exporter/listener.h"
#include "broker/systemd.h"
#include "broker/text.h"
#include "policy/exporter.h"

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
    "  --require-posture=strict|any\n"
    "                          strict: do not start without Landlock and limits [any]\n"
    "  --help                  this text\n"
    "  --version               the version\n\n"
    "Exit status: 0, or 1 where it could not be done, 2 for wrong usage.\n";

struct Options {
  std::string listen = broker::exporter::kDefaultListen;
  std::string control_socket = broker::control::kDefaultSocket;
  bool strict = false;
};

int complain(const std::string& text, int exit_code = 1) {  // syscalls: write
  std::fprintf(stderr, "bulkhead-exporter: %s\n", text.c_str());
  return exit_code;
}

bool take(std::string_view argument, std::string_view name, std::string& value) {
  if (!argument.starts_with(name)) return false;
  value = argument.substr(name.size());
  return true;
}

// Not through what a library does at the end: it is not on the list.
[[noreturn]] void leave(int exit_code) { ::_exit(exit_code); }  // syscalls: exit_group

Answer<std::string> read_page(const std::string& socket) {  // syscalls: brk, mmap, munmap
  using broker::control::Client;
  TRY_LET(Client client, Client::connect(socket, kPatience, Client::Look::kAtNobody));
  return broker::control::scrape(client, broker::control::MetricsFormat::kPrometheus);
}

Answer<common::Fd> open_listener(const Options& options) {
  TRY_LET(common::Fd activated, broker::exporter::take_activated());
  if (activated.valid()) return activated;
  return broker::exporter::listen_on_loopback(options.listen);
}

Answer<void> enter_jail(const Options& options) {
  TRY_LET(const auto lacking, broker::exporter::give_up_privileges());
  if (!lacking.layers.empty()) {
    (void)complain("this host, or what has started it, does not let it have: " + lacking.layers);
  }
  if (lacking.below_strict && options.strict) {
    return common::fail(std::string("its posture is below strict; see --require-posture"));
  }
  return broker::exporter::seal();
}

Answer<void> serve(const Options& options) {
  TRY_LET(common::Fd opened, open_listener(options));
  TRY_LET(common::Fd listener, broker::exporter::arrange_descriptors(std::move(opened)));
  TRY_LET(const auto server, broker::exporter::HttpServer::make(std::move(listener), [&options] {
            return read_page(options.control_socket);
          }));
  if (server->events().number != static_cast<int>(policy::ExporterFd::kEvents)) {
    return common::fail(std::string("libmicrohttpd has opened more than its list has room for"));
  }
  common::Fd manager = broker::ServiceManager::from_environment().connect();
  TRY(enter_jail(options));
  broker::ServiceManager::tell(manager.ref(), "READY=1");
  manager.reset();
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
    if (argument == "--require-posture=strict" || argument == "--require-posture=any") {
      options.strict = argument.ends_with("strict");
      continue;
    }
    return complain(broker::in_quotes(argument) + " is no option; see --help", 2);
  }
  if (::geteuid() == 0) {
    return complain(
        "it must not run as root; start bulkhead-exporter.service, or run it as a user "
        "of the broker's --control-read-group");
  }
  (void)std::signal(SIGPIPE, SIG_IGN);
  const Answer<void> served = serve(options);
  leave(served ? 0 : complain(served.error()));
}
