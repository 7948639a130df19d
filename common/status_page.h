// common/status_page.h: two pages that a session or worker writes and the broker reads.
//
// The only way out of a sealed worker: it holds no descriptor to send anything over. The broker
// treats every field as hostile: it prints numbers and looks words up in its own tables, and the
// memfd is sealed against shrinking, so a hijacked writer cannot kill the reader by SIGBUS.
//
// One writer (the jailed process), one reader; every field is a relaxed atomic of its own.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>

#include "common/latency.h"
#include "common/layers.h"
#include "common/single_writer.h"

namespace common {

inline constexpr std::size_t kStatusPageBytes = 8192;
inline constexpr std::uint32_t kStatusPageVersion = 3;

// How far the process has come. It only grows.
enum class Stage : std::uint32_t {
  kNotStarted = 0,
  kJailed = 1,  // Namespaces, root, capabilities, Landlock: before anything hostile is read.
  kSealed = 2,  // seccomp installed; only now is a peer's or guest's byte looked at.
  kEnding = 3,
};

// What a worker counts. Only ever grows; 64-bit, so it does not wrap.
enum class Counter : std::uint8_t {
  kReadRequests = 0,
  kWriteRequests,
  kFlushRequests,
  kDiscardRequests,
  kWriteZeroesRequests,
  kGetIdRequests,
  kOtherRequests,
  kReadBytes,
  kWrittenBytes,
  kStatusIoError,
  kStatusUnsupported,
  kKicks,            // Kick events consumed.
  kCalls,            // Interrupts sent.
  kCallsSuppressed,  // Batches published for which the guest wanted none.
  kTurns,            // Passes of the loop.
  kSystemCalls,      // By the engine's own count.
  kBounced,          // Requests that went through an aligned copy (O_DIRECT).
  kDiskErrors,       // Requests that the disk failed: not those that the guest asked wrongly.
  kReceivedPackets,
  kReceivedBytes,  // Without the header.
  kSentPackets,
  kSentBytes,
  // Packets that were dropped, by cause.
  kDropBadHeader,  // The guest's header lies about its packet, or asks for what was not negotiated.
  kDropBadLength,  // The guest's packet is shorter than an Ethernet header, or longer than allowed.
  kDropNoRoom,     // The guest's buffer is too small for what was received.
  kDropTapDown,    // The tap is down, or gone.
  kDropTapRefused,   // The tap did not take it.
  kWaitsForBuffers,  // Times that receiving had to wait for the guest to offer buffers.
  kWaitsForTap,      // Times that sending had to wait for the tap.
  kControlCommands,
  kControlRefused,
  kThrottledRequests,  // Requests and packets that a rate limit made wait,
  kThrottledUs,        // and for how long, of each queue: microseconds.
  kCount,
};
inline constexpr std::size_t kCounterCount = static_cast<std::size_t>(Counter::kCount);

struct alignas(64) StatusPage {
  std::atomic<std::uint32_t> version;
  std::atomic<Stage> stage;
  // A worker's: ipc::WorkerFault and two numbers for its sentence. Written before it exits.
  std::atomic<std::uint32_t> fault;
  std::atomic<std::uint32_t> fault_os_errno;
  std::atomic<std::uint64_t> fault_detail[2];
  // The next avail index the device would take: what GET_VRING_BASE answers once it has drained.
  std::atomic<std::uint32_t> next_avail;
  std::atomic<std::uint32_t> in_flight;
  // When the oldest request in flight was taken (ticks.h), to the millisecond; 0: there is none.
  std::atomic<std::uint64_t> oldest_ticks;
  std::atomic<std::uint32_t> disk_os_errno;  // Of the last kDiskErrors; 0: the disk has shrunk.
  std::array<std::atomic<std::uint32_t>, kLayerCount> layers;  // LayerResult, bit for bit.
  alignas(64) std::array<std::atomic<std::uint64_t>, kCounterCount> counters;
  // A worker's, by LatencyKind: from when it takes a request until it answers.
  alignas(64) std::array<LatencyHistogram, kLatencyKinds> latency;

  void add(Counter counter, std::uint64_t amount) noexcept {
    add_alone(counters[static_cast<std::size_t>(counter)], amount);
  }
};
static_assert(sizeof(StatusPage) <= kStatusPageBytes);
static_assert(std::atomic<std::uint64_t>::is_always_lock_free);

}  // namespace common
