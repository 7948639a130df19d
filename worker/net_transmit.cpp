#include "worker/net_transmit.h"

#include <array>
#include <cerrno>
#include <cstddef>
#include <cstring>
#include <span>
#include <utility>

#include "common/verify.h"
#include "policy/worker_limits.h"
#include "worker/net_header.h"
#include "worker/segments.h"
#include "worker/stopwatch.h"
#include "worker/tap_engine.h"

namespace worker {
namespace {

using common::Counter;
using common::GuestMemory;
using common::ipc::WorkerExit;
using common::ipc::WorkerFault;
using common::net::kHeaderBytes;
using common::net::WireHeader;

// A packet up to this long is copied behind its header: one segment costs the kernel less than two,
// and by more than this copy costs us.
constexpr std::uint32_t kCopiedBytesMax = 256;
// Segments of a whole batch. A chain that does not fit any more waits for the next one.
constexpr std::uint32_t kPoolSegments = 2 * policy::kSegmentsMax;

// One packet of the batch.
struct Slot {
  alignas(
      8) std::array<std::byte, kHeaderBytes + kCopiedBytesMax> bytes;  // Header, and if short all.
  std::uint32_t packet_bytes;
  std::uint16_t head;
  bool done;  // Sent, or dropped.
};

}  // namespace

// Whichever ring it serves.
struct NetTransmit::State {
  virtual ~State() = default;
  [[nodiscard]] virtual WorkerExit run() noexcept = 0;
};

template <typename Ring>
struct NetTransmit::Serving final : State {
  Serving(const NetQueueParts& parts, Ring made_ring)
      : queue(parts, std::move(made_ring)),
        engine(*parts.engine),
        rules(parts.ring.features, parts.device.mtu),
        header(header_bytes(parts.ring.features)),
        stopwatch(parts.device.tsc_per_us),
        flat(std::make_unique_for_overwrite<std::byte[]>(common::net::kFrameBytesMax)) {}

  [[nodiscard]] WorkerExit run() noexcept override;
  [[nodiscard]] bool gather() noexcept;
  [[nodiscard]] bool may_go(const Chain& chain) noexcept;
  [[nodiscard]] bool accept(Chain& chain) noexcept;
  [[nodiscard]] bool lay_out(Slot& slot, std::span<iovec> payload) noexcept;
  void drop(Slot& slot, Counter cause) noexcept;
  void send() noexcept;
  [[nodiscard]] bool send_pending() noexcept;
  void finish(Slot& slot, std::int32_t result) noexcept;
  void answer(Bell bell) noexcept;
  void sleep() noexcept;
  void hear(const TapWakeup& wakeup) noexcept;

  NetVirtqueue<Ring> queue;
  TapEngine& engine;
  HeaderRules rules;
  std::uint32_t header;
  Stopwatch stopwatch;
  double taken_ns = 0;  // When the batch was.

  std::uint32_t count = 0;     // Slots in use: chains taken and not answered,
  std::uint32_t answered = 0;  // but for so many at their front.
  std::uint32_t segments = 0;  // Of the pool.
  bool flat_used = false;
  bool throttled = false;  // The next one waits until the operator's limits let it pass.
  std::array<TapPacket, kTapBatchMax> packets;  // One for each slot; none where it is dropped.
  std::array<TapPacket, kTapBatchMax> pending;
  std::array<std::uint32_t, kTapBatchMax> pending_slot;

  // Large, and not to be touched before use.
  std::unique_ptr<std::byte[]> flat;  // For the one packet of a batch that has too many pieces.
  std::array<Slot, kTapBatchMax> slots;
  std::array<iovec, kPoolSegments> pool;
};

NetTransmit::NetTransmit(std::unique_ptr<State> state) noexcept : state_(std::move(state)) {}
NetTransmit::~NetTransmit() = default;

template <typename Ring>
std::unique_ptr<NetTransmit::State> NetTransmit::make(const NetQueueParts& parts) noexcept {
  auto ring = NetVirtqueue<Ring>::make_ring(parts);
  return ring ? std::make_unique<Serving<Ring>>(parts, *std::move(ring)) : nullptr;
}

std::unique_ptr<NetTransmit> NetTransmit::create(const NetQueueParts& parts) noexcept {
  auto state = is_packed(parts.ring) ? make<PackedRing>(parts) : make<SplitRing>(parts);
  return state ? std::unique_ptr<NetTransmit>(new NetTransmit(std::move(state))) : nullptr;
}

WorkerExit NetTransmit::run() noexcept { return state_->run(); }

// One turn: take what the guest offers, up to a batch, send it, answer it, ring once. The first
// turn looks at the ring without a kick: it may have come, and been consumed, before we started.
template <typename Ring>
WorkerExit NetTransmit::Serving<Ring>::run() noexcept {
  if (queue.begin()) engine.ring_call();
  while (queue.serving) {
    if (gather()) {
      send();
    } else if (queue.serving) {
      sleep();
    }
  }
  answer(Bell::kNow);
  const WorkerExit exit = queue.end(count - answered);
  // The bell may still have to be rung.
  return engine.transfer({}).host_fault ? WorkerExit::kHostFault : exit;
}

// True if there is something to send or to answer.
template <typename Ring>
bool NetTransmit::Serving<Ring>::gather() noexcept {
  count = answered = segments = 0;
  flat_used = false;
  if (std::exchange(throttled, false) && !queue.limiter.limits()) [[unlikely]] {
    queue.limiter.lifted(read_ticks());
    queue.took_limited();
  }
  Chain chain;
  while (count < kTapBatchMax && queue.next(chain)) {
    if (count == 0) taken_ns = stopwatch.nanoseconds(read_ticks());
    const bool limited = queue.limiter.limits();
    if (limited) [[unlikely]]
      throttled = !may_go(chain);
    if (throttled || !accept(chain)) {
      queue.ring.put_back(1);
      break;
    }
    if (limited) [[unlikely]]
      queue.took_limited();
  }
  return count != 0;
}

template <typename Ring>
bool NetTransmit::Serving<Ring>::may_go(const Chain& chain) noexcept {
  const std::uint32_t bytes = chain.readable_bytes > header ? chain.readable_bytes - header : 0;
  return queue.limiter.admit(RateLimiter::Way::kWrite, bytes, read_ticks());
}

// False where there is no room for it in this batch, or it ends the queue.
template <typename Ring>
bool NetTransmit::Serving<Ring>::accept(Chain& chain) noexcept {
  if (!chain.writable.empty()) {
    constexpr auto kRole = static_cast<std::uint64_t>(common::ipc::NetRole::kTransmit);
    queue.stop_for({WorkerFault::kWrongDirection, chain.head, kRole});
    return false;
  }
  Slot& slot = slots[count];
  slot.head = chain.head;
  slot.done = false;
  packets[count].count = 0;
  const std::uint32_t bytes = chain.readable_bytes;
  if (bytes < header || bytes - header > common::net::kFrameBytesMax - kHeaderBytes) {
    ++count;
    drop(slot, Counter::kDropBadLength);
    return true;
  }
  slot.packet_bytes = bytes - header;
  WireHeader copy{};
  if (header == kHeaderBytes) [[likely]] {
    (void)GuestMemory::gather_one(chain.readable, copy);
  } else {
    GuestMemory::gather(chain.readable, std::as_writable_bytes(std::span(&copy, 1)).first(header));
  }
  const HeaderVerdict verdict = rules.check(copy, slot.packet_bytes);
  if (verdict == HeaderVerdict::kGood) [[likely]] {
    std::memcpy(slot.bytes.data(), &copy, sizeof(copy));
    if (!lay_out(slot, skip_front(chain.readable, header))) return false;
    ++count;
    return true;
  }
  ++count;
  drop(slot,
       verdict == HeaderVerdict::kBadHeader ? Counter::kDropBadHeader : Counter::kDropBadLength);
  return true;
}

// Where the tap finds the packet: our header, and then the guest's pages. False: not in this batch.
template <typename Ring>
bool NetTransmit::Serving<Ring>::lay_out(Slot& slot, std::span<iovec> payload) noexcept {
  TapPacket& packet = packets[count];
  const bool copied = slot.packet_bytes <= kCopiedBytesMax;
  const bool flattened = !copied && payload.size() + 1 > policy::kSegmentsMax;
  const std::size_t needed = copied ? 1 : flattened ? 2 : payload.size() + 1;
  if (segments + needed > pool.size() || (flattened && flat_used)) return false;

  iovec* const first = &pool[segments];
  first[0] = {slot.bytes.data(), kHeaderBytes};
  if (copied) {
    GuestMemory::gather(payload, std::span(slot.bytes).subspan(kHeaderBytes, slot.packet_bytes));
    first[0].iov_len += slot.packet_bytes;
  } else if (flattened) {
    flat_used = true;
    GuestMemory::gather(payload, std::span(flat.get(), slot.packet_bytes));
    first[1] = {flat.get(), slot.packet_bytes};
  } else {
    std::copy(payload.begin(), payload.end(), first + 1);
  }
  packet = {first, static_cast<std::uint32_t>(needed), 0};
  segments += static_cast<std::uint32_t>(needed);
  return true;
}

template <typename Ring>
void NetTransmit::Serving<Ring>::drop(Slot& slot, Counter cause) noexcept {
  slot.done = true;
  queue.status.add(cause, 1);
}

// The batch is sent as a whole before the next is begun, so packets are answered in the order in
// which they were offered (IN_ORDER is true). A full tap parks us here.
template <typename Ring>
void NetTransmit::Serving<Ring>::send() noexcept {
  while (send_pending()) {
    answer(Bell::kNow);
    queue.status.add(Counter::kWaitsForTap, 1);
    hear(engine.wait(TapEngine::Until::kTap));
    if (!queue.serving) return;
  }
  answer(Bell::kWhenWorthIt);
  queue.worked(count);
}

// True if the tap is full and packets are left.
template <typename Ring>
bool NetTransmit::Serving<Ring>::send_pending() noexcept {
  std::uint32_t left = 0;
  for (std::uint32_t i = answered; i < count; ++i) {
    if (slots[i].done) continue;
    pending_slot[left] = i;
    pending[left++] = packets[i];
  }
  if (left == 0) return false;
  hear(engine.transfer(std::span(pending).first(left)));
  bool full = false;
  for (std::uint32_t i = 0; i < left; ++i) {
    const std::int32_t result = pending[i].result;
    if (result == -EAGAIN || result == -ECANCELED || result == -EINTR) {
      full = true;
    } else {
      finish(slots[pending_slot[i]], result);
    }
  }
  return full && queue.serving;
}

template <typename Ring>
void NetTransmit::Serving<Ring>::finish(Slot& slot, std::int32_t result) noexcept {
  constexpr auto kRole = static_cast<std::uint64_t>(common::ipc::NetRole::kTransmit);
  switch (result) {
    case -EBADFD:  // The interface is no more.
      return queue.host_fault(WorkerFault::kTapGone, kRole, EBADFD);
    case -EOPNOTSUPP:
      return queue.host_fault(WorkerFault::kEngine, 0, EOPNOTSUPP);
    case -EIO:
      return drop(slot, Counter::kDropTapDown);
    default:
      if (result < 0) return drop(slot, Counter::kDropTapRefused);
  }
  slot.done = true;
  queue.status.add(Counter::kSentPackets, 1);
  queue.status.add(Counter::kSentBytes, slot.packet_bytes);
}

template <typename Ring>
void NetTransmit::Serving<Ring>::answer(Bell bell) noexcept {
  const std::uint32_t before = answered;
  while (answered < count && slots[answered].done) queue.ring.add_used(slots[answered++].head, 0);
  if (answered != before) {
    constexpr auto kSent = static_cast<std::size_t>(common::LatencyKind::kPackets);
    const double took_ns = stopwatch.nanoseconds(read_ticks()) - taken_ns;
    queue.status.latency[kSent].add(took_ns, answered - before);
  }
  if (queue.publish(count - answered, bell)) engine.ring_call();
}

template <typename Ring>
void NetTransmit::Serving<Ring>::sleep() noexcept {
  answer(Bell::kNow);
  if (throttled) [[unlikely]]
    return hear(queue.sleep_throttled(engine));
  if (queue.will_poll()) {
    hear(engine.transfer({}));  // The bell goes out first: nobody is kept waiting while we look.
    if (queue.poll([this] { return queue.ring.has_new() || engine.ready(); })) return;
  }
  if (!queue.kick_may_come()) return;
  const TapWakeup wakeup = engine.wait(TapEngine::Until::kKick);
  queue.ring.disable_kicks();
  queue.slept();
  hear(wakeup);
}

template <typename Ring>
void NetTransmit::Serving<Ring>::hear(const TapWakeup& wakeup) noexcept {
  if (wakeup.call_swapped) engine.ring_call();
  (void)queue.hear(wakeup, engine.system_calls());
}

}  // namespace worker
