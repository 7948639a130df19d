// tests/bench/back_end_usage.h: what the back-end's processes cost, as the kernel counts it.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <vector>

#include "common/fd.h"
#include "tests/fakes/process.h"

namespace bench {

struct Usage {
  double cpu_us = 0;
  std::uint64_t switches = 0;
  std::optional<std::uint64_t> system_calls;
};

class BackEndUsage {
 public:
  // Of `roots` and all their descendants as they are now: start it once the queues work.
  BackEndUsage(const std::vector<pid_t>& roots, bool count_system_calls);

  void begin();
  [[nodiscard]] Usage since_begin() const;

 private:
  void open_counters();
  [[nodiscard]] std::uint64_t system_calls() const;

  std::vector<pid_t> pids_;
  std::vector<common::Fd> counters_;
  fakes::CpuUse start_;
  std::uint64_t start_calls_ = 0;
};

}  // namespace bench
