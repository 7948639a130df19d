// policy/capabilities.h: what root means, and how to stop meaning it.
//
// Two files: capability_drop.cpp is linked into jailed programs and speaks to the kernel directly;
// capabilities.cpp, the one file with libcap-ng, is the broker's. Statically linked, that library
// brings the C library's user database and dlopen() along (320 KB), which no worker should contain.
#pragma once

#include <cstdint>
#include <span>

#include "common/result.h"

namespace policy {

// Empties effective, permitted, inheritable, ambient and, where this process may (CAP_SETPCAP), the
// bounding set.
[[nodiscard]] common::Result<void> drop_all_capabilities() noexcept;

// True if all five of these sets are empty, as the kernel says.
[[nodiscard]] bool all_capabilities_gone() noexcept;

// Locks securebits so that uid 0 means nothing any more (needs CAP_SETPCAP: call before the drop).
[[nodiscard]] common::Result<void> lock_securebits() noexcept;

// Keeps only `kept` (CAP_* numbers) in the effective, permitted and bounding sets: the broker after
// start-up. What it did not have stays absent.
[[nodiscard]] common::Result<void> keep_capabilities(std::span<const unsigned> kept) noexcept;

// True if this process has the capability in its effective set.
[[nodiscard]] bool has_capability(unsigned capability) noexcept;

}  // namespace policy
