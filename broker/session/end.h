// broker/session/end.h: why a session ends, as the one error type of this program.
#pragma once

#include <array>
#include <cstdint>

#include "common/ipc/session_event.h"
#include "common/result.h"

namespace session {

struct End {
  common::ipc::SessionExit exit = common::ipc::SessionExit::kHostFault;
  // What the operator reads; kNone where the exit code says it all.
  common::ipc::EventCode code = common::ipc::EventCode::kNone;
  std::array<std::uint64_t, 3> numbers{};
};

template <typename T>
using Outcome = common::Result<T, End>;

[[nodiscard]] constexpr std::unexpected<End> end_with(common::ipc::SessionExit exit) noexcept {
  return common::fail(End{exit});
}

// The front-end broke the protocol.
[[nodiscard]] constexpr std::unexpected<End> violation(common::ipc::EventCode code,
                                                       std::uint64_t first,
                                                       std::uint64_t second = 0,
                                                       std::uint64_t third = 0) noexcept {
  return common::fail(End{common::ipc::SessionExit::kViolation, code, {first, second, third}});
}

}  // namespace session
