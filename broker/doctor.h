// broker/doctor.h: `bulkhead doctor`: what log lines say about why a guest does not get its device,
// in plain words, and what to do. The lines come from the journal, the kernel's log, an audit log,
// the VMM's own messages; much of that is not ours, so nothing in it is believed beyond being
// shown.
#pragma once

#include <cstddef>
#include <istream>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "broker/config.h"

namespace broker {

struct Finding {
  std::string what;  // One sentence, without the full stop.
  std::string remedy;
  std::size_t lines = 1;  // How many said so.
  bool operator==(const Finding&) const = default;
};

// What one line tells; nothing for most.
[[nodiscard]] std::optional<Finding> explain_line(std::string_view line);

// Each once, in the order in which they first appear; at most kFindingsMax of them.
inline constexpr std::size_t kFindingsMax = 50;
[[nodiscard]] std::vector<Finding> explain_lines(std::istream& lines);

[[nodiscard]] std::string findings_text(const std::vector<Finding>& findings);

// Reads `path` ("-": stdin) and prints. The exit code: 0 with findings or without, 1 where the file
// cannot be read.
[[nodiscard]] int run_doctor(const std::string& path);

}  // namespace broker
