// policy/last_namespaces.h: no user namespace inside ours.
#pragma once

#include "common/result.h"

namespace policy {

// In a new user namespace a process has every capability again, over itself: that opens large parts
// of the kernel. seccomp stops the calls that make one; this stops them without seccomp, by the
// limit that a user namespace has for those within it (user_namespaces(7), proc(5)). To be called
// in a user namespace of its own, before its capabilities and /proc are given up.
[[nodiscard]] common::Result<void> forbid_user_namespaces() noexcept;

}  // namespace policy
