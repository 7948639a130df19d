// The two places where device and driver look at each other across a store of their own: who falls
// asleep must be woken by the other, whichever came first. Two threads play one entry at a time, on
// two CPUs if they can have them; what would be lost without a fence is lost often enough to be
// seen, and with it never.
#include <gtest/gtest.h>
#include <sched.h>

#include <atomic>
#include <cstdint>
#include <thread>
#include <type_traits>

#include "tests/fakes/guest_driver.h"
#include "worker/packed_ring.h"
#include "worker/ring.h"

namespace {

using fakes::GuestDriver;
using fakes::GuestRam;
using worker::SplitRing;

#ifdef BULKHEAD_SANITIZER
constexpr std::uint32_t kRounds = 20'000;  // Each of which takes long.
#else
constexpr std::uint32_t kRounds = 400'000;
#endif
// On a busy machine a side may have to wait long for the other: that is not worth all rounds.
constexpr std::uint32_t kYieldsMax = 5'000;
constexpr std::uint32_t kSpinsBeforeYield = 5'000;

// The calling thread's CPU is the `which`th of those that it may have, for a while.
class OwnCpu {
 public:
  explicit OwnCpu(int which) {
    if (::sched_getaffinity(0, sizeof(before_), &before_) != 0) return;
    cpu_set_t one;
    CPU_ZERO(&one);
    for (std::size_t cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
      if (CPU_ISSET(cpu, &before_) && which-- == 0) CPU_SET(cpu, &one);
    }
    // With fewer CPUs than sides they share one, and there is little to be seen.
    (void)::sched_setaffinity(0, sizeof(one), &one);
  }
  OwnCpu(const OwnCpu&) = delete;
  OwnCpu& operator=(const OwnCpu&) = delete;
  ~OwnCpu() { (void)::sched_setaffinity(0, sizeof(before_), &before_); }

 private:
  cpu_set_t before_{};
};

// So large that what the sides write lies in different cache lines.
template <typename Ring>
struct RingPair {
  explicit RingPair(bool event_idx)
      : driver(ram, {.queue_size = 256,
                     .event_idx = event_idx,
                     .packed = std::is_same_v<Ring, worker::PackedRing>}),
        ring(Ring::create(ram.memory(), driver.ring_start(0)).value()) {
    (void)ring.begin();
  }
  bool offer() {
    const fakes::Buffer buffer{{GuestRam::kDefaultStart}, 16, false};
    (void)driver.add({&buffer, 1});
    return driver.publish();
  }
  bool take() {
    if (ring.peek() != SplitRing::Peek::kHead) return false;
    head = ring.head();
    ring.take();
    return true;
  }
  GuestRam ram;
  GuestDriver driver;
  Ring ring;
  std::uint16_t head = 0;
};

// Not always the same time, so that the sides meet at every point.
void dawdle(std::uint32_t time) {
  for (std::uint32_t i = 0; i < time; ++i) asm volatile("" ::: "memory");
}

// One side shows an entry and wakes the other if that wants to be woken; the other takes it, and
// sleeps.
class Race {
 public:
  // The side that shows entries: `show` says whether the other wants to be woken.
  template <typename Show>
  void show_entries(Show show) {
    const OwnCpu cpu(0);
    for (std::uint32_t round = 0; round < kRounds && yields_.load() < kYieldsMax; ++round) {
      wait_until([&] { return taken_.load() == round || lost_.load(); });
      if (lost_.load()) break;
      dawdle(round % 509);
      if (show()) wakes_.fetch_add(1);
      shown_.fetch_add(1);
    }
    over_.store(true);
  }

  // The side that takes them: `take` says whether there was one, `wants_sleep` whether it may sleep
  // after it has asked to be woken. True if nothing was lost.
  template <typename Take, typename WantsSleep>
  [[nodiscard]] bool take_entries(Take take, WantsSleep wants_sleep) {
    const OwnCpu cpu(1);
    while (true) {
      const std::uint32_t heard = wakes_.load();
      while (take()) taken_.fetch_add(1);
      dawdle(taken_.load() % 769);
      if (!wants_sleep()) continue;
      const auto is_shown = [this] { return shown_.load() == taken_.load() + 1; };
      wait_until([&] { return is_shown() || over_.load(); });
      // The other side has decided about its entry: it must have been that we are to be woken.
      if (is_shown() && wakes_.load() == heard) {
        lost_.store(true);
        return false;
      }
      if (over_.load() && !is_shown()) return true;
    }
  }

 private:
  template <typename Condition>
  void wait_until(Condition condition) {
    for (std::uint32_t spins = 1; !condition(); ++spins) {
      if (spins % kSpinsBeforeYield != 0) continue;
      yields_.fetch_add(1);
      std::this_thread::yield();
    }
  }

  std::atomic<std::uint32_t> shown_{0};  // After it was decided whether to wake.
  std::atomic<std::uint32_t> taken_{0};
  std::atomic<std::uint32_t> wakes_{0};
  std::atomic<std::uint32_t> yields_{0};
  std::atomic<bool> over_{false};
  std::atomic<bool> lost_{false};
};

// Whoever sleeps takes what the other shows, and gives it back before the next.
template <typename Ring>
void driver_sleeps(bool event_idx) {
  RingPair<Ring> pair(event_idx);
  Race race;
  std::thread device([&] {
    race.show_entries([&] {
      while (!pair.take()) std::this_thread::yield();
      pair.ring.add_used(pair.head, 1);
      return pair.ring.publish() == SplitRing::Publish::kCall;
    });
  });
  (void)pair.offer();
  EXPECT_TRUE(race.take_entries(
      [&] {
        pair.driver.disable_calls();
        if (!pair.driver.next_used()) return false;
        (void)pair.offer();
        return true;
      },
      [&] { return !pair.driver.enable_calls(); }));
  device.join();
}

template <typename Ring>
void device_sleeps(bool event_idx) {
  RingPair<Ring> pair(event_idx);
  Race race;
  std::thread driver([&] {
    race.show_entries([&] {
      while (pair.driver.next_used()) {
      }
      return pair.offer();
    });
  });
  EXPECT_TRUE(race.take_entries(
      [&] {
        pair.ring.disable_kicks();
        if (!pair.take()) return false;
        pair.ring.add_used(pair.head, 1);
        (void)pair.ring.show_used();
        return true;
      },
      [&] { return !pair.ring.enable_kicks(); }));
  driver.join();
}

class RingRace : public testing::TestWithParam<bool> {};
INSTANTIATE_TEST_SUITE_P(Notifications, RingRace, testing::Values(true, false),
                         [](const testing::TestParamInfo<bool>& way) {
                           return way.param ? "EventIdx" : "Flags";
                         });

TEST_P(RingRace, DriverThatFallsAsleepIsCalled) { driver_sleeps<SplitRing>(GetParam()); }
TEST_P(RingRace, DeviceThatFallsAsleepIsKicked) { device_sleeps<SplitRing>(GetParam()); }
TEST_P(RingRace, DriverOfAPackedRingThatFallsAsleepIsCalled) {
  driver_sleeps<worker::PackedRing>(GetParam());
}
TEST_P(RingRace, DeviceOfAPackedRingThatFallsAsleepIsKicked) {
  device_sleeps<worker::PackedRing>(GetParam());
}

}  // namespace
