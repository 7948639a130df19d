#include "tests/bench/options.h"

#include <cstdlib>
#include <string_view>

#include "tests/bench/command.h"

namespace bench {
namespace {

// "4096", "4k", "1m".
bool size(std::string_view text, std::uint32_t& to) {
  std::uint32_t factor = 1;
  if (text.ends_with('k')) factor = 1024;
  if (text.ends_with('m')) factor = 1024 * 1024;
  if (factor != 1) text.remove_suffix(1);
  std::uint32_t value = 0;
  if (!parse_number(text, value) || value > 64U * 1024 * 1024 / factor) return false;
  to = value * factor;
  return to != 0 && to % 512 == 0;
}

bool mode(std::string_view text, Options& options) {
  options.write = text.ends_with("write");
  options.sequential = text.starts_with("seq");
  return text == "randread" || text == "randwrite" || text == "seqread" || text == "seqwrite";
}

bool option(std::string_view name, std::string_view value, Options& to) {
  if (name == "socket") return !(to.socket = value).empty();
  if (name == "mode") return mode(value, to);
  if (name == "bs") return size(value, to.block_bytes);
  if (name == "qd") return parse_number(value, to.depth) && to.depth != 0;
  if (name == "queues") return parse_number(value, to.queues) && to.queues != 0;
  if (name == "queue-size") return parse_number(value, to.queue_size) && to.queue_size != 0;
  if (name == "seconds") return parse_number(value, to.seconds) && to.seconds > 0;
  if (name == "warmup") return parse_number(value, to.warmup_seconds) && to.warmup_seconds >= 0;
  if (name == "client") return (to.poll = value == "poll") || value == "intr";
  if (name == "rate") return parse_number(value, to.rate);
  if (name == "burst") return parse_number(value, to.burst);
  if (name == "backend-pid") return parse_pids(value, to.back_end);
  if (name == "cpu") return parse_number(value, to.cpu);
  if (name == "hugetlb") return to.huge_pages = true;
  if (name == "indirect") return (to.indirect = value == "on") || value == "off";
  if (name == "event-idx") return (to.event_idx = value == "on") || value == "off";
  if (name == "count-syscalls") return to.count_system_calls = true;
  if (name == "hold") return to.hold = true;
  if (name == "until-eof") {
    to.seconds = 1e6;
    return to.until_eof = true;
  }
  if (name == "json") return to.json = true;
  return false;
}

}  // namespace

const char* usage() noexcept {
  return R"(bulkhead-bench --socket=PATH [options]
Drives a vhost-user-blk back-end, ours or another, as a guest's driver would, and measures it.

  --mode=randread|randwrite|seqread|seqwrite   default randread; writes destroy the disk's content
  --bs=BYTES            size of a request, 512 or a multiple; 4k and 1m are understood (4k)
  --qd=N                requests in flight in each queue (1)
  --queues=N            one client thread each (1)
  --queue-size=N        entries of each ring (256)
  --seconds=S           how long is measured (2), after --warmup=S (0.2)
  --client=intr|poll    sleep until interrupted, or look at the ring without pause (intr)
  --rate=N              N requests per second, --burst of them becoming due at once (qd / 4);
                        for CPU time per request at a given load
  --backend-pid=PID,... count the CPU time of these processes, their descendants and threads
  --count-syscalls      count their system calls too, by the tracepoint raw_syscalls:sys_enter; that
                        slows them down, so take the other numbers from a run without
  --cpu=N               run the client on this CPU only
  --hugetlb             guest memory in huge pages
  --indirect=on|off     use indirect descriptors where offered (on)
  --event-idx=on|off    likewise (on)
  --until-eof           instead of --seconds: print "ready", and go on until stdin ends
  --hold                start the queues, print "ready", and stay until stdin ends
  --json                print one JSON object
)";
}

std::optional<Options> parse(int argc, char** argv, std::string& problem) {
  Options options;
  for (int i = 1; i < argc; ++i) {
    const std::string_view argument(argv[i]);
    const std::size_t equals = argument.find('=');
    const std::string_view name = argument.substr(0, equals);
    const std::string_view value =
        equals == std::string_view::npos ? "" : argument.substr(equals + 1);
    if (!name.starts_with("--") || !option(name.substr(2), value, options)) {
      problem = "not understood: " + std::string(argument);
      return std::nullopt;
    }
  }
  if (options.socket.empty()) problem = "--socket=PATH is missing";
  if (options.depth > options.queue_size) problem = "--qd is more than --queue-size";
  if (options.burst == 0) options.burst = options.depth < 4 ? 1 : options.depth / 4;
  if (!problem.empty()) return std::nullopt;
  return options;
}

}  // namespace bench
