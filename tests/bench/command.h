// tests/bench/command.h: what the benchmark's programs have in common as commands.
#pragma once

#include <sys/types.h>

#include <charconv>
#include <string_view>
#include <system_error>
#include <vector>

namespace bench {

template <typename T>
[[nodiscard]] bool parse_number(std::string_view text, T& to) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), to);
  return error == std::errc() && end == text.data() + text.size();
}

// "17,4711".
[[nodiscard]] bool parse_pids(std::string_view text, std::vector<pid_t>& to);

// Exact timers, and this CPU only (-1: any). Throws fakes::Failure.
void settle(int cpu);

// --hold: says "ready" and waits for the end of standard input.
void hold();

}  // namespace bench
