// broker/posture_probe.h: what jails a process of ours can have on this host, found out with the
// real programs: each takes on its whole jail, exits, and leaves on its status page what became of
// it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "broker/config.h"
#include "broker/jailer.h"
#include "common/device_kind.h"
#include "common/layers.h"
#include "policy/profile.h"

namespace broker {

// For each layer the weaker of session and worker. Fails where one of them cannot be jailed at all.
[[nodiscard]] Answer<common::LayerResults> probe_posture(Jailer& jailer, std::uint32_t uid,
                                                         common::DeviceKind kind,
                                                         const policy::Profile& worker);

// For each layer the weaker of the two.
[[nodiscard]] common::LayerResults weaker_posture(const common::LayerResults& left,
                                                  const common::LayerResults& right);

// "posture: 16 of 18 layers enforced; degraded: own uid; absent: mseal (Function not implemented)".
[[nodiscard]] std::string posture_summary(const common::LayerResults& results);
// Without a layer of which nobody can say yet whether it will hold.
[[nodiscard]] std::string posture_summary_without(common::Layer unknown,
                                                  common::LayerResults results);

// What strict asks for and is not there: "landlock is absent (Operation not supported)".
[[nodiscard]] std::vector<std::string> missing_for_strict(const common::LayerResults& results);

}  // namespace broker
