// broker/audit/explain.h: an event in words.
#pragma once

#include <string>

#include "broker/audit/event.h"
#include "broker/audit/json_line.h"

namespace broker::audit {

// "event 7, 2026-01-31T09:00:00.000001Z, granted: the VMM with pid 812 (qemu), …". What is not
// known of the event is left out or a "?"; an event of another version is given with all that it
// says. Printable, whatever the line holds.
[[nodiscard]] std::string explain(const ParsedLine& line);

// The sentence alone, for the journal.
[[nodiscard]] std::string in_words(const Event& event);

}  // namespace broker::audit
