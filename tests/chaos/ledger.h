// tests/chaos/ledger.h: the truth about frames that go one way: which were sent, which have
// arrived, how often, and whether that may be so. And what tells how a queue gets on.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <mutex>
#include <span>
#include <string>
#include <vector>

namespace chaos {

// --- frames --------------------------------------------------------------------------------------

// Content and length of a frame follow from these: one that differs in any byte is none of ours.
struct Stamp {
  bool from_guest = false;
  std::uint32_t queue = 0;  // Of the guest, on which it is sent; 0 where the host sends.
  std::uint64_t number = 0;
};
inline constexpr std::size_t kFrameBytesMost = 3600;
// The host's frames belong to so many flows, by their number: the tap spreads these over its
// queues.
inline constexpr std::uint32_t kFlows = 64;

// A UDP datagram in IPv4.
[[nodiscard]] std::vector<std::byte> make_frame(const Stamp& stamp);
// Fails where it is no frame of ours, or not as it was sent.
[[nodiscard]] Stamp check_frame(std::span<const std::byte> frame, bool from_guest);

// --- the truth -----------------------------------------------------------------------------------

// Frames are numbered from 1 on. Number modulo `flows` is the flow within which none overtakes
// another.
class Ledger {
 public:
  static constexpr std::uint64_t kAnyNumber = std::numeric_limits<std::uint64_t>::max();

  Ledger(std::string what, std::uint32_t flows);

  // The next frame is about to be sent: its number.
  [[nodiscard]] std::uint64_t next();
  // It has arrived. Fails where it was never sent, or has arrived before and may not twice.
  void arrived(std::uint64_t number);
  // So few are on their way that more may be sent. Where any number may be lost, and nothing has
  // come for a while, those on their way are taken for lost.
  [[nodiscard]] bool has_room(std::uint64_t window);

  // From now until settle(): so many may be lost,
  void allow_losses(std::uint64_t count);
  // and so many more, not before number `from`, may arrive once more.
  void allow_repeats(std::uint64_t from, std::uint64_t count);
  // Waits until, of every flow, one that is sent after this has arrived: what has not arrived
  // before that is lost. Fails where that is more than it may be.
  void settle();
  // Nothing is sent any more: waits until all has arrived.
  void finish();

  [[nodiscard]] std::uint64_t arrivals();
  [[nodiscard]] std::uint64_t repeats();
  [[nodiscard]] std::uint64_t losses();

 private:
  using Clock = std::chrono::steady_clock;
  static constexpr std::uint64_t kRecords = 1 << 20;
  void wait_all_flows_pass(std::unique_lock<std::mutex>& lock, std::uint64_t mark);
  void check_losses(std::uint64_t until);
  [[nodiscard]] std::uint8_t& record(std::uint64_t number) { return records_[number % kRecords]; }

  const std::string what_;
  std::mutex mutex_;
  std::condition_variable moved_;
  std::vector<std::uint8_t> records_;        // Times that it has arrived, by number.
  std::vector<std::uint64_t> last_of_flow_;  // That has arrived.
  std::uint64_t sent_ = 0;
  std::uint64_t settled_ = 0;
  std::uint64_t on_their_way_ = 0;
  Clock::time_point arrived_at_ = Clock::now();
  std::uint64_t may_lose_ = 0;
  bool given_up_ = false;  // What has not come for a while is taken for lost.
  std::uint64_t may_repeat_ = 0;
  std::uint64_t repeats_from_ = kAnyNumber;
  std::uint64_t arrivals_ = 0;
  std::uint64_t repeats_ = 0;
  std::uint64_t losses_ = 0;
};

// --- getting on ----------------------------------------------------------------------------------

class Pulse {
 public:
  void beat(std::uint64_t times = 1);
  // False where that many more do not come within the fakes' patience.
  [[nodiscard]] bool gets_on(std::uint64_t times);
  // The longest time between two since this was asked last.
  [[nodiscard]] std::chrono::microseconds take_longest_pause();

 private:
  using Clock = std::chrono::steady_clock;
  std::mutex mutex_;
  std::condition_variable moved_;
  std::uint64_t beats_ = 0;
  Clock::time_point last_ = Clock::now();
  Clock::duration longest_{0};
};

}  // namespace chaos
