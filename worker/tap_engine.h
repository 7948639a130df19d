// worker/tap_engine.h: how a network worker moves packets and sleeps. Two of them exist: tap_uring
// and tap_fallback; tests have a third. The one `virtual` seam of the network worker.
//
// A tap answers at once: there is a packet (or room), or there is none. So a transfer is a batch
// that is done when transfer() returns, and nothing is ever in flight while a worker sleeps.
//
// Trusts: its caller. What a TapPacket names has been checked against the guest's memory.
#pragma once

#include <sys/uio.h>

#include <cstdint>
#include <span>

namespace worker {

// Which way an engine's packets go.
enum class TapDirection : std::uint8_t { kReceive, kTransmit };

// Packets in one transfer, at most: few enough that the guest works on the first while we move the
// next, many enough that the system call does not count.
inline constexpr std::uint32_t kTapBatchMax = 32;

struct TapPacket {
  const iovec* segments = nullptr;  // Header first. At most IOV_MAX (1024).
  std::uint32_t count = 0;
  std::int32_t result = 0;  // Bytes moved, header included, or a negative errno.
};

// What happened since the last look. Several may hold at once, or none.
struct TapWakeup {
  bool stop = false;          // The broker wants this worker to end. Sticky.
  bool kicked = false;        // The guest kicked.
  bool tap_ready = false;     // The tap may have a packet, or room.
  bool call_swapped = false;  // A new call eventfd is in place: ring it once, wanted or not.
  bool host_fault = false;    // The engine itself failed: nothing more can be done here.
};

class TapEngine {
 public:
  TapEngine() = default;
  TapEngine(const TapEngine&) = delete;
  TapEngine& operator=(const TapEngine&) = delete;
  virtual ~TapEngine() = default;

  // Moves the packets, the first first, without waiting. -EAGAIN: the tap was empty, or full. With
  // io_uring a later one of the batch may yet have been moved; who needs their order must look.
  [[nodiscard]] virtual TapWakeup transfer(std::span<TapPacket> packets) noexcept = 0;

  // Rings the guest's bell (the call eventfd), at the latest with the next call to this engine. A
  // bell that is still on its way is not rung twice, and none is lost.
  virtual void ring_call() noexcept = 0;

  enum class Until : std::uint8_t { kKick, kTap };
  // Sleeps until a kick, or the tap is ready, or a message of the broker's: what else happens may
  // wake it, too. Does not sleep once the broker has said stop.
  [[nodiscard]] virtual TapWakeup wait(Until until) noexcept = 0;
  // It does not sleep longer than this from now on. 0: as long as it likes.
  void sleep_at_most(std::uint32_t us) noexcept { sleep_us_max_ = us; }

  // Before busy polling: ready() is to tell about the tap. Costs at most one system call.
  virtual void watch_tap() noexcept = 0;
  // True if wait() would not sleep. For busy polling: costs no system call with io_uring.
  [[nodiscard]] virtual bool ready() noexcept = 0;

  // How many system calls this engine has made, for the status page.
  [[nodiscard]] virtual std::uint64_t system_calls() const noexcept = 0;

 protected:
  [[nodiscard]] std::uint32_t sleep_us_max() const noexcept { return sleep_us_max_; }

 private:
  std::uint32_t sleep_us_max_ = 0;
};

}  // namespace worker
