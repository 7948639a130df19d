#include "worker/blk_queue.h"

#include <algorithm>
#include <utility>

#include "common/virtqueue_wire.h"
#include "worker/blk_counters.h"
#include "worker/blk_request.h"
#include "worker/blk_transfer.h"
#include "worker/latency_tally.h"
#include "worker/linger.h"
#include "worker/poller.h"
#include "worker/probes.h"
#include "worker/request_ages.h"
#include "worker/ring_kind.h"

namespace worker {
namespace {

using common::Counter;
using common::blk::Status;
using common::ipc::WorkerExit;
using common::ipc::WorkerFault;

// How many chains one turn takes before it submits them and answers what has completed: few enough
// that the guest works on the first answers while we work on the next requests, many enough that
// the turn's system call does not count.
constexpr std::uint32_t kTurnRequestsMax = 10;
// The same for large requests, which keep us busy by themselves.
constexpr std::uint32_t kTurnBytesMax = 256 * 1024;

// To linger(), a large request counts as one more for each of these.
constexpr std::uint32_t kRequestBytes = 16 * 1024;

}  // namespace

// Whichever ring it serves.
struct BlkQueue::State {
  virtual ~State() = default;
  [[nodiscard]] virtual WorkerExit run() noexcept = 0;
};

template <typename Ring>
struct BlkQueue::Serving final : State {
  Serving(const BlkQueueParts& parts, Ring made_ring)
      : memory(parts.memory),
        engine(*parts.engine),
        status(*parts.status),
        ring(std::move(made_ring)),
        device(BlkDevice::from(parts.device, parts.ring)),
        reader(make_reader(memory, ring, parts.ring.features, scratch)),
        transfer(device, ring.size(), engine, status, ring.log()),
        poller(parts.device.poll_us, parts.device.tsc_per_us),
        ages(parts.device.tsc_per_us),
        tally(status, ages, parts.device.tsc_per_us),
        limiter(parts.rates, parts.device.tsc_per_us),
        lingerer(parts.device.tsc_per_us) {}

  // What accepting did to the ring.
  struct Accepted {
    bool any = false;           // Something was taken.
    std::uint32_t bytes = 0;    // To be read or written.
    std::uint32_t started = 0;  // Given to the engine.
    bool more = false;          // There is more that could be taken at once.
    std::uint64_t ticks = 0;    // When; 0: nothing was yet.
  };

  [[nodiscard]] WorkerExit run() noexcept override;
  [[nodiscard]] bool answer_completed() noexcept;
  // What was in flight before us is finished even where the broker says stop: a drained ring has
  // nothing in flight.
  [[nodiscard]] bool may_take() const noexcept {
    return taking || (ring.replaying() && exit == WorkerExit::kStopped);
  }
  [[nodiscard]] Accepted accept_available() noexcept;
  [[nodiscard]] Accepted accept_some() noexcept;
  [[nodiscard]] bool accept_one(Accepted& accepted) noexcept;
  [[nodiscard]] bool is_limited(const ParsedRequest& parsed) const noexcept;
  [[nodiscard]] bool may_go(const ParsedRequest& parsed) noexcept;
  void count_limited() noexcept;
  enum class Bell : std::uint8_t { kWhenWorthIt, kNow };
  void publish(Bell bell) noexcept;
  [[nodiscard]] bool bell_is_worth_it() const noexcept;
  [[nodiscard]] bool may_sleep(bool answered, const Accepted& accepted) noexcept;
  [[nodiscard]] bool linger() noexcept;
  [[nodiscard]] bool poll() noexcept;
  [[nodiscard]] bool take_turn(bool sleep) noexcept;
  void answer(std::uint16_t head, const iovec& status_byte, const iovec& in_first,
              std::uint32_t in_bytes, std::uint32_t in_done, Status result) noexcept;
  void answer_slot(std::uint32_t tag, std::uint64_t now) noexcept;
  void begin_stamp(Accepted& accepted) noexcept;
  void tell_what_is_left() noexcept;
  void stop_for(const RingFault& fault) noexcept;
  void ring_bell() noexcept;

  common::GuestMemory memory;
  Engine& engine;
  common::StatusPage& status;
  Ring ring;
  BlkDevice device;
  typename ReaderOf<Ring>::Type reader;
  BlkTransfer transfer;
  Poller poller;
  RequestAges ages;
  LatencyTally tally;
  RateLimiter limiter;
  Linger lingerer;

  bool taking = true;      // New chains; false once the broker or a fault says stop.
  bool blocked = false;    // The next chain waits for room that something under way will give back.
  bool throttled = false;  // The next chain waits until the operator's limits let it pass.
  bool quick = true;       // What we start tends to be complete when turn() comes back.
  bool quick_asked = false;  // The last turn was to find that out.
  WorkerExit exit = WorkerExit::kStopped;
  std::uint32_t sleeps = 0;
  std::uint64_t idle_since = 0;  // Ticks; when polling, since the last work.
  std::uint64_t system_calls = 0;

  // Large, and not to be touched before use, so at the end and without initialisers.
  RangeList ranges;
  SegmentScratch scratch;
};

BlkQueue::BlkQueue(std::unique_ptr<State> state) noexcept : state_(std::move(state)) {}
BlkQueue::~BlkQueue() = default;

template <typename Ring>
std::unique_ptr<BlkQueue::State> BlkQueue::make(const BlkQueueParts& parts) noexcept {
  auto ring = Ring::create(parts.memory, parts.ring, parts.inflight, parts.log);
  if (!ring) {
    store_fault(*parts.status, ring.error());
    return nullptr;
  }
  // From now on this is where a worker that dies had got to.
  parts.status->next_avail.store(ring->base(), std::memory_order_relaxed);
  return std::make_unique<Serving<Ring>>(parts, *std::move(ring));
}

std::unique_ptr<BlkQueue> BlkQueue::create(const BlkQueueParts& parts) noexcept {
  auto state = is_packed(parts.ring) ? make<PackedRing>(parts) : make<SplitRing>(parts);
  return state ? std::unique_ptr<BlkQueue>(new BlkQueue(std::move(state))) : nullptr;
}

WorkerExit BlkQueue::run() noexcept { return state_->run(); }

// One turn: answer what the disk finished, take what the guest offered, tell the guest once, and
// sleep where there is nothing else to do. The first turn looks at the ring without a kick: it may
// have come, and been consumed, before we were started.
template <typename Ring>
WorkerExit BlkQueue::Serving<Ring>::run() noexcept {
  switch (ring.begin()) {
    case SplitRing::Begin::kFault:
      store_fault(status, ring.fault());
      return WorkerExit::kGuestFault;
    case SplitRing::Begin::kUsed:
      ring_bell();
      break;
    case SplitRing::Begin::kFresh:
      break;
  }
  for (;;) {
    const bool answered = answer_completed();
    // Before the next requests are taken, so that the bell goes out ahead of them.
    publish(Bell::kWhenWorthIt);
    const Accepted accepted = may_take() ? accept_available() : Accepted{};
    publish(Bell::kWhenWorthIt);
    tell_what_is_left();
    if (!may_take() && transfer.in_flight() == 0) break;
    const bool sleep = may_sleep(answered, accepted);
    if (sleep) publish(Bell::kNow);
    if (!take_turn(sleep)) return WorkerExit::kHostFault;
  }
  publish(Bell::kNow);
  // A later worker looks before it sleeps; who else might serve this ring may not.
  if (exit == WorkerExit::kStopped) (void)ring.enable_kicks();
  const Wakeup last = engine.turn(false);  // The bell may still have to be rung.
  return last.host_fault ? WorkerExit::kHostFault : exit;
}

template <typename Ring>
bool BlkQueue::Serving<Ring>::answer_completed() noexcept {
  bool any = false;
  std::uint64_t now = 0;  // One look at the clock for all.
  Completion completion;
  while (engine.next_completion(completion)) {
    if (!any) now = read_ticks();
    any = true;
    if (transfer.complete(completion.tag, completion.result)) answer_slot(completion.tag, now);
  }
  tally.flush(now);
  if (quick_asked) quick = any;
  quick_asked = false;
  if (any) blocked = false;
  return any;
}

template <typename Ring>
void BlkQueue::Serving<Ring>::answer_slot(std::uint32_t tag, std::uint64_t now) noexcept {
  const Request& done = transfer.request(tag);
  tally.answered(done.taken, now);
  probes::complete(tag, static_cast<std::uint32_t>(done.work),
                   static_cast<std::uint32_t>(done.status));
  answer(done.head, done.status_byte, done.in_first, done.in_bytes, done.in_done, done.status);
  transfer.release(tag);
}

template <typename Ring>
void BlkQueue::Serving<Ring>::answer(std::uint16_t head, const iovec& status_byte,
                                     const iovec& in_first, std::uint32_t in_bytes,
                                     std::uint32_t in_done, Status result) noexcept {
  if (result == Status::kIoError) status.add(Counter::kStatusIoError, 1);
  if (result == Status::kUnsupported) status.add(Counter::kStatusUnsupported, 1);
  ring.add_used(head, write_answer(status_byte, in_first, in_bytes, in_done, result));
  if (ring.log().on()) [[unlikely]] {
    ring.log().mark(status_byte);
    if (in_bytes > 0) ring.log().mark(in_first);
  }
}

template <typename Ring>
typename BlkQueue::Serving<Ring>::Accepted BlkQueue::Serving<Ring>::accept_available() noexcept {
  Accepted accepted = accept_some();
  ages.taken(accepted.started);
  tally.flush(accepted.ticks);
  return accepted;
}

template <typename Ring>
typename BlkQueue::Serving<Ring>::Accepted BlkQueue::Serving<Ring>::accept_some() noexcept {
  Accepted accepted;
  if (std::exchange(throttled, false) && !limiter.limits()) [[unlikely]] {
    limiter.lifted(read_ticks());
    count_limited();
  }
  for (std::uint32_t i = 0; i < kTurnRequestsMax && accepted.bytes < kTurnBytesMax; ++i) {
    if (!may_take() || !accept_one(accepted)) return accepted;
    accepted.any = true;
  }
  accepted.more = true;
  return accepted;
}

// False when nothing more can be taken now: the ring is empty or broken, or there is no room. In
// the last case the chain stays in the ring, to be read anew; what was read of it is forgotten.
template <typename Ring>
bool BlkQueue::Serving<Ring>::accept_one(Accepted& accepted) noexcept {
  const SplitRing::Peek peeked = ring.peek();
  if (peeked == SplitRing::Peek::kFault) stop_for(ring.fault());
  if (peeked != SplitRing::Peek::kHead) return false;
  blocked = blocked || !transfer.any_free();
  if (blocked) return false;

  Chain chain;
  if (const auto read = reader.read(ring.head(), chain); !read) [[unlikely]] {
    stop_for(read.error());
    return false;
  }
  ParsedRequest parsed;
  if (const auto done = parse_request(chain, device, parsed, ranges); !done) [[unlikely]] {
    stop_for(done.error());
    return false;
  }
  const bool answer_only = parsed.work == ParsedRequest::Work::kAnswer;
  bool limited = false;
  if (limiter.limits()) [[unlikely]] {
    limited = is_limited(parsed);
    throttled = limited && !may_go(parsed);
    if (throttled) return false;
  }
  if (accepted.ticks == 0) begin_stamp(accepted);
  std::uint32_t tag = 0;
  blocked = !answer_only && !transfer.accept(parsed, chain.head, ranges, tag);
  if (blocked) return false;
  // Before anything happens to the disk: from here on it is in flight, also for who comes after us.
  ring.take();
  if (limited) [[unlikely]]
    count_limited();
  if (answer_only) {
    if (ring.log().on()) ring.log().mark(chain.writable, parsed.in_done);
    answer(chain.head, parsed.status_byte, parsed.in_first, parsed.in_bytes, parsed.in_done,
           parsed.status);
  } else {
    ++accepted.started;
    probes::submit(tag, static_cast<std::uint32_t>(parsed.work), parsed.offset, parsed.bytes);
    if (transfer.begin(tag)) answer_slot(tag, accepted.ticks);
  }
  accepted.bytes += parsed.bytes;
  lingerer.worked(1 + parsed.bytes / kRequestBytes);
  status.add(counter_of(parsed.type), 1);
  return true;
}

// One look at the clock for all that one turn takes.
template <typename Ring>
void BlkQueue::Serving<Ring>::begin_stamp(Accepted& accepted) noexcept {
  accepted.ticks = read_ticks();
  transfer.stamp(tally.begin_turn(accepted.ticks));
  // Now and not with the answers: an engine may not come back before the disk has answered.
  if (transfer.in_flight() == 0) {
    status.oldest_ticks.store(accepted.ticks, std::memory_order_relaxed);
  }
}

// Not what never reaches the disk; nor what a worker before us has taken already, so that no drain
// has to wait.
template <typename Ring>
bool BlkQueue::Serving<Ring>::is_limited(const ParsedRequest& parsed) const noexcept {
  return parsed.work != ParsedRequest::Work::kAnswer && !ring.replaying();
}

// A flush, a discard and a write of zeroes count as one write each. Zeroes count with their bytes,
// too, where the kernel may have to write them: to a block device, and not into a file.
template <typename Ring>
bool BlkQueue::Serving<Ring>::may_go(const ParsedRequest& parsed) noexcept {
  using Work = ParsedRequest::Work;
  const auto way = parsed.work == Work::kRead ? RateLimiter::Way::kRead : RateLimiter::Way::kWrite;
  std::uint64_t bytes = parsed.bytes;
  if (parsed.work == Work::kWriteZeroes && device.block_device) {
    for (std::uint32_t i = 0; i < ranges.count; ++i) bytes += ranges.ranges[i].bytes;
  }
  return limiter.admit(way, bytes, read_ticks());
}

template <typename Ring>
void BlkQueue::Serving<Ring>::count_limited() noexcept {
  limiter.took();
  const RateLimiter::Throttled waited = limiter.take_throttled();
  if (waited.requests == 0) return;
  status.add(Counter::kThrottledRequests, waited.requests);
  status.add(Counter::kThrottledUs, waited.us);
}

// The guest broke the ring: it gets the answers to what was taken before, and no more is taken.
template <typename Ring>
void BlkQueue::Serving<Ring>::stop_for(const RingFault& fault) noexcept {
  store_fault(status, fault);
  exit = WorkerExit::kGuestFault;
  taking = false;
}

// A bell costs us some microseconds and the guest a wake-up of 20. Rung for the first answers of a
// batch it would have to be rung again for the rest; rung with the last, guest and worker would
// only take turns. So: when more than half of what is on its way is answered, and the rest keeps us
// busy until the guest has woken up. Before we sleep the guest is told in any case.
template <typename Ring>
bool BlkQueue::Serving<Ring>::bell_is_worth_it() const noexcept {
  const std::uint32_t answered = ring.uncalled();
  const std::uint32_t to_come = transfer.in_flight() + ring.waiting();
  return answered * 8 >= (answered + to_come) * 5;
}

template <typename Ring>
void BlkQueue::Serving<Ring>::publish(Bell bell) noexcept {
  // In this order: who sees the answers must not see an index that is behind them.
  status.next_avail.store(ring.base(), std::memory_order_relaxed);
  if (ring.show_used() && Ring::kBaseFollowsShown) {
    status.next_avail.store(ring.base(), std::memory_order_relaxed);
  }
  if (bell == Bell::kWhenWorthIt && !bell_is_worth_it()) return;
  switch (ring.take_call()) {
    case SplitRing::Publish::kNothing:
      return;
    case SplitRing::Publish::kQuiet:
      status.add(Counter::kCallsSuppressed, 1);
      return;
    case SplitRing::Publish::kCall:
      ring_bell();
      return;
  }
}

template <typename Ring>
void BlkQueue::Serving<Ring>::tell_what_is_left() noexcept {
  status.in_flight.store(transfer.in_flight(), std::memory_order_relaxed);
  status.oldest_ticks.store(ages.oldest(), std::memory_order_relaxed);
}

template <typename Ring>
void BlkQueue::Serving<Ring>::ring_bell() noexcept {
  engine.ring_call();
  probes::notify();
  status.add(Counter::kCalls, 1);
}

// Whether the coming turn may wait. Kicks are asked for only then, and the ring is looked at once
// more after that.
template <typename Ring>
bool BlkQueue::Serving<Ring>::may_sleep(bool answered, const Accepted& accepted) noexcept {
  if (accepted.more) return false;
  if (!taking) return true;
  // Until its time comes, no kick tells us anything.
  if (throttled) [[unlikely]]
    return true;
  const bool worked = answered || accepted.any;
  if (worked && poller.enabled()) {
    idle_since = read_ticks();  // Also while the window is shut: it must be able to open again.
    if (poller.window() != 0) return false;  // The bell and what was started go out first.
  }
  if (accepted.started != 0 && quick) {
    quick_asked = true;
    return false;
  }
  if (poller.window() != 0) {
    if (ring.uncalled() != 0) {  // Nobody is kept waiting while we only look.
      publish(Bell::kNow);
      return false;
    }
    if (poll()) return false;
  } else if (linger()) {
    return false;
  }
  // With no room for the next chain a kick would tell us nothing.
  if (!blocked && ring.enable_kicks()) {
    ring.disable_kicks();
    return false;
  }
  return true;
}

// After a burst that is answered already the guest is just waking up and will most likely offer the
// next one. True where there is something to do first, or something came. An idle guest, or one
// with few requests at a time, never gets here.
template <typename Ring>
bool BlkQueue::Serving<Ring>::linger() noexcept {
  if (!lingerer.due() || transfer.in_flight() != 0) return false;
  if (ring.uncalled() != 0) {
    publish(Bell::kNow);
    return true;
  }
  return lingerer.look([this] { return ring.has_new() || engine.ready(); });
}

// True if something came.
template <typename Ring>
bool BlkQueue::Serving<Ring>::poll() noexcept {
  const std::uint64_t window = poller.window();
  while (read_ticks() - idle_since < window) {
    if ((!blocked && ring.has_new()) || engine.ready()) {
      poller.hit();
      return true;
    }
    relax_cpu();
  }
  return false;
}

// False where the engine has failed.
template <typename Ring>
bool BlkQueue::Serving<Ring>::take_turn(bool sleep) noexcept {
  if (sleep) engine.sleep_at_most(throttled ? limiter.sleep_us(read_ticks()) : 0);
  const Wakeup wakeup = engine.turn(sleep);
  if (sleep) {
    lingerer.slept();
    ring.disable_kicks();
    if (idle_since != 0 && !throttled) poller.slept(read_ticks() - idle_since);
    // What sleeps does not learn whether it had to: ask now and then.
    if (++sleeps % 64 == 0) quick = true;
  }
  status.add(Counter::kTurns, 1);
  if (wakeup.kicked) {
    probes::kick();
    status.add(Counter::kKicks, 1);
  }
  const std::uint64_t calls = engine.system_calls();
  status.add(Counter::kSystemCalls, calls - std::exchange(system_calls, calls));

  if (wakeup.host_fault) {
    if (status.fault.load(std::memory_order_relaxed) == 0) {
      store_fault(status, {WorkerFault::kEngine, 0, 0});
    }
    return false;
  }
  if (wakeup.call_swapped) ring_bell();
  if (wakeup.stop) taking = false;
  return true;
}

}  // namespace worker
