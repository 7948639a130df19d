// worker/net_virtqueue.h: what receiving, sending and the control commands have in common: chains
// in, answers out, the bell, the status page, and what ends it.
#pragma once

#include <cstdint>
#include <optional>
#include <span>

#include "common/guest_memory.h"
#include "common/ipc/worker_messages.h"
#include "common/status_page.h"
#include "common/virtio_net_wire.h"
#include "worker/linger.h"
#include "worker/poller.h"
#include "worker/rate_limiter.h"
#include "worker/ring_kind.h"

namespace worker {

class TapEngine;
struct TapWakeup;

// Everything serving needs. The broker's word (`device`) and the session's (`ring`), the latter
// checked by start.cpp as far as it can be without the guest's bytes.
struct NetQueueParts {
  common::GuestMemory memory;
  common::ipc::NetStart device;
  common::ipc::RingStart ring;
  TapEngine* engine = nullptr;  // Borrowed; outlives the queue. Null for the control queue.
  common::StatusPage* status = nullptr;  // Borrowed; outlives the queue.
  std::span<std::byte> log{};            // What `ring` says of it; empty where it has none.
  RateMemories rates{};                  // The operator's limits.
};

// How long the header is that the guest has before each packet (virtio 1.2, 5.1.6.1).
[[nodiscard]] constexpr std::uint32_t header_bytes(std::uint64_t features) noexcept {
  constexpr std::uint64_t kLong = common::kFeatureVersion1 | common::net::kFeatureMergeableBuffers;
  return (features & kLong) != 0 ? common::net::kHeaderBytes : common::net::kLegacyHeaderBytes;
}

// When the guest is told of answers.
enum class Bell : std::uint8_t { kWhenWorthIt, kNow };

template <typename Ring>
class NetVirtqueue {
 public:
  // Nothing and a fault on the status page where the ring does not lie in guest memory or is
  // misaligned.
  [[nodiscard]] static std::optional<Ring> make_ring(const NetQueueParts& parts) noexcept;
  NetVirtqueue(const NetQueueParts& parts, Ring made_ring) noexcept;

  // First touch of the guest's bytes. True where the bell is owed.
  [[nodiscard]] bool begin() noexcept {
    const bool owed = ring.begin() == SplitRing::Begin::kUsed;
    // A packed ring has seen to that itself.
    if constexpr (!Ring::kBaseFollowsShown) ring.take_what_is_unanswered();
    return owed;
  }

  // Reads the next chain and takes it. False: there is none, or the ring is broken, which
  // stop_for() has noted. The chain is valid until the next call.
  [[nodiscard]] bool next(Chain& chain) noexcept;

  // Shows the guest all answers; true where it wants the bell for them, and now is the time. The
  // last `held` chains that were taken are not answered, and a later worker would have to take them
  // again.
  [[nodiscard]] bool publish(std::uint32_t held, Bell bell) noexcept;

  // The guest broke the ring: no more is taken.
  void stop_for(const RingFault& fault) noexcept;
  // Our side broke.
  void host_fault(common::ipc::WorkerFault code, std::uint64_t detail, int os_errno) noexcept;

  // Asks for a kick with the next chain. False if there is something to do first.
  [[nodiscard]] bool kick_may_come() noexcept;

  // What the engine has told. False where it has failed.
  [[nodiscard]] bool hear(const TapWakeup& wakeup, std::uint64_t system_calls_so_far) noexcept;

  // Leaves the ring as a later worker, or another device, wants to find it.
  [[nodiscard]] common::ipc::WorkerExit end(std::uint32_t held) noexcept;

  // Packets were moved: from now on we are idle.
  void worked(std::uint32_t packets) noexcept {
    if (packets == 0) return;
    linger_.worked(packets);
    if (poller_.enabled()) idle_since_ = read_ticks();
  }
  [[nodiscard]] bool will_poll() const noexcept {
    return poller_.enabled() ? poller_.window() != 0 : linger_.due();
  }
  // Before a sleep, and only where will_poll(): looks for `what()` to come true, as long as it
  // pays. True if it did.
  template <typename What>
  [[nodiscard]] bool poll(What&& what) noexcept {
    if (!poller_.enabled()) return linger_.look(what);
    const std::uint64_t window = poller_.window();
    while (window != 0 && read_ticks() - idle_since_ < window) {
      if (what()) {
        poller_.hit();
        return true;
      }
      relax_cpu();
    }
    return false;
  }
  // What a rate limit had to do with the last packets goes to the status page.
  void took_limited() noexcept;
  // No packet passes before its time: sleeps, as long as that takes, or until something else is to
  // be looked at.
  [[nodiscard]] TapWakeup sleep_throttled(TapEngine& engine) noexcept;

  // After a sleep: the window follows how long it took.
  void slept() noexcept {
    linger_.slept();
    if (idle_since_ != 0) poller_.slept(read_ticks() - idle_since_);
  }

  common::GuestMemory memory;
  common::StatusPage& status;
  Ring ring;
  RateLimiter limiter;
  bool serving = true;  // False once the broker, or a fault, says stop.
  common::ipc::WorkerExit exit = common::ipc::WorkerExit::kStopped;

 private:
  [[nodiscard]] bool bell_is_worth_it() noexcept;

  typename ReaderOf<Ring>::Type reader_;
  Poller poller_;
  std::uint64_t idle_since_ = 0;  // Ticks; when polling, since the last work.
  Linger linger_;
  std::uint32_t uncalled_max_;
  std::uint64_t system_calls_ = 0;
  SegmentScratch scratch_;  // Large, and not to be touched before use.
};

extern template class NetVirtqueue<SplitRing>;
extern template class NetVirtqueue<PackedRing>;

}  // namespace worker
