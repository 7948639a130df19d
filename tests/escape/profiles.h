// tests/escape/profiles.h: every profile there is, for tests that hold for each of them.
#pragma once

#include "policy/all_profiles.h"
#include "policy/profile.h"

namespace escape {

inline constexpr auto& kProfiles = policy::kAllProfiles;

// Those of a network card's workers.
inline constexpr const policy::Profile* kNetProfiles[] = {
    &policy::kWorkerNetReceiveUring,    &policy::kWorkerNetTransmitUring,
    &policy::kWorkerNetReceiveFallback, &policy::kWorkerNetTransmitFallback,
    &policy::kWorkerNetControl,
};

}  // namespace escape
