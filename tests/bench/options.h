// tests/bench/options.h: the benchmark's command line.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace bench {

struct Options {
  std::string socket;
  bool write = false;
  bool sequential = false;
  std::uint32_t block_bytes = 4096;
  std::uint32_t depth = 1;  // Requests in flight in each queue.
  std::uint32_t queues = 1;
  std::uint32_t queue_size = 256;
  double seconds = 2;
  double warmup_seconds = 0.2;
  bool poll = false;            // The client looks at the ring instead of sleeping.
  std::uint64_t rate = 0;       // Requests per second over all queues; 0: as many as go.
  std::uint32_t burst = 0;      // With a rate: how many become due at once; 0: depth / 4.
  std::vector<pid_t> back_end;  // Whose CPU time is counted, with their descendants.
  int cpu = -1;
  bool huge_pages = false;
  bool indirect = true;  // Where offered.
  bool event_idx = true;
  bool count_system_calls = false;
  bool until_eof = false;  // Of stdin, not for so many seconds.
  bool hold = false;       // Connect, start the queues, and wait for the end of stdin.
  bool json = false;
};

[[nodiscard]] const char* usage() noexcept;
// Nothing where the line is wrong; `problem` says how.
[[nodiscard]] std::optional<Options> parse(int argc, char** argv, std::string& problem);

}  // namespace bench
