#include "tests/bench/command.h"

#include <sched.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <cstdio>

#include "tests/fakes/failure.h"

namespace bench {

bool parse_pids(std::string_view text, std::vector<pid_t>& to) {
  while (!text.empty()) {
    const std::size_t comma = text.find(',');
    pid_t pid = 0;
    if (!parse_number(text.substr(0, comma), pid)) return false;
    to.push_back(pid);
    text = comma == std::string_view::npos ? "" : text.substr(comma + 1);
  }
  return !to.empty();
}

void settle(int cpu) {
  ::prctl(PR_SET_TIMERSLACK, 1UL);
  if (cpu < 0) return;
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(static_cast<std::size_t>(cpu), &set);
  fakes::require_call(::sched_setaffinity(0, sizeof(set), &set) == 0, "--cpu");
}

void hold() {
  std::puts("ready");
  std::fflush(stdout);
  char ignored[64];
  while (::read(STDIN_FILENO, ignored, sizeof(ignored)) > 0) {
  }
}

}  // namespace bench
