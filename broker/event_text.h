// broker/event_text.h: the one place where codes of jailed processes become sentences. The codes
// are hostile: unknown ones are printed as numbers.
#pragma once

#include <array>
#include <cstdint>
#include <string>

#include "broker/log.h"
#include "common/ipc/session_event.h"
#include "common/ipc/worker_messages.h"

namespace broker {

struct EventText {
  Level level;
  std::string text;  // What was wrong and, where users make that mistake, how to put it right.
};

[[nodiscard]] EventText describe_event(common::ipc::EventCode code,
                                       const std::array<std::uint64_t, 3>& numbers);

// For QueueEnded: "the guest's ring is broken: avail index 40 is 33 ahead of ours, ring size 32".
[[nodiscard]] std::string describe_fault(common::ipc::WorkerFault fault,
                                         const std::array<std::uint64_t, 2>& detail, int os_errno);

// From waitid(): "killed by seccomp: a system call its list does not have", "killed by SIGBUS:
// guest memory went away", "exit code 3". `status` as in siginfo_t::si_status.
[[nodiscard]] std::string describe_death(int si_code, int status);

// vhost-user request ids to names ("SET_MEM_TABLE"), "request 99" where unknown.
[[nodiscard]] std::string request_name(std::uint64_t request);

}  // namespace broker
