#include "tests/bench/back_end_usage.h"

#include <linux/perf_event.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>

namespace bench {
namespace {

// The tracepoint's number; 0 where tracefs is not mounted or not ours to read.
std::uint64_t sys_enter_id() {
  std::ifstream file("/sys/kernel/tracing/events/raw_syscalls/sys_enter/id");
  std::uint64_t id = 0;
  file >> id;
  return id;
}

std::vector<pid_t> threads_of(pid_t pid) {
  std::vector<pid_t> threads;
  std::error_code error;
  const std::string directory = "/proc/" + std::to_string(pid) + "/task";
  for (std::filesystem::directory_iterator entry(directory, error), end; !error && entry != end;
       entry.increment(error)) {
    threads.push_back(std::stoi(entry->path().filename().string()));
  }
  return threads;
}

}  // namespace

BackEndUsage::BackEndUsage(const std::vector<pid_t>& roots, bool count_system_calls) {
  for (const pid_t root : roots) {
    const std::vector<pid_t> tree = fakes::tree_of(root);
    pids_.insert(pids_.end(), tree.begin(), tree.end());
  }
  if (count_system_calls) open_counters();
}

void BackEndUsage::open_counters() {
  perf_event_attr attributes{};
  attributes.size = sizeof(attributes);
  attributes.type = PERF_TYPE_TRACEPOINT;
  attributes.config = sys_enter_id();
  attributes.inherit = 1;
  if (attributes.config == 0) return;
  for (const pid_t pid : pids_) {
    for (const pid_t thread : threads_of(pid)) {
      common::Fd counter(static_cast<int>(
          ::syscall(SYS_perf_event_open, &attributes, thread, -1, -1, PERF_FLAG_FD_CLOEXEC)));
      if (counter.valid()) counters_.push_back(std::move(counter));
    }
  }
}

std::uint64_t BackEndUsage::system_calls() const {
  std::uint64_t sum = 0;
  for (const common::Fd& counter : counters_) {
    std::uint64_t count = 0;
    if (::read(counter.ref().number, &count, sizeof(count)) == sizeof(count)) sum += count;
  }
  return sum;
}

void BackEndUsage::begin() {
  start_ = fakes::cpu_use_of(pids_);
  start_calls_ = system_calls();
}

Usage BackEndUsage::since_begin() const {
  const fakes::CpuUse now = fakes::cpu_use_of(pids_);
  Usage usage;
  usage.cpu_us = static_cast<double>(now.run_ns - start_.run_ns) / 1000.0;
  usage.switches = now.switches - start_.switches;
  if (!counters_.empty()) usage.system_calls = system_calls() - start_calls_;
  return usage;
}

}  // namespace bench
