// broker/control/run.h: what each operator's command does. Each returns the exit code: 0, or 1 with
// a line on stderr.
#pragma once

#include "broker/control/command.h"

namespace broker::control {

[[nodiscard]] int run_status(const RunOperator& run);
[[nodiscard]] int run_list(const RunOperator& run);
[[nodiscard]] int run_add(const RunOperator& run);
[[nodiscard]] int run_apply(const RunOperator& run);
[[nodiscard]] int run_check(const RunOperator& run);
[[nodiscard]] int run_stop(const RunOperator& run);
[[nodiscard]] int run_drain(const RunOperator& run);
[[nodiscard]] int run_start(const RunOperator& run);
[[nodiscard]] int run_remove(const RunOperator& run);
[[nodiscard]] int run_resize(const RunOperator& run);
[[nodiscard]] int run_limit(const RunOperator& run);
[[nodiscard]] int run_metrics(const RunOperator& run);
[[nodiscard]] int run_events(const RunOperator& run);
[[nodiscard]] int run_top(const RunOperator& run);
[[nodiscard]] int run_snippet(const RunOperator& run);
// `bulkhead posture` without --pid.
[[nodiscard]] int run_posture(const RunOperator& run);

// What several of them do.
[[nodiscard]] int complain(const std::string& text);
[[nodiscard]] int print(const std::string& text);

}  // namespace broker::control
