// policy/empty_root.h: a root directory with nothing in it, and no way back to the old one.
#pragma once

#include "common/result.h"

namespace policy {

// In a mount namespace of its own, with CAP_SYS_ADMIN over it: an empty read-only tmpfs becomes
// root and working directory, and everything else that was mounted is gone from this namespace.
[[nodiscard]] common::Result<void> enter_empty_root() noexcept;

}  // namespace policy
