// broker/host.h: what this host lets the broker do for its processes, found out by trying.
#pragma once

#include <string>

#include "broker/config.h"
#include "common/device_kind.h"
#include "policy/restricted_ring.h"
#include "policy/spawn.h"

namespace broker {

struct Host {
  policy::NamespaceSupport namespaces;
  policy::UringSupport uring;
  bool may_change_ids = false;  // CAP_SETUID and CAP_SETGID: each device can have a uid of its own.
};

[[nodiscard]] Host look_at_host();

// Which engine a device's workers use. `why` is empty where nothing had to be given up for it.
struct EngineDecision {
  common::EngineKind kind = common::EngineKind::kFallback;
  std::string why;
};

// Fails only where io_uring was demanded and cannot be had.
[[nodiscard]] Answer<EngineDecision> choose_engine(EngineChoice asked,
                                                   const policy::UringSupport& uring);

[[nodiscard]] const char* engine_name(common::EngineKind engine) noexcept;
// With what had to be given up for it.
[[nodiscard]] std::string engine_text(const EngineDecision& decision);

}  // namespace broker
