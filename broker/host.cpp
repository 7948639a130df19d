#include "broker/host.h"

#include <linux/capability.h>

#include "broker/text.h"
#include "policy/capabilities.h"
#include "policy/capability_aside.h"

namespace broker {
namespace {

std::string why_not(const policy::UringSupport& uring) {
  const std::string step = *uring.step == '\0' ? "io_uring" : uring.step;
  if (uring.os_errno == 0) return step + " is not enough here";
  return step + ": " + errno_text(uring.os_errno);
}

// As it is for a broker that serves: with kernel.io_uring_disabled=1 rings are made with
// CAP_SYS_ADMIN, which a broker only keeps where it must, or by members of kernel.io_uring_group.
policy::UringSupport probe_uring(bool admin) {
  if (admin) return policy::probe_uring();
  const policy::CapabilityAside aside(CAP_SYS_ADMIN);
  return policy::probe_uring();
}

}  // namespace

Host look_at_host() {
  Host host;
  host.namespaces = policy::probe_namespaces();
  host.uring = probe_uring(host.namespaces.admin_only);
  host.may_change_ids = policy::has_capability(CAP_SETUID) && policy::has_capability(CAP_SETGID);
  return host;
}

Answer<EngineDecision> choose_engine(EngineChoice asked, const policy::UringSupport& uring) {
  using common::EngineKind;
  if (asked == EngineChoice::kFallback) return EngineDecision{EngineKind::kFallback, "as asked"};
  if (uring.engine_possible) return EngineDecision{EngineKind::kIoUring, ""};
  if (asked == EngineChoice::kAuto) {
    return EngineDecision{EngineKind::kFallback, why_not(uring)};
  }
  return common::fail("engine io_uring cannot be had on this host (" + why_not(uring) +
                      "); use --engine=auto or --engine=fallback, or allow it (sysctl "
                      "kernel.io_uring_disabled, kernel.io_uring_group)");
}

const char* engine_name(common::EngineKind engine) noexcept {
  return engine == common::EngineKind::kIoUring ? "io_uring" : "fallback";
}

std::string engine_text(const EngineDecision& decision) {
  const std::string name = engine_name(decision.kind);
  return decision.why.empty() ? name : name + " (" + decision.why + ")";
}

}  // namespace broker
