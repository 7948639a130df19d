// broker/least_privilege.h: what the broker itself gives up once everything is open.
#pragma once

#include <cstdint>
#include <vector>

#include "broker/config.h"
#include "broker/host.h"
#include "common/result.h"
#include "policy/profile.h"

namespace broker {

// The capabilities (CAP_*) that serving these devices needs, each for the reason given beside it in
// the .cpp.
[[nodiscard]] std::vector<unsigned> needed_capabilities(const BrokerConfig& config,
                                                        const Host& host);

// Which filter of policy/broker.h; null: none.
[[nodiscard]] const policy::Profile* own_list(const BrokerConfig& config, bool cgroups) noexcept;

// Keeps those, and takes on no_new_privs, not dumpable and that filter. Everything that is opened
// by path must be open; children are started as before.
[[nodiscard]] common::Result<void> give_up_privileges(const std::vector<unsigned>& kept,
                                                      const policy::Profile* own_list);

// As many descriptors, and as much locked memory for rings, as the host lets us have: each device
// and worker needs some.
void raise_limits() noexcept;

}  // namespace broker
