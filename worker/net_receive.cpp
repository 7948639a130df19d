#include "worker/net_receive.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstddef>
#include <cstring>
#include <span>
#include <utility>

#include "common/endian.h"
#include "policy/worker_limits.h"
#include "worker/receive_buffers.h"
#include "worker/tap_engine.h"

namespace worker {
namespace {

using common::Counter;
using common::GuestMemory;
using common::ipc::WorkerExit;
using common::ipc::WorkerFault;
using common::net::kFrameBytesMax;
using common::net::kHeaderBytes;
using common::net::kNumBuffersOffset;

// One byte more than a frame can have: a result that fills it was cut off.
constexpr std::uint32_t kStageBytes = kFrameBytesMax + 1;
// So many packets in a row that fit into one buffer end the gathering of many for each.
constexpr std::uint32_t kSmallInRow = 64;
// Most segments of the guest's in one read: one more is ours.
constexpr std::uint32_t kDirectSegmentsMax = policy::kSegmentsMax - 1;

// 5.1.4.1: after MTU was negotiated the device passes on nothing longer, but for what offloads have
// put together. The tag of a VLAN is not counted.
std::uint32_t longest_frame(const NetQueueParts& parts) noexcept {
  const std::uint64_t features = parts.ring.features;
  const bool bounded = parts.device.mtu != 0 && (features & common::net::kFeatureMtu) != 0 &&
                       (features & common::net::kGuestLargePackets) == 0;
  if (!bounded) return 0;
  return kHeaderBytes + common::net::kEthernetBytes + common::net::kVlanBytes + parts.device.mtu;
}

}  // namespace

// Whichever ring it serves.
struct NetReceive::State {
  virtual ~State() = default;
  [[nodiscard]] virtual WorkerExit run() noexcept = 0;
};

// How a packet gets into the guest's buffers, though nobody knows its length before it is read.
//
// Directly: one read into the guest's pages, followed by memory of our own (the stage) for what
// does not fit. As long as packets fit into one buffer each, a batch of reads has a buffer for
// each; once one did not, reads go one by one into as many buffers as the longest packet needs. By
// the stage: the packet that did not fit after all (the first long one after short ones, or the
// guest has offered too little), those behind it in the batch, and all packets of a guest with the
// short header of old. They are whole in our memory and are copied as the guest offers buffers.
// Where the driver was given an MTU, and no offload makes packets longer, buffers that hold one are
// read into alone, which costs the kernel less: what is longer than that is dropped anyway.
// Always the buffers are used in the order in which they were offered (IN_ORDER is true), so those
// that are left can be put back.
template <typename Ring>
struct NetReceive::Serving final : State {
  Serving(const NetQueueParts& parts, Ring made_ring)
      : queue(parts, std::move(made_ring)),
        engine(*parts.engine),
        header(header_bytes(parts.ring.features)),
        mergeable((parts.ring.features & common::net::kFeatureMergeableBuffers) != 0),
        longest(longest_frame(parts)),
        buffers(header),
        stages(
            std::make_unique_for_overwrite<std::byte[]>(std::size_t{kStageBytes} * kTapBatchMax)) {}

  [[nodiscard]] WorkerExit run() noexcept override;
  enum class Turn : std::uint8_t { kAgain, kNoBuffers, kTapEmpty, kThrottled };
  [[nodiscard]] Turn turn() noexcept;
  void plan_small() noexcept;
  void plan_large() noexcept;
  void plan_staged() noexcept;
  [[nodiscard]] bool read() noexcept;
  void take_direct(std::uint32_t bytes) noexcept;
  void say_buffers(std::uint16_t used) noexcept;
  void stage_rest(std::uint32_t index) noexcept;
  [[nodiscard]] bool deliver() noexcept;
  enum class Fit : std::uint8_t { kFits, kWait, kNever };
  [[nodiscard]] Fit buffers_for(std::uint32_t bytes, std::uint32_t& used) noexcept;
  void copy_out(std::span<std::byte> frame, std::uint32_t used) noexcept;
  [[nodiscard]] bool is_fault(std::int32_t result) noexcept;
  void mark_read(const TapPacket& packet) noexcept;
  void count_packet(std::uint32_t bytes) noexcept;
  [[nodiscard]] bool may_read() noexcept;
  void charge(std::uint32_t read, std::uint64_t bytes) noexcept;
  void publish(Bell bell) noexcept;
  void sleep(Turn why) noexcept;
  void hear(const TapWakeup& wakeup) noexcept;
  [[nodiscard]] std::byte* stage(std::uint32_t index) noexcept {
    return &stages[std::size_t{index} * kStageBytes];
  }

  NetVirtqueue<Ring> queue;
  TapEngine& engine;
  std::uint32_t header;
  bool mergeable;
  std::uint32_t longest;       // Frame that may be passed on; 0: any.
  bool large = false;          // Gather many buffers for each packet.
  std::uint32_t in_row = 0;    // Where large: packets that did not need it.
  std::uint32_t batch = 2;     // Reads of the next small turn: follows what there is to read.
  bool idle = true;            // There was nothing to read, or nowhere to put it.
  std::uint32_t planned = 0;   // Packets of this turn.
  std::uint32_t capacity = 0;  // Where large: of the guest's, in its one packet.
  bool direct = false;         // This turn's packets begin in the guest's buffers.
  std::array<TapPacket, kTapBatchMax> packets;

  // Read and not delivered: they lie in stages, from this one on.
  struct Staged {
    std::uint32_t stage;
    std::uint32_t bytes;
  };
  std::array<Staged, kTapBatchMax> staged;
  std::uint32_t staged_begin = 0;
  std::uint32_t staged_end = 0;

  // Large, and not to be touched before use.
  ReceiveBuffers buffers;
  std::unique_ptr<std::byte[]> stages;
  std::array<iovec, policy::kSegmentsMax> gathered;
};

NetReceive::NetReceive(std::unique_ptr<State> state) noexcept : state_(std::move(state)) {}
NetReceive::~NetReceive() = default;

template <typename Ring>
std::unique_ptr<NetReceive::State> NetReceive::make(const NetQueueParts& parts) noexcept {
  auto ring = NetVirtqueue<Ring>::make_ring(parts);
  return ring ? std::make_unique<Serving<Ring>>(parts, *std::move(ring)) : nullptr;
}

std::unique_ptr<NetReceive> NetReceive::create(const NetQueueParts& parts) noexcept {
  auto state = is_packed(parts.ring) ? make<PackedRing>(parts) : make<SplitRing>(parts);
  return state ? std::unique_ptr<NetReceive>(new NetReceive(std::move(state))) : nullptr;
}

WorkerExit NetReceive::run() noexcept { return state_->run(); }

template <typename Ring>
WorkerExit NetReceive::Serving<Ring>::run() noexcept {
  if (queue.begin()) engine.ring_call();
  while (queue.serving) {
    const Turn what = turn();
    // The first packets after a sleep are told of at once: while the guest wakes up, we read on.
    const bool first = std::exchange(idle, what != Turn::kAgain);
    publish(what != Turn::kAgain || first ? Bell::kNow : Bell::kWhenWorthIt);
    if (what != Turn::kAgain && queue.serving) sleep(what);
  }
  publish(Bell::kNow);
  // What was read and found no buffers goes with us, as it would have with a tap whose queue is
  // full.
  if (staged_end != staged_begin) {
    queue.status.add(Counter::kDropNoRoom, staged_end - staged_begin);
  }
  const WorkerExit exit = queue.end(buffers.count());
  // The bell may still have to be rung.
  return engine.transfer({}).host_fault ? WorkerExit::kHostFault : exit;
}

template <typename Ring>
typename NetReceive::Serving<Ring>::Turn NetReceive::Serving<Ring>::turn() noexcept {
  if (!deliver()) return Turn::kNoBuffers;
  if (queue.limiter.limits() && !may_read()) [[unlikely]]
    return Turn::kThrottled;
  const bool any = buffers.fill(queue, large ? 1 : batch) || buffers.count() != 0;
  if (!queue.serving) return Turn::kAgain;
  if (!any) return Turn::kNoBuffers;
  if (header != kHeaderBytes || buffers.at(0).count > kDirectSegmentsMax) {
    plan_staged();
  } else if (large) {
    plan_large();
  } else {
    plan_small();
  }
  const bool empty = read();
  if (!deliver()) return Turn::kNoBuffers;
  return empty ? Turn::kTapEmpty : Turn::kAgain;
}

// A buffer for each packet.
template <typename Ring>
void NetReceive::Serving<Ring>::plan_small() noexcept {
  direct = true;
  for (planned = 0; planned < std::min(batch, buffers.count()); ++planned) {
    const ReceiveBuffer& buffer = buffers.at(planned);
    if (buffer.count > kDirectSegmentsMax) break;
    iovec* const segments = buffers.segments(buffer);
    segments[buffer.count] = {stage(planned) + buffer.bytes, kStageBytes - buffer.bytes};
    const bool enough = longest != 0 && buffer.bytes > longest;
    packets[planned] = {segments, buffer.count + (enough ? 0U : 1U), 0};
  }
}

// As many buffers as the longest packet needs, or as there are.
template <typename Ring>
void NetReceive::Serving<Ring>::plan_large() noexcept {
  direct = true;
  capacity = 0;
  std::uint32_t count = 0;
  for (std::uint32_t i = 0; capacity < kFrameBytesMax && buffers.fill(queue, i + 1); ++i) {
    const auto segments = buffers.list(buffers.at(i));
    if (count + segments.size() > kDirectSegmentsMax) break;
    std::copy(segments.begin(), segments.end(), &gathered[count]);
    count += static_cast<std::uint32_t>(segments.size());
    capacity += buffers.at(i).bytes;
  }
  const std::uint32_t here = std::min(capacity, kFrameBytesMax);
  gathered[count] = {stage(0) + here, kStageBytes - here};
  packets[0] = {gathered.data(), count + 1, 0};
  planned = 1;
}

template <typename Ring>
void NetReceive::Serving<Ring>::plan_staged() noexcept {
  direct = false;
  gathered[0] = {stage(0), kStageBytes};
  packets[0] = {gathered.data(), 1, 0};
  planned = 1;
}

// Reads what is planned; what has not become the guest's at once is staged. True if the tap had no
// more than that.
template <typename Ring>
bool NetReceive::Serving<Ring>::read() noexcept {
  hear(engine.transfer(std::span(packets).first(planned)));
  staged_begin = staged_end = 0;
  bool in_place = direct;  // So far each packet lies in the oldest buffers that are left.
  bool empty = false;
  const std::uint32_t held = buffers.count();
  std::uint32_t moved = 0;
  std::uint64_t moved_bytes = 0;
  for (std::uint32_t i = 0; i < planned; ++i) {
    const std::int32_t result = packets[i].result;
    if (queue.ring.log().on() && direct) [[unlikely]]
      mark_read(packets[i]);
    if (is_fault(result)) {
      // Nothing was read. One that follows in the batch may have been: it lies too far back.
      empty = empty || result < 0;
      in_place = false;
      continue;
    }
    ++moved;
    const auto bytes = static_cast<std::uint32_t>(result);
    moved_bytes += bytes - kHeaderBytes;
    if (longest != 0 && bytes > longest) [[unlikely]] {
      queue.status.add(Counter::kDropBadLength, 1);
      in_place = false;
      continue;
    }
    if (in_place && bytes <= (large ? capacity : buffers.at(0).bytes)) [[likely]] {
      take_direct(bytes);
      continue;
    }
    in_place = false;
    if (bytes > kFrameBytesMax) {  // Cut off, or no packet that a guest could make sense of.
      queue.status.add(Counter::kDropNoRoom, 1);
    } else {
      staged[staged_end++] = {i, bytes};
    }
  }
  if (queue.limiter.limits() || queue.limiter.has_waited()) [[unlikely]]
    charge(moved, moved_bytes);
  if (staged_end != 0) stage_rest(held - buffers.count());
  batch = empty ? std::clamp(moved + 1, 2U, kTapBatchMax) : std::min(batch * 2, kTapBatchMax);
  queue.worked(moved);
  return empty;
}

// The packet lies in the oldest buffers, and in nothing else.
template <typename Ring>
void NetReceive::Serving<Ring>::take_direct(std::uint32_t bytes) noexcept {
  count_packet(bytes);
  std::uint32_t used = 1;
  for (std::uint32_t room = buffers.at(0).bytes; room < bytes; ++used) {
    room += buffers.at(used).bytes;
  }
  say_buffers(static_cast<std::uint16_t>(used));
  for (std::uint32_t left = bytes; left > 0;) {
    const std::uint32_t here = std::min(left, buffers.at(0).bytes);
    queue.ring.add_used(buffers.at(0).head, here);
    buffers.pop();
    left -= here;
  }
  if (large && used == 1 && ++in_row >= kSmallInRow) large = false;
  if (used > 1) in_row = 0;
}

// The tap leaves the last field of the header as it was: 5.1.6.4.1 has us say how many buffers it
// took, and 1 where they are not merged.
template <typename Ring>
void NetReceive::Serving<Ring>::say_buffers(std::uint16_t used) noexcept {
  const common::Le16 number(used);
  const iovec& first = buffers.list(buffers.at(0)).front();
  if (!queue.ring.log().on() && GuestMemory::store_at(first, kNumBuffersOffset, number)) [[likely]]
    return;
  std::size_t offset = kNumBuffersOffset;
  std::array<iovec, 3> place{};
  std::size_t parts = 0;
  for (const iovec& segment : buffers.list(buffers.at(0))) {
    if (offset >= segment.iov_len) {
      offset -= segment.iov_len;
      continue;
    }
    place[parts++] = {static_cast<std::byte*>(segment.iov_base) + offset, segment.iov_len - offset};
    offset = 0;
    if (parts == place.size() || place[0].iov_len >= sizeof(number)) break;
  }
  GuestMemory::scatter(std::as_bytes(std::span(&number, 1)), std::span(place).first(parts));
  if (queue.ring.log().on()) queue.ring.log().mark(std::span(place).first(parts));
}

// Completes the staged packets: what of them lies in the guest's buffers is copied before any of
// these is filled with something else. `taken`: buffers that have gone since the plan was made.
template <typename Ring>
void NetReceive::Serving<Ring>::stage_rest(std::uint32_t taken) noexcept {
  if (!direct) return;
  const bool was_large = large;
  for (std::uint32_t i = 0; i < staged_end; ++i) {
    const Staged& packet = staged[i];
    std::span<std::byte> to(stage(packet.stage), packet.bytes);
    if (was_large) {
      to = to.first(std::min(packet.bytes, capacity));
      GuestMemory::gather(std::span(gathered).first(packets[0].count - 1), to);
    } else {
      const ReceiveBuffer& buffer = buffers.at(packet.stage - taken);
      to = to.first(std::min(packet.bytes, buffer.bytes));
      GuestMemory::gather(buffers.list(buffer), to);
      // The next one is likely to be as long.
      if (packet.bytes > buffer.bytes && mergeable) {
        large = true;
        in_row = 0;
      }
    }
  }
}

// Copies staged packets into the guest's buffers. False where it has to offer more first.
template <typename Ring>
bool NetReceive::Serving<Ring>::deliver() noexcept {
  while (staged_begin != staged_end) {
    const Staged& packet = staged[staged_begin];
    std::span<std::byte> frame(stage(packet.stage), packet.bytes);
    // Without the field that a short header does not have.
    if (header != kHeaderBytes) {
      const std::size_t surplus = kHeaderBytes - header;
      std::memmove(frame.data() + surplus, frame.data(), header);
      frame = frame.subspan(surplus);
    }
    std::uint32_t used = 0;
    const Fit fit = buffers_for(static_cast<std::uint32_t>(frame.size()), used);
    if (fit == Fit::kWait) {
      // It is looked at again as it was read.
      if (header != kHeaderBytes) std::memmove(stage(packet.stage), frame.data(), header);
      return false;
    }
    ++staged_begin;
    if (fit == Fit::kNever) {
      queue.status.add(Counter::kDropNoRoom, 1);
    } else {
      count_packet(packet.bytes);
      copy_out(frame, used);
    }
  }
  return true;
}

// How many buffers a packet takes, which are then held.
template <typename Ring>
typename NetReceive::Serving<Ring>::Fit NetReceive::Serving<Ring>::buffers_for(
    std::uint32_t bytes, std::uint32_t& used) noexcept {
  for (std::uint32_t room = 0; room < bytes; ++used) {
    if (!buffers.fill(queue, used + 1)) {
      return buffers.full(queue) ? Fit::kNever : Fit::kWait;
    }
    room += buffers.at(used).bytes;
    if (!mergeable && room < bytes) return Fit::kNever;
  }
  return Fit::kFits;
}

template <typename Ring>
void NetReceive::Serving<Ring>::copy_out(std::span<std::byte> frame, std::uint32_t used) noexcept {
  if (header == kHeaderBytes) {
    const common::Le16 number(static_cast<std::uint16_t>(used));
    std::memcpy(&frame[kNumBuffersOffset], &number, sizeof(number));
  }
  while (!frame.empty()) {
    const ReceiveBuffer& buffer = buffers.at(0);
    const std::size_t here = GuestMemory::scatter(frame, buffers.list(buffer));
    if (queue.ring.log().on()) queue.ring.log().mark(buffers.list(buffer), here);
    queue.ring.add_used(buffer.head, static_cast<std::uint32_t>(here));
    buffers.pop();
    frame = frame.subspan(here);
  }
}

// True if nothing was read; what follows from it beside that.
template <typename Ring>
bool NetReceive::Serving<Ring>::is_fault(std::int32_t result) noexcept {
  constexpr auto kRole = static_cast<std::uint64_t>(common::ipc::NetRole::kReceive);
  if (result >= static_cast<std::int32_t>(kHeaderBytes)) return false;
  switch (result) {
    case -EAGAIN:
    case -ECANCELED:
    case -EINTR:
      break;
    case -EBADFD:  // The interface is no more.
      queue.host_fault(WorkerFault::kTapGone, kRole, EBADFD);
      break;
    case -EOPNOTSUPP:
      queue.host_fault(WorkerFault::kEngine, 0, EOPNOTSUPP);
      break;
    default:  // It was read, and could not be stored: the guest's memory has vanished.
      queue.status.add(Counter::kDropTapRefused, 1);
      break;
  }
  return true;
}

// What was read, also where it does not stay in these buffers: they may go back to the guest
// unused. Of a read that failed nobody knows how much it has filled.
template <typename Ring>
void NetReceive::Serving<Ring>::mark_read(const TapPacket& packet) noexcept {
  constexpr std::array kNothingWritten = {-EAGAIN, -ECANCELED, -EINTR};
  if (std::ranges::find(kNothingWritten, packet.result) != kNothingWritten.end()) return;
  const std::uint64_t bytes =
      packet.result < 0 ? UINT64_MAX : static_cast<std::uint64_t>(packet.result);
  queue.ring.log().mark(std::span(packet.segments, packet.count), bytes);
}

template <typename Ring>
void NetReceive::Serving<Ring>::count_packet(std::uint32_t bytes) noexcept {
  queue.status.add(Counter::kReceivedPackets, 1);
  queue.status.add(Counter::kReceivedBytes, bytes - kHeaderBytes);
}

// Nobody knows how many packets there are, nor how long they are, before they are read: one of the
// shortest is asked for, and what comes beside it is a debt that the next ones wait for. Meanwhile
// packets stay in the tap, which drops and counts what it has no room for.
template <typename Ring>
bool NetReceive::Serving<Ring>::may_read() noexcept {
  return queue.limiter.admit(RateLimiter::Way::kRead, common::net::kEthernetBytes, read_ticks());
}

template <typename Ring>
void NetReceive::Serving<Ring>::charge(std::uint32_t read, std::uint64_t bytes) noexcept {
  if (read == 0) return queue.limiter.waited_for_nothing();
  queue.limiter.lifted(read_ticks());
  queue.took_limited();
  const std::uint64_t asked = std::min<std::uint64_t>(bytes, common::net::kEthernetBytes);
  queue.limiter.charge(RateLimiter::Way::kRead, read - 1, bytes - asked, read_ticks());
}

template <typename Ring>
void NetReceive::Serving<Ring>::publish(Bell bell) noexcept {
  if (queue.publish(buffers.count(), bell)) engine.ring_call();
}

template <typename Ring>
void NetReceive::Serving<Ring>::sleep(Turn why) noexcept {
  if (why == Turn::kThrottled) [[unlikely]]
    return hear(queue.sleep_throttled(engine));
  if (why == Turn::kNoBuffers) {
    if (queue.will_poll()) {
      hear(engine.transfer({}));  // The bell goes out first: the guest offers more when it is rung.
      if (queue.poll([this] { return queue.ring.has_new() || engine.ready(); })) return;
    }
    if (!queue.kick_may_come()) return;
    queue.status.add(Counter::kWaitsForBuffers, 1);
    hear(engine.wait(TapEngine::Until::kKick));
    queue.ring.disable_kicks();
  } else {
    if (queue.will_poll()) {
      engine.watch_tap();
      if (queue.poll([this] { return engine.ready(); })) return;
    }
    hear(engine.wait(TapEngine::Until::kTap));
  }
  queue.slept();
}

template <typename Ring>
void NetReceive::Serving<Ring>::hear(const TapWakeup& wakeup) noexcept {
  if (wakeup.call_swapped) engine.ring_call();
  (void)queue.hear(wakeup, engine.system_calls());
}

}  // namespace worker
