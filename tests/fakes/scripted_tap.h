// tests/fakes/scripted_tap.h: a TapEngine over a tap in memory, which is empty, full, down or gone
// as a test says.
//
// `on_turn` runs at the start of each transfer and sleep, as the guest's other CPUs do while the
// worker is in its system call. When the worker would sleep and nothing can wake it any more, the
// engine says stop, so that run() comes back by itself.
#pragma once

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <deque>
#include <functional>
#include <span>
#include <utility>
#include <vector>

#include "common/verify.h"
#include "common/virtio_net_wire.h"
#include "worker/tap_engine.h"

namespace fakes {

class ScriptedTap final : public worker::TapEngine {
 public:
  using Frame = std::vector<std::byte>;  // Header of 12 bytes first.

  explicit ScriptedTap(worker::TapDirection direction) : direction_(direction) {}

  // --- the script -------------------------------------------------------------------------------
  std::function<void()> on_turn;
  // It would sleep, but no longer than that; it goes on at once.
  std::function<void(std::uint32_t us)> on_nap;
  std::deque<Frame> incoming;
  // Transmit: how many more packets the tap has room for; sleeping for it makes room for
  // `room_after_wait`.
  std::size_t room = SIZE_MAX;
  std::size_t room_after_wait = SIZE_MAX;
  // What the next transfers of a packet come to instead, in this order; 0: as usual.
  std::deque<std::int32_t> results;

  void kick() { kicked_ = true; }
  void stop() { stop_ = true; }
  void swap_call() { swapped_ = true; }
  void break_host() { host_fault_ = true; }

  // --- what happened ----------------------------------------------------------------------------
  std::vector<Frame> sent;
  std::vector<std::uint32_t> pieces;   // Segments of each packet of a transfer,
  std::vector<std::size_t> transfers;  // and how many packets each transfer had.
  std::size_t flushes = 0;             // Transfers of nothing: the bell goes out with them.
  std::size_t tap_waits = 0;
  std::size_t kick_waits = 0;
  std::size_t naps = 0;
  std::uint32_t bells = 0;

  // --- TapEngine --------------------------------------------------------------------------------
  [[nodiscard]] worker::TapWakeup transfer(std::span<worker::TapPacket> packets) noexcept override {
    ++turns_;
    if (on_turn) on_turn();
    if (packets.empty()) ++flushes;
    if (!packets.empty()) transfers.push_back(packets.size());
    for (worker::TapPacket& packet : packets) {
      common::verify(packet.count >= 1 && packet.count <= 1024);  // IOV_MAX
      pieces.push_back(packet.count);
      const std::int32_t scripted = next_result();
      packet.result = scripted != 0                                  ? scripted
                      : direction_ == worker::TapDirection::kReceive ? receive(packet)
                                                                     : transmit(packet);
    }
    return news();
  }
  void ring_call() noexcept override { ++bells; }

  [[nodiscard]] worker::TapWakeup wait(Until until) noexcept override {
    ++turns_;
    ++(until == Until::kTap ? tap_waits : kick_waits);
    if (on_turn) on_turn();
    worker::TapWakeup wakeup = news();
    if (until == Until::kTap) {
      if (direction_ == worker::TapDirection::kTransmit) room = room_after_wait;
      const bool ready =
          direction_ == worker::TapDirection::kReceive ? !incoming.empty() : room > 0;
      wakeup.tap_ready = ready;
    }
    const bool woken = wakeup.kicked || wakeup.tap_ready || wakeup.call_swapped;
    if (sleep_us_max() != 0) {
      ++naps;
      if (on_nap) on_nap(sleep_us_max());
      wakeup.stop = stop_;
    } else if (!woken && !wakeup.host_fault) {
      wakeup.stop = stop_ = true;
    }
    return wakeup;
  }
  void watch_tap() noexcept override {}
  [[nodiscard]] bool ready() noexcept override { return kicked_ || stop_ || !incoming.empty(); }
  [[nodiscard]] std::uint64_t system_calls() const noexcept override { return turns_; }

 private:
  worker::TapWakeup news() {
    worker::TapWakeup wakeup;
    wakeup.stop = stop_;
    wakeup.kicked = std::exchange(kicked_, false);
    wakeup.call_swapped = std::exchange(swapped_, false);
    wakeup.host_fault = host_fault_;
    return wakeup;
  }

  std::int32_t next_result() {
    if (results.empty()) return 0;
    const std::int32_t result = results.front();
    results.pop_front();
    return result;
  }

  // As the kernel does it: the last two bytes of the header stay as they were, and what does not
  // fit is lost.
  std::int32_t receive(const worker::TapPacket& packet) {
    if (incoming.empty()) return -EAGAIN;
    const Frame frame = std::move(incoming.front());
    incoming.pop_front();
    std::size_t at = 0;
    for (const iovec& segment : std::span(packet.segments, packet.count)) {
      for (std::size_t i = 0; i < segment.iov_len && at < frame.size(); ++i, ++at) {
        if (at == 10 || at == 11) continue;
        static_cast<std::byte*>(segment.iov_base)[i] = frame[at];
      }
    }
    return static_cast<std::int32_t>(at);
  }

  std::int32_t transmit(const worker::TapPacket& packet) {
    if (room == 0) return -EAGAIN;
    --room;
    Frame frame;
    for (const iovec& segment : std::span(packet.segments, packet.count)) {
      const auto* const start = static_cast<const std::byte*>(segment.iov_base);
      frame.insert(frame.end(), start, start + segment.iov_len);
    }
    sent.push_back(std::move(frame));
    return static_cast<std::int32_t>(sent.back().size());
  }

  worker::TapDirection direction_;
  std::size_t turns_ = 0;
  bool kicked_ = false;
  bool stop_ = false;
  bool swapped_ = false;
  bool host_fault_ = false;
};

}  // namespace fakes
