// policy/all_profiles.h: every permission table there is, for whoever has to go through all of
// them.
#pragma once

#include "policy/broker.h"
#include "policy/exporter.h"
#include "policy/keeper.h"
#include "policy/profile.h"
#include "policy/session.h"
#include "policy/worker_blk.h"
#include "policy/worker_net.h"

namespace policy {

// Those of processes that seal themselves.
inline constexpr const Profile* kAllProfiles[] = {
    &kSession,
    &kKeeper,
    &kWorkerBlkUring,
    &kWorkerBlkFallback,
    &kWorkerBlkFallbackDirect,
    &kWorkerNetReceiveUring,
    &kWorkerNetTransmitUring,
    &kWorkerNetReceiveFallback,
    &kWorkerNetTransmitFallback,
    &kWorkerNetControl,
    &kExporter,
};
inline constexpr const Profile* kBrokerProfile[] = {&kBroker, &kBrokerAddingPart,
                                                    &kBrokerCgroupPart};

}  // namespace policy
