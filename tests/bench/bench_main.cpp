// tests/bench/bench_main.cpp: bulkhead-bench: connects as a VMM, loads the queues, prints what it
// saw.

#include <cstdio>
#include <cstring>
#include <exception>
#include <memory>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "common/addresses.h"
#include "common/virtio_blk_wire.h"
#include "tests/bench/back_end_usage.h"
#include "tests/bench/command.h"
#include "tests/bench/options.h"
#include "tests/bench/queue_load.h"
#include "tests/fakes/failure.h"
#include "tests/fakes/vhost_frontend.h"
#include "tests/fakes/vm_memory.h"

namespace bench {
namespace {

namespace blk = common::blk;
using fakes::VhostRequest;

constexpr std::uint64_t kGuestStart = 0x100000;
constexpr std::uint64_t kHugePage = 2 << 20;
constexpr double kNsPerSecond = 1e9;

struct Report {
  LoadResult load;
  Usage usage;
  double seconds = 0;
};

// One VMM with `options.queues` queues, started.
class Machine {
 public:
  explicit Machine(const Options& options) : options_(options), vhost_(options.socket) {
    negotiate();
    make_queues();
    start();
  }

  [[nodiscard]] Report run();

 private:
  void negotiate();
  void make_queues();
  void start();
  [[nodiscard]] std::uint64_t capacity_sectors();

  const Options& options_;
  fakes::VhostFrontend vhost_;
  fakes::VmMemory memory_;
  std::uint64_t features_ = 0;
  std::vector<std::unique_ptr<QueueLoad>> queues_;
};

void Machine::negotiate() {
  const std::uint64_t offered = vhost_.get_features();
  std::uint64_t wanted = common::kFeatureVersion1 | fakes::kVhostFeatureProtocol | blk::kFeatureMq |
                         blk::kFeatureFlush | blk::kFeatureSegMax | blk::kFeatureBlkSize;
  if (options_.event_idx) wanted |= common::kFeatureEventIdx;
  if (options_.indirect) wanted |= common::kFeatureIndirectDesc;
  features_ = offered & wanted;
  const std::uint64_t protocol =
      vhost_.get_protocol_features() &
      (fakes::kProtocolMq | fakes::kProtocolReplyAck | fakes::kProtocolConfig);
  vhost_.set_protocol_features(protocol);
  vhost_.ask_for_acks((protocol & fakes::kProtocolReplyAck) != 0);
  fakes::require(options_.queues == 1 || vhost_.get_queue_num() >= options_.queues,
                 "the back-end has fewer queues");
  vhost_.set_owner();
  vhost_.set_features(features_);
}

std::uint64_t Machine::capacity_sectors() {
  const std::vector<std::byte> bytes = vhost_.get_config(0, sizeof(blk::WireConfig));
  blk::WireConfig config;
  std::memcpy(&config, bytes.data(), sizeof(config));
  return config.capacity_sectors_low.get() | std::uint64_t{config.capacity_sectors_high.get()}
                                                 << 32;
}

void Machine::make_queues() {
  const std::uint64_t blocks =
      capacity_sectors() / (options_.block_bytes / common::kSectorBytes) / options_.queues;
  fakes::require(blocks > 0, "the disk is too small");
  LoadPlan plan;
  plan.write = options_.write;
  plan.sequential = options_.sequential;
  plan.poll = options_.poll;
  plan.indirect = (features_ & common::kFeatureIndirectDesc) != 0;
  plan.event_idx = (features_ & common::kFeatureEventIdx) != 0;
  plan.block_bytes = options_.block_bytes;
  plan.depth = static_cast<std::uint16_t>(options_.depth);
  plan.queue_size = static_cast<std::uint16_t>(options_.queue_size);
  plan.blocks = blocks;
  plan.rate = static_cast<double>(options_.rate) / options_.queues;
  plan.burst = options_.burst;

  const std::uint64_t each = QueueLoad::bytes_needed(plan);
  std::uint64_t bytes = each * options_.queues;
  if (options_.huge_pages) bytes = (bytes + kHugePage - 1) / kHugePage * kHugePage;
  memory_.add({.guest_addr = kGuestStart,
               .bytes = bytes,
               .huge_pages = options_.huge_pages,
               .name = "bulkhead-bench-ram"});
  for (std::uint32_t i = 0; i < options_.queues; ++i) {
    plan.first_block = i * blocks;
    plan.seed = i + 1;
    queues_.push_back(std::make_unique<QueueLoad>(plan, memory_, kGuestStart + i * each));
  }
}

void Machine::start() {
  vhost_.set_mem_table(memory_);
  for (std::uint32_t i = 0; i < options_.queues; ++i) {
    const QueueLoad& queue = *queues_[i];
    vhost_.set_vring_num(i, queue.place().size);
    vhost_.set_vring_base(i, 0);
    vhost_.set_vring_addr(queue.place().vring_addr(i, memory_));
    vhost_.set_vring_fd(VhostRequest::kSetVringKick, i, queue.kick_fd());
    vhost_.set_vring_fd(VhostRequest::kSetVringCall, i, queue.call_fd());
    vhost_.set_vring_enable(i, true);
  }
}

Report Machine::run() {
  BackEndUsage usage(options_.back_end, options_.count_system_calls);
  const std::uint64_t start = now_ns();
  Window window;
  window.begin = start + static_cast<std::uint64_t>(options_.warmup_seconds * kNsPerSecond);
  window.end = window.begin + static_cast<std::uint64_t>(options_.seconds * kNsPerSecond);

  std::vector<LoadResult> results(queues_.size());
  std::vector<std::string> problems(queues_.size());
  std::vector<std::thread> threads;
  for (std::size_t i = 0; i < queues_.size(); ++i) {
    threads.emplace_back([&, i] {
      try {
        results[i] = queues_[i]->run(window);
      } catch (const std::exception& problem) {
        problems[i] = problem.what();
      }
    });
  }
  const auto sleep_to = [](std::uint64_t when) {
    const std::uint64_t now = now_ns();
    if (when > now) std::this_thread::sleep_for(std::chrono::nanoseconds(when - now));
  };
  Report report;
  sleep_to(window.begin);
  usage.begin();
  if (options_.until_eof) {
    hold();
    for (const auto& queue : queues_) queue->stop();
  } else {
    sleep_to(window.end);
  }
  const std::uint64_t end = now_ns();
  report.usage = usage.since_begin();
  for (std::thread& thread : threads) thread.join();
  for (std::size_t i = 0; i < results.size(); ++i) {
    fakes::require(problems[i].empty(), problems[i]);
    report.load.requests += results[i].requests;
    report.load.failed += results[i].failed;
    report.load.kicks += results[i].kicks;
    report.load.interrupts += results[i].interrupts;
    report.load.wakeups += results[i].wakeups;
    report.load.latency_ns.merge(results[i].latency_ns);
  }
  report.seconds = options_.until_eof
                       ? static_cast<double>(end - window.begin) / static_cast<double>(kNsPerSecond)
                       : options_.seconds;
  return report;
}

void print(const Options& options, const Report& report) {
  const LoadResult& load = report.load;
  const double requests = load.requests == 0 ? 1 : static_cast<double>(load.requests);
  const double iops = static_cast<double>(load.requests) / report.seconds;
  const double mib = iops * options.block_bytes / (1 << 20);
  const auto quantile_us = [&](double share) {
    return static_cast<double>(load.latency_ns.quantile(share)) / 1000.0;
  };
  const auto per_request = [&](std::uint64_t count) {
    return static_cast<double>(count) / requests;
  };
  std::string calls = options.json ? "null" : "not counted";
  if (report.usage.system_calls) calls = std::to_string(per_request(*report.usage.system_calls));
  const char* const format =
      options.json
          ? "{\"iops\": %.0f, \"mib_s\": %.1f, \"p50_us\": %.2f, \"p99_us\": %.2f, "
            "\"p999_us\": %.2f, \"cpu_us\": %.4f, \"switches\": %.4f, \"syscalls\": %s, "
            "\"kicks\": %.4f, \"interrupts\": %.4f, \"requests\": %llu, \"failed\": %llu}\n"
          : "IOPS                     %.0f\nMiB/s                    %.1f\n"
            "latency p50              %.2f us\nlatency p99              %.2f us\n"
            "latency p99.9            %.2f us\n"
            "back-end CPU             %.3f us per request\n"
            "back-end sleeps          %.4f per request\n"
            "back-end system calls    %s per request\n"
            "kicks                    %.4f per request\n"
            "interrupts               %.4f per request\n"
            "requests                 %llu\nfailed                   %llu\n";
  std::printf(format, iops, mib, quantile_us(0.5), quantile_us(0.99), quantile_us(0.999),
              report.usage.cpu_us / requests, per_request(report.usage.switches), calls.c_str(),
              per_request(load.kicks), per_request(load.interrupts),
              static_cast<unsigned long long>(load.requests),
              static_cast<unsigned long long>(load.failed));
}

int run(const Options& options) {
  try {
    settle(options.cpu);
    Machine machine(options);
    if (options.hold) {
      hold();
      return 0;
    }
    const Report report = machine.run();
    print(options, report);
    return report.load.failed == 0 ? 0 : 1;
  } catch (const std::exception& problem) {
    std::fprintf(stderr, "bulkhead-bench: %s\n", problem.what());
    return 1;
  }
}

}  // namespace
}  // namespace bench

int main(int argc, char** argv) {
  if (argc == 2 && std::string_view(argv[1]) == "--help") {
    return std::fputs(bench::usage(), stdout) < 0 ? 1 : 0;
  }
  std::string problem;
  const std::optional<bench::Options> options = bench::parse(argc, argv, problem);
  if (!options) {
    std::fprintf(stderr, "bulkhead-bench: %s\n\n%s", problem.c_str(), bench::usage());
    return 2;
  }
  return bench::run(*options);
}
