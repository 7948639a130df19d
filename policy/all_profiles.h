// policy/all_profiles.h: every permission table there is, for whoever has to go through all of
// them.
#pragma once

#include "policy/profile.h"
#include "policy/session.h"
#include "policy/worker_blk.h"
#include "policy/worker_net.h"

namespace policy {

inline constexpr const Profile* kAllProfiles[] = {
    &kSession,
    &kWorkerBlkUring,
    &kWorkerBlkFallback,
    &kWorkerBlkFallbackDirect,
    &kWorkerNetReceiveUring,
    &kWorkerNetTransmitUring,
    &kWorkerNetReceiveFallback,
    &kWorkerNetTransmitFallback,
    &kWorkerNetControl,
};

}  // namespace policy
