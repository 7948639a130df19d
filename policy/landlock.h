// policy/landlock.h: a ruleset that handles every right the kernel knows and grants none.
#pragma once

#include "common/layers.h"

namespace policy {

// The ABI that this project calls complete: file system, device ioctls, TCP, and the scopes of
// signals and abstract sockets. Older kernels are reported as degraded, with their ABI.
inline constexpr int kLandlockAbiComplete = 6;

// Needs no_new_privs. From now on this process opens no file, binds and connects no TCP port, and
// signals nobody. Open descriptors go on working.
[[nodiscard]] common::LayerResult deny_all_by_landlock() noexcept;

}  // namespace policy
