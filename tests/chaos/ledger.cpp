#include "tests/chaos/ledger.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>

#include "tests/fakes/failure.h"
#include "tests/fakes/host_port.h"
#include "tests/fakes/vhost_frontend.h"

namespace chaos {
namespace {

constexpr std::size_t kEthernet = 14;
constexpr std::size_t kIp = 20;
constexpr std::size_t kUdp = 8;
constexpr std::size_t kHeads = kEthernet + kIp + kUdp;
constexpr std::uint64_t kMagic = 0x626c6b6863617264;
constexpr std::chrono::milliseconds kLostAfter{20};
constexpr std::uint64_t kUnsettledMost = 400'000;  // While some queue stands still.

// What stands behind the heads, and then what follows from it.
struct Written {
  std::uint64_t magic = kMagic;
  std::uint64_t number = 0;
  std::uint32_t queue = 0;
  std::uint32_t from_guest = 0;
};

std::uint64_t next_random(std::uint64_t& state) {
  state ^= state << 13;
  state ^= state >> 7;
  state ^= state << 17;
  return state;
}

void put16(std::byte* to, std::size_t value) {
  to[0] = static_cast<std::byte>(value >> 8);
  to[1] = static_cast<std::byte>(value);
}

// RFC 1071.
std::size_t checksum_of(std::span<const std::byte> bytes) {
  std::size_t sum = 0;
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    sum += std::to_integer<std::size_t>(bytes[i]) << (i % 2 == 0 ? 8 : 0);
  }
  while (sum >> 16 != 0) sum = (sum & 0xffff) + (sum >> 16);
  return ~sum & 0xffff;
}

// Addresses of documentation (RFC 5737); RFC 768: a checksum of 0 is none.
void put_heads(std::span<std::byte> frame, const Stamp& stamp) {
  const auto& to = stamp.from_guest ? fakes::kHostMac : fakes::kGuestMac;
  const auto& from = stamp.from_guest ? fakes::kGuestMac : fakes::kHostMac;
  std::memcpy(&frame[0], to.data(), to.size());
  std::memcpy(&frame[to.size()], from.data(), from.size());
  put16(&frame[12], 0x0800);
  const auto ip = frame.subspan(kEthernet);
  const std::array<std::uint8_t, kIp> head = {0x45, 0, 0,   0, 0, 0,   0x40, 0, 64, 17,
                                              0,    0, 192, 0, 2, 100, 192,  0, 2,  101};
  std::memcpy(ip.data(), head.data(), head.size());
  put16(&ip[2], ip.size());
  put16(&ip[10], checksum_of(ip.first(kIp)));
  const auto udp = ip.subspan(kIp);
  put16(&udp[0], stamp.from_guest ? 9000 + stamp.queue : 4000 + stamp.number % kFlows);
  put16(&udp[2], 5000);
  put16(&udp[4], udp.size());
}

}  // namespace

std::vector<std::byte> make_frame(const Stamp& stamp) {
  std::uint64_t random =
      (stamp.number * 2 + (stamp.from_guest ? 1 : 0)) * 0x9e3779b97f4a7c15 + stamp.queue;
  constexpr std::size_t kLeast = kHeads + sizeof(Written);
  // Most are short, so that many are under way.
  const std::size_t most = next_random(random) % 4 == 0 ? kFrameBytesMost : 400;
  std::vector<std::byte> frame(kLeast + next_random(random) % (most - kLeast + 1));
  put_heads(frame, stamp);
  const Written written{kMagic, stamp.number, stamp.queue, stamp.from_guest ? 1U : 0U};
  std::memcpy(&frame[kHeads], &written, sizeof(written));
  for (std::size_t at = kLeast; at < frame.size(); at += sizeof(random)) {
    const std::uint64_t piece = next_random(random);
    std::memcpy(&frame[at], &piece, std::min(sizeof(piece), frame.size() - at));
  }
  return frame;
}

Stamp check_frame(std::span<const std::byte> frame, bool from_guest) {
  Written written{.magic = 0};
  if (frame.size() >= kHeads + sizeof(written)) {
    std::memcpy(&written, &frame[kHeads], sizeof(written));
  }
  fakes::require(written.magic == kMagic && (written.from_guest == 1) == from_guest,
                 "a frame of " + std::to_string(frame.size()) + " bytes that nobody has sent");
  const Stamp stamp{from_guest, written.queue, written.number};
  fakes::require(std::ranges::equal(frame, make_frame(stamp)),
                 "frame " + std::to_string(stamp.number) + " of queue " +
                     std::to_string(stamp.queue) + " is not as it was sent");
  return stamp;
}

// --- the truth -----------------------------------------------------------------------------------

Ledger::Ledger(std::string what, std::uint32_t flows)
    : what_(std::move(what)), records_(kRecords), last_of_flow_(flows) {}

std::uint64_t Ledger::next() {
  const std::lock_guard lock(mutex_);
  ++sent_;
  ++on_their_way_;
  record(sent_) = 0;
  return sent_;
}

void Ledger::arrived(std::uint64_t number) {
  const std::lock_guard lock(mutex_);
  const std::string name = what_ + ": frame " + std::to_string(number);
  fakes::require(number > 0 && number <= sent_, name + " was never sent");
  fakes::require(sent_ - number < kRecords / 2, name + " is far too late");
  if (std::uint8_t& times = record(number); times++ == 0) {
    ++arrivals_;
    if (on_their_way_ > 0) --on_their_way_;
  } else {
    fakes::require(number >= repeats_from_ && may_repeat_ > 0, name + " has come twice");
    --may_repeat_;
    ++repeats_;
  }
  std::uint64_t& last = last_of_flow_[number % last_of_flow_.size()];
  last = std::max(last, number);
  arrived_at_ = Clock::now();
  moved_.notify_all();
}

bool Ledger::has_room(std::uint64_t window) {
  const std::lock_guard lock(mutex_);
  if (on_their_way_ >= window && given_up_ && Clock::now() - arrived_at_ > kLostAfter) {
    on_their_way_ = 0;
    arrived_at_ = Clock::now();
  }
  return on_their_way_ < window && sent_ - settled_ < kUnsettledMost;
}

void Ledger::allow_losses(std::uint64_t count) {
  const std::lock_guard lock(mutex_);
  may_lose_ = count > kAnyNumber - may_lose_ ? kAnyNumber : may_lose_ + count;
  given_up_ = may_lose_ == kAnyNumber;
}

void Ledger::allow_repeats(std::uint64_t from, std::uint64_t count) {
  const std::lock_guard lock(mutex_);
  may_repeat_ += count;
  repeats_from_ = std::min(repeats_from_, from);
}

void Ledger::check_losses(std::uint64_t until) {
  std::uint64_t lost = 0;
  std::string which;
  for (std::uint64_t number = settled_ + 1; number <= until; ++number) {
    if (record(number) != 0) continue;
    if (++lost < 20) which += " " + std::to_string(number);
  }
  fakes::require(lost <= may_lose_, what_ + ": " + std::to_string(lost) + " frames of " +
                                        std::to_string(settled_ + 1) + " to " +
                                        std::to_string(until) + " are lost:" + which);
  losses_ += lost;
  settled_ = until;
  on_their_way_ = 0;
  for (std::uint64_t number = until + 1; number <= sent_; ++number) {
    if (record(number) == 0) ++on_their_way_;
  }
  may_lose_ = may_repeat_ = 0;
  repeats_from_ = kAnyNumber;
}

void Ledger::wait_all_flows_pass(std::unique_lock<std::mutex>& lock, std::uint64_t mark) {
  const bool passed = moved_.wait_for(lock, 2 * fakes::kPatience, [&] {
    return std::ranges::all_of(last_of_flow_, [&](std::uint64_t last) { return last > mark; });
  });
  fakes::require(passed,
                 what_ + ": nothing arrives that is sent after frame " + std::to_string(mark));
}

// Once each flow has passed, nothing gets lost any more: what was on its way until then has arrived
// when the next of each flow does.
void Ledger::settle() {
  std::unique_lock lock(mutex_);
  wait_all_flows_pass(lock, sent_);
  given_up_ = false;
  on_their_way_ = 0;
  const std::uint64_t mark = sent_;
  wait_all_flows_pass(lock, mark);
  check_losses(mark);
}

void Ledger::finish() {
  std::unique_lock lock(mutex_);
  (void)moved_.wait_for(lock, fakes::kPatience, [&] {
    for (std::uint64_t number = settled_ + 1; number <= sent_; ++number) {
      if (record(number) == 0) return false;
    }
    return true;
  });
  check_losses(sent_);
}

std::uint64_t Ledger::arrivals() {
  const std::lock_guard lock(mutex_);
  return arrivals_;
}

std::uint64_t Ledger::repeats() {
  const std::lock_guard lock(mutex_);
  return repeats_;
}

std::uint64_t Ledger::losses() {
  const std::lock_guard lock(mutex_);
  return losses_;
}

// --- getting on ----------------------------------------------------------------------------------

void Pulse::beat(std::uint64_t times) {
  if (times == 0) return;
  const std::lock_guard lock(mutex_);
  beats_ += times;
  const auto now = Clock::now();
  longest_ = std::max(longest_, now - std::exchange(last_, now));
  moved_.notify_all();
}

bool Pulse::gets_on(std::uint64_t times) {
  std::unique_lock lock(mutex_);
  const std::uint64_t wanted = beats_ + times;
  return moved_.wait_for(lock, 2 * fakes::kPatience, [&] { return beats_ >= wanted; });
}

std::chrono::microseconds Pulse::take_longest_pause() {
  const std::lock_guard lock(mutex_);
  return std::chrono::duration_cast<std::chrono::microseconds>(
      std::exchange(longest_, Clock::duration::zero()));
}

}  // namespace chaos
