#include "policy/core_scheduling.h"

#include <sys/prctl.h>

#include <cerrno>

namespace policy {
namespace {

constexpr unsigned long kOneThread = 0;     // PR_SCHED_CORE_SCOPE_THREAD
constexpr unsigned long kWholeProcess = 1;  // PR_SCHED_CORE_SCOPE_THREAD_GROUP
constexpr unsigned long kSelf = 0;

}  // namespace

common::Result<void> make_core_cookie() noexcept {
  if (::prctl(static_cast<int>(kPrSchedCore), kCookieCreate, kSelf, kWholeProcess, 0UL) == 0)
    return {};
  return common::fail_errno("make a core-scheduling cookie", errno);
}

common::Result<CoreCookie> core_cookie_of(pid_t thread) noexcept {
  alignas(8) CoreCookie cookie = 0;
  if (::prctl(static_cast<int>(kPrSchedCore), kCookieGet, static_cast<unsigned long>(thread),
              kOneThread, &cookie) == 0) {
    return cookie;
  }
  return common::fail_errno("read a core-scheduling cookie", errno);
}

}  // namespace policy
