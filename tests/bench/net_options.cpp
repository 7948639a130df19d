#include "tests/bench/net_options.h"

#include <string_view>

#include "tests/bench/command.h"

namespace bench {
namespace {

bool mode(std::string_view text, NetMode& to) {
  constexpr std::pair<std::string_view, NetMode> kModes[] = {
      {"tx", NetMode::kTransmit},        {"rx", NetMode::kReceive},       {"echo", NetMode::kEcho},
      {"raw-write", NetMode::kRawWrite}, {"raw-read", NetMode::kRawRead},
  };
  for (const auto& [name, value] : kModes) {
    if (name != text) continue;
    to = value;
    return true;
  }
  return false;
}

bool option(std::string_view name, std::string_view value, NetOptions& to) {
  if (name == "mode") return mode(value, to.mode);
  if (name == "socket") return !(to.socket = value).empty();
  if (name == "tap") return !(to.tap = value).empty();
  if (name == "address") return !(to.address = value).empty();
  if (name == "bytes") return parse_number(value, to.bytes) && to.bytes >= 60 && to.bytes <= 65000;
  if (name == "segments") return to.segments = true;
  if (name == "qd") return parse_number(value, to.depth) && to.depth != 0;
  if (name == "queue-size") return parse_number(value, to.queue_size) && to.queue_size != 0;
  if (name == "buffer") return parse_number(value, to.buffer_bytes) && to.buffer_bytes >= 128;
  if (name == "fill") return parse_number(value, to.fill) && to.fill != 0;
  if (name == "seconds") return parse_number(value, to.seconds) && to.seconds > 0;
  if (name == "client") return (to.poll = value == "poll") || value == "intr";
  if (name == "rate") return parse_number(value, to.rate);
  if (name == "burst") return parse_number(value, to.burst) && to.burst != 0;
  if (name == "backend-pid") return parse_pids(value, to.back_end);
  if (name == "count-syscalls") return to.count_system_calls = true;
  if (name == "cpu") return parse_number(value, to.cpu);
  if (name == "hold") return to.hold = true;
  if (name == "json") return to.json = true;
  return false;
}

std::string missing(const NetOptions& options) {
  const bool raw = options.mode == NetMode::kRawWrite || options.mode == NetMode::kRawRead;
  if (!raw && options.socket.empty()) return "--socket=PATH is needed: the back-end's";
  const bool host = raw || options.mode == NetMode::kReceive || options.mode == NetMode::kEcho;
  if (host && options.tap.empty()) return "--tap=NAME is needed: the host's end";
  if (options.mode == NetMode::kEcho && options.address.empty()) {
    return "--address=ADDRESS is needed: the IPv4 address of --tap";
  }
  if (options.depth > options.queue_size) return "--qd is more than the ring has entries";
  return {};
}

}  // namespace

const char* net_usage() noexcept {
  return R"(bulkhead-net-bench --mode=MODE --socket=PATH [options]
Drives a vhost-user-net back-end, ours or another, as a guest's driver would, and measures it. Run
it in the network namespace of the tap.

  --mode=tx             guest to tap: what the tap gets is the host's to drop
  --mode=rx             tap to guest: --fill=N frames wait in the tap for a guest without buffers,
                        then the time is taken until the guest has them all; --tap=NAME
  --mode=echo           one packet in flight: ICMP echo, answered by the host's stack at
                        --address=A of --tap=NAME; the guest is 192.0.2.2, which must be a neighbour
  --mode=raw-write|raw-read   the floor: a bare loop on --tap=NAME, without any back-end
  --bytes=N             of a frame, 60 to 65000 (60)
  --segments            frames are TCP segments that are yet to be cut (TSO; GRO coming in)
  --qd=N                tx: frames in flight (256)
  --queue-size=N        entries of each ring (256)
  --buffer=BYTES        of a receive buffer (2048); longer packets take several
  --seconds=S           how long is measured (2)
  --client=intr|poll    sleep until interrupted, or look at the ring without pause (intr)
  --rate=N --burst=N    tx: so many frames per second, so many at a time (32)
  --backend-pid=PID,... count the CPU time of these processes and their descendants
  --count-syscalls      count their system calls too (slows them down)
  --cpu=N               run the client on this CPU only
  --hold                start the queues, print "ready", and stay until stdin ends
  --json                print one JSON object
)";
}

std::optional<NetOptions> parse_net(int argc, char** argv, std::string& problem) {
  NetOptions options;
  for (int i = 1; i < argc; ++i) {
    const std::string_view word = argv[i];
    const std::size_t equals = word.find('=');
    const std::string_view value =
        equals == std::string_view::npos ? std::string_view() : word.substr(equals + 1);
    if (word.starts_with("--") && option(word.substr(2, equals - 2), value, options)) continue;
    problem = "not understood: " + std::string(word);
    return std::nullopt;
  }
  problem = missing(options);
  if (!problem.empty()) return std::nullopt;
  return options;
}

}  // namespace bench
