#include "policy/capabilities.h"

#include <cap-ng.h>
#include <linux/capability.h>

#include <cerrno>

namespace policy {

using common::fail_errno;
using common::Result;

Result<void> keep_capabilities(std::span<const unsigned> kept) noexcept {
  if (::capng_get_caps_process() != 0) return fail_errno("read own capabilities", errno);
  std::uint64_t staying = 0;
  for (const unsigned each : kept) {
    if (each > CAP_LAST_CAP) return fail_errno("keep a capability: no such number", EINVAL);
    if (::capng_have_capability(CAPNG_PERMITTED, each) == 1) staying |= std::uint64_t{1} << each;
  }

  ::capng_clear(CAPNG_SELECT_ALL);
  for (unsigned each = 0; each <= CAP_LAST_CAP; ++each) {
    if (((staying >> each) & 1U) == 0) continue;
    constexpr auto kSets =
        static_cast<capng_type_t>(CAPNG_EFFECTIVE | CAPNG_PERMITTED | CAPNG_BOUNDING_SET);
    if (::capng_update(CAPNG_ADD, kSets, each) != 0) return fail_errno("keep a capability", EINVAL);
  }
  // Without CAP_SETPCAP the bounding set cannot shrink; it then bounds what we cannot gain anyway.
  const auto sets = has_capability(CAP_SETPCAP) ? CAPNG_SELECT_ALL : CAPNG_SELECT_CAPS;
  if (::capng_apply(sets) != 0) return fail_errno("drop capabilities", errno);
  return {};
}

}  // namespace policy
