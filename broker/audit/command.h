// broker/audit/command.h: `bulkhead audit`: looks at audit logs, of a broker that runs or not.
// Needs only to read them.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "broker/audit/json_line.h"

namespace broker::audit {

struct Command {
  enum class What : std::uint8_t { kVerify, kExplain };
  What what = What::kVerify;
  std::vector<std::string> files;    // "-": standard input. Empty: that.
  std::optional<Head> head;          // verify: must be in them.
  std::optional<std::uint64_t> seq;  // explain: this event only.
};

// The exit status: 0 where all is well, 1 where something is wrong or not found, 2 where a file
// cannot be read.
[[nodiscard]] int run_command(const Command& command);

// "17:<64 digits>", as the broker's log has it.
[[nodiscard]] std::optional<Head> parse_head(std::string_view text);

}  // namespace broker::audit
