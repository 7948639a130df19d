// tests/bench/net_bench_main.cpp: bulkhead-net-bench: a guest's network card under load, and what
// it saw; or the bare loop on the tap that no back-end can beat.

#include <cstdio>
#include <exception>
#include <memory>
#include <string>

#include "tests/bench/back_end_usage.h"
#include "tests/bench/command.h"
#include "tests/bench/net_card.h"
#include "tests/bench/net_options.h"
#include "tests/bench/queue_load.h"
#include "tests/bench/tap_side.h"
#include "tests/fakes/failure.h"

namespace bench {
namespace {

constexpr double kNsPerSecond = 1e9;

struct NetReport {
  NetResult load;
  Usage usage;
};

double since(std::uint64_t start) { return static_cast<double>(now_ns() - start) / kNsPerSecond; }

NetResult raw_write(const NetOptions& options) {
  const RawTap tap(options.tap);
  const auto frame = with_header(bench_packet(options.bytes, options.segments, true));
  NetResult result;
  const std::uint64_t start = now_ns();
  constexpr int kBetweenLooks = 256;
  while (result.seconds < options.seconds) {
    for (int i = 0; i < kBetweenLooks; ++i) result.packets += tap.write(frame) ? 1U : 0U;
    result.seconds = since(start);
  }
  return result;
}

NetResult raw_read(const NetOptions& options) {
  const RawTap tap(options.tap);
  TapFiller filler(options.tap, bench_packet(options.bytes, options.segments, false));
  std::vector<std::byte> buffer(1 << 17);
  NetResult result;
  for (const std::uint64_t begin = now_ns(); since(begin) < options.seconds;) {
    filler.fill(options.segments ? 1500 : options.fill);
    const std::uint64_t start = now_ns();
    while (tap.read(buffer) != 0) ++result.packets;
    result.seconds += since(start);
  }
  return result;
}

NetResult put_load_on(NetCard& card, NetMode mode) {
  switch (mode) {
    case NetMode::kReceive:
      return card.receive();
    case NetMode::kEcho:
      return card.echo();
    default:
      return card.transmit();
  }
}

// A receive run is one filled queue; more of them make up the time that was asked for.
void add(NetResult& sum, const NetResult& more) {
  sum.packets += more.packets;
  sum.seconds += more.seconds;
  sum.kicks += more.kicks;
  sum.interrupts += more.interrupts;
  sum.lost += more.lost;
  sum.latency_ns.merge(more.latency_ns);
}

NetReport run_card(const NetOptions& options) {
  NetReport report;
  const std::uint64_t begin = now_ns();
  do {
    NetCard card(options);
    BackEndUsage usage(options.back_end, options.count_system_calls);
    usage.begin();
    add(report.load, put_load_on(card, options.mode));
    const Usage more = usage.since_begin();
    report.usage.cpu_us += more.cpu_us;
    report.usage.switches += more.switches;
    if (more.system_calls) {
      report.usage.system_calls = report.usage.system_calls.value_or(0) + *more.system_calls;
    }
  } while (options.mode == NetMode::kReceive && since(begin) < options.seconds);
  return report;
}

NetReport measure(const NetOptions& options) {
  if (options.mode == NetMode::kRawWrite) return {raw_write(options), {}};
  if (options.mode == NetMode::kRawRead) return {raw_read(options), {}};
  return run_card(options);
}

void print(const NetOptions& options, const NetReport& report) {
  const NetResult& load = report.load;
  const double packets = load.packets == 0 ? 1 : static_cast<double>(load.packets);
  const double rate = static_cast<double>(load.packets) / load.seconds;
  const double gbits = rate * options.bytes * 8 / 1e9;
  const auto quantile_us = [&](double share) {
    return static_cast<double>(load.latency_ns.quantile(share)) / 1000.0;
  };
  std::string calls = options.json ? "null" : "not counted";
  if (report.usage.system_calls) {
    calls = std::to_string(static_cast<double>(*report.usage.system_calls) / packets);
  }
  const char* const format =
      options.json ? "{\"pps\": %.0f, \"gbit_s\": %.2f, \"p50_us\": %.2f, \"p99_us\": %.2f, "
                     "\"cpu_us\": %.4f, \"switches\": %.4f, \"syscalls\": %s, \"kicks\": %.4f, "
                     "\"interrupts\": %.4f, \"packets\": %llu, \"lost\": %llu}\n"
                   : "packets per second       %.0f\nGbit/s                   %.2f\n"
                     "latency p50              %.2f us\nlatency p99              %.2f us\n"
                     "back-end CPU             %.3f us per packet\n"
                     "back-end sleeps          %.4f per packet\n"
                     "back-end system calls    %s per packet\n"
                     "kicks                    %.4f per packet\n"
                     "interrupts               %.4f per packet\n"
                     "packets                  %llu\nlost                     %llu\n";
  std::printf(
      format, rate, gbits, quantile_us(0.5), quantile_us(0.99), report.usage.cpu_us / packets,
      static_cast<double>(report.usage.switches) / packets, calls.c_str(),
      static_cast<double>(load.kicks) / packets, static_cast<double>(load.interrupts) / packets,
      static_cast<unsigned long long>(load.packets), static_cast<unsigned long long>(load.lost));
}

int run(const NetOptions& options) {
  try {
    settle(options.cpu);
    if (options.hold) {
      const NetCard card(options);
      hold();
    } else {
      print(options, measure(options));
    }
    return 0;
  } catch (const std::exception& problem) {
    std::fprintf(stderr, "bulkhead-net-bench: %s\n", problem.what());
    return 1;
  }
}

}  // namespace
}  // namespace bench

int main(int argc, char** argv) {
  std::string problem;
  if (argc == 2 && std::string(argv[1]) == "--help") {
    std::fputs(bench::net_usage(), stdout);
    return 0;
  }
  const std::optional<bench::NetOptions> options = bench::parse_net(argc, argv, problem);
  if (!options) {
    std::fprintf(stderr, "bulkhead-net-bench: %s\n\n%s", problem.c_str(), bench::net_usage());
    return 2;
  }
  return bench::run(*options);
}
