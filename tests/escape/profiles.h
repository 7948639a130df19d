// tests/escape/profiles.h: every profile there is, for tests that hold for each of them.
#pragma once

#include "policy/profile.h"
#include "policy/session.h"
#include "policy/worker_blk.h"
#include "policy/worker_net.h"

namespace escape {

inline constexpr const policy::Profile* kProfiles[] = {
    &policy::kSession,
    &policy::kWorkerBlkUring,
    &policy::kWorkerBlkFallback,
    &policy::kWorkerBlkFallbackDirect,
    &policy::kWorkerNetReceiveUring,
    &policy::kWorkerNetTransmitUring,
    &policy::kWorkerNetReceiveFallback,
    &policy::kWorkerNetTransmitFallback,
    &policy::kWorkerNetControl,
};

// Those of a network card's workers.
inline constexpr const policy::Profile* kNetProfiles[] = {
    &policy::kWorkerNetReceiveUring,    &policy::kWorkerNetTransmitUring,
    &policy::kWorkerNetReceiveFallback, &policy::kWorkerNetTransmitFallback,
    &policy::kWorkerNetControl,
};

}  // namespace escape
