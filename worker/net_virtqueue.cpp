#include "worker/net_virtqueue.h"

#include <utility>

#include "common/virtqueue_wire.h"
#include "worker/probes.h"
#include "worker/tap_engine.h"

namespace worker {

using common::Counter;
using common::ipc::WorkerExit;
using common::ipc::WorkerFault;

namespace {

// Answers that a bell may wait for, at most. So many short packets take half a hundred
// microseconds, or a hundred; and somebody waits for what was received, while what was sent was
// only lent.
constexpr std::uint32_t kUncalledReceivedMax = 64;
constexpr std::uint32_t kUncalledSentMax = 128;

constexpr std::uint32_t uncalled_max(const NetQueueParts& parts) noexcept {
  using common::ipc::NetRole;
  const bool receives = parts.device.role == static_cast<std::uint32_t>(NetRole::kReceive);
  return receives ? kUncalledReceivedMax : kUncalledSentMax;
}

}  // namespace

template <typename Ring>
std::optional<Ring> NetVirtqueue<Ring>::make_ring(const NetQueueParts& parts) noexcept {
  auto ring = Ring::create(parts.memory, parts.ring, {}, parts.log);
  if (ring) return *std::move(ring);
  store_fault(*parts.status, ring.error());
  return std::nullopt;
}

template <typename Ring>
NetVirtqueue<Ring>::NetVirtqueue(const NetQueueParts& parts, Ring made_ring) noexcept
    : memory(parts.memory),
      status(*parts.status),
      ring(std::move(made_ring)),
      limiter(parts.rates, parts.device.tsc_per_us),
      reader_(make_reader(memory, ring, parts.ring.features, scratch_)),
      poller_(parts.device.poll_us, parts.device.tsc_per_us),
      linger_(parts.device.tsc_per_us),
      uncalled_max_(uncalled_max(parts)) {
  // Where another worker goes on, should this one die: behind what has been answered.
  status.next_avail.store(ring.base(), std::memory_order_relaxed);
}

template <typename Ring>
bool NetVirtqueue<Ring>::next(Chain& chain) noexcept {
  switch (ring.peek()) {
    case SplitRing::Peek::kEmpty:
      return false;
    case SplitRing::Peek::kFault:
      stop_for(ring.fault());
      return false;
    case SplitRing::Peek::kHead:
      break;
  }
  if (const auto read = reader_.read(ring.head(), chain); !read) [[unlikely]] {
    stop_for(read.error());
    return false;
  }
  ring.take();
  return true;
}

// A bell that wakes somebody costs us as much as ten packets. While there is more to do, it waits
// until more than half of what the guest offered is answered, so that the rest keeps us busy while
// the guest wakes up; and not for long, since somebody may wait for the first of these packets.
template <typename Ring>
bool NetVirtqueue<Ring>::bell_is_worth_it() noexcept {
  const std::uint32_t answered = ring.uncalled();
  return answered >= uncalled_max_ || answered * 8 >= (answered + ring.offered()) * 5;
}

template <typename Ring>
bool NetVirtqueue<Ring>::publish(std::uint32_t held, Bell bell) noexcept {
  // In this order: who sees the answers must not see an index that is behind them.
  status.next_avail.store(ring.base(held), std::memory_order_relaxed);
  if (ring.show_used() && Ring::kBaseFollowsShown) {
    status.next_avail.store(ring.base(held), std::memory_order_relaxed);
  }
  if (bell == Bell::kWhenWorthIt && !bell_is_worth_it()) return false;
  switch (ring.take_call()) {
    case SplitRing::Publish::kNothing:
      return false;
    case SplitRing::Publish::kQuiet:
      status.add(Counter::kCallsSuppressed, 1);
      return false;
    case SplitRing::Publish::kCall:
      break;
  }
  probes::notify();
  status.add(Counter::kCalls, 1);
  return true;
}

template <typename Ring>
void NetVirtqueue<Ring>::stop_for(const RingFault& fault) noexcept {
  store_fault(status, fault);
  exit = WorkerExit::kGuestFault;
  serving = false;
}

template <typename Ring>
void NetVirtqueue<Ring>::host_fault(WorkerFault code, std::uint64_t detail, int os_errno) noexcept {
  status.fault_os_errno.store(static_cast<std::uint32_t>(os_errno), std::memory_order_relaxed);
  stop_for({code, detail, 0});
  exit = WorkerExit::kHostFault;
}

template <typename Ring>
bool NetVirtqueue<Ring>::kick_may_come() noexcept {
  if (!ring.enable_kicks()) return true;
  ring.disable_kicks();
  return false;
}

template <typename Ring>
bool NetVirtqueue<Ring>::hear(const TapWakeup& wakeup, std::uint64_t system_calls_so_far) noexcept {
  status.add(Counter::kTurns, 1);
  if (wakeup.kicked) {
    probes::kick();
    status.add(Counter::kKicks, 1);
  }
  status.add(Counter::kSystemCalls,
             system_calls_so_far - std::exchange(system_calls_, system_calls_so_far));
  if (wakeup.stop) serving = false;
  if (!wakeup.host_fault) return true;
  if (status.fault.load(std::memory_order_relaxed) == 0) host_fault(WorkerFault::kEngine, 0, 0);
  exit = WorkerExit::kHostFault;
  serving = false;
  return false;
}

template <typename Ring>
void NetVirtqueue<Ring>::took_limited() noexcept {
  limiter.took();
  const RateLimiter::Throttled waited = limiter.take_throttled();
  if (waited.requests == 0) return;
  status.add(Counter::kThrottledRequests, waited.requests);
  status.add(Counter::kThrottledUs, waited.us);
}

// Kicks are not asked for: until the time comes, they tell us nothing.
template <typename Ring>
TapWakeup NetVirtqueue<Ring>::sleep_throttled(TapEngine& engine) noexcept {
  engine.sleep_at_most(limiter.sleep_us(read_ticks()));
  const TapWakeup wakeup = engine.wait(TapEngine::Until::kKick);
  engine.sleep_at_most(0);
  linger_.slept();
  return wakeup;
}

template <typename Ring>
WorkerExit NetVirtqueue<Ring>::end(std::uint32_t held) noexcept {
  ring.put_back(static_cast<std::uint16_t>(held));
  // A later worker looks before it sleeps; who else might serve this ring may not.
  if (exit == WorkerExit::kStopped) (void)ring.enable_kicks();
  return exit;
}

template class NetVirtqueue<SplitRing>;
template class NetVirtqueue<PackedRing>;

}  // namespace worker
