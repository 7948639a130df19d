#include "broker/host.h"

#include <linux/capability.h>

#include "broker/text.h"
#include "policy/capabilities.h"

namespace broker {
namespace {

std::string why_not(const policy::UringSupport& uring) {
  const std::string step = *uring.step == '\0' ? "io_uring" : uring.step;
  if (uring.os_errno == 0) return step + " is not enough here";
  return step + ": " + errno_text(uring.os_errno);
}

}  // namespace

Host look_at_host() {
  return {policy::probe_namespaces(), policy::probe_uring(),
          policy::has_capability(CAP_SETUID) && policy::has_capability(CAP_SETGID)};
}

Answer<EngineDecision> choose_engine(EngineChoice asked, const policy::UringSupport& uring) {
  using common::EngineKind;
  if (asked == EngineChoice::kFallback) return EngineDecision{EngineKind::kFallback, "as asked"};
  if (uring.engine_possible) return EngineDecision{EngineKind::kIoUring, ""};
  if (asked == EngineChoice::kAuto) {
    return EngineDecision{EngineKind::kFallback, why_not(uring)};
  }
  return common::fail("engine io_uring cannot be had on this host (" + why_not(uring) +
                      "); use --engine=auto or --engine=fallback");
}

const char* engine_name(common::EngineKind engine) noexcept {
  return engine == common::EngineKind::kIoUring ? "io_uring" : "fallback";
}

}  // namespace broker
