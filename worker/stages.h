// worker/stages.h: the first stage of every worker's life and its last before it serves, with the
// ways out. A worker's main says what lies between them.
#pragma once

#include <span>
#include <type_traits>
#include <utility>

#include "common/fd.h"
#include "common/ipc/jail_order.h"
#include "common/status_page.h"
#include "policy/jail.h"
#include "worker/leave.h"
#include "worker/start.h"

namespace worker {

struct Entered {
  common::StatusPage& page;  // Unmapped never: whatever ends this process wants to say why.
  common::FdRef control;
  common::ipc::JailOrder order;
};

// Reads the jail order and takes on the jail. Does not return where that fails, nor from the
// broker's probe of what this host allows.
[[nodiscard]] Entered enter_stage() noexcept;

// The session is told that we serve, then descriptors and system calls are given up. Only those in
// `keep` (ascending) are left. Does not return where that fails.
void seal_stage(const Entered& entered, const Guest& guest, const policy::JailLimits& limits,
                std::span<const int> keep) noexcept;

[[noreturn]] void fail(const StartFailure& failure, common::StatusPage& page) noexcept;

// What a step of setting up made, or the end.
template <typename T>
T expect(Started<T> started, common::StatusPage& page) noexcept {
  if (!started) fail(started.error(), page);
  if constexpr (!std::is_void_v<T>) return *std::move(started);
}

}  // namespace worker
