// The broker's half of policy/core_scheduling.h: no jailed process links it.
#include <pthread.h>
#include <sys/prctl.h>

#include "policy/core_scheduling.h"

namespace policy {
namespace {

constexpr unsigned long kOneThread = 0;  // PR_SCHED_CORE_SCOPE_THREAD

struct Errand {
  unsigned long from;
  unsigned long to;
};

// Until it is another program the child has our memory, which is not to be looked at by others
// (spawn.cpp: write_maps_dumpable).
void give(unsigned long to) noexcept {
  if (::prctl(static_cast<int>(kPrSchedCore), kCookieShareTo, to, kOneThread, 0UL) == 0) return;
  if (::prctl(PR_GET_DUMPABLE) == 1 || ::prctl(PR_SET_DUMPABLE, 1) != 0) return;
  (void)::prctl(static_cast<int>(kPrSchedCore), kCookieShareTo, to, kOneThread, 0UL);
  (void)::prctl(PR_SET_DUMPABLE, 0);
}

void* run(void* argument) noexcept {
  const auto& errand = *static_cast<const Errand*>(argument);
  if (::prctl(static_cast<int>(kPrSchedCore), kCookieShareFrom, errand.from, kOneThread, 0UL) == 0)
    give(errand.to);
  return nullptr;
}

}  // namespace

void carry_core_cookie(pid_t from, pid_t to) noexcept {
  Errand errand{static_cast<unsigned long>(from), static_cast<unsigned long>(to)};
  pthread_t courier{};
  if (::pthread_create(&courier, nullptr, run, &errand) == 0) ::pthread_join(courier, nullptr);
}

}  // namespace policy
