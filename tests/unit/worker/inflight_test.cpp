// The in-flight region: what it says after a death at any instruction, and what is refused of it.
#include "worker/inflight.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <set>
#include <string>
#include <vector>

#include "tests/fakes/guest_driver.h"
#include "worker/ring.h"

namespace {

using common::inflight::DescState;
using common::inflight::Header;
using common::ipc::RingStart;
using common::ipc::WorkerFault;
using fakes::GuestDriver;
using fakes::GuestRam;
using worker::SplitRing;
using Begin = SplitRing::Begin;
using Peek = SplitRing::Peek;

constexpr std::uint16_t kSize = 8;

// A guest, its ring, and a region that outlives whoever serves it.
class InflightTest : public testing::Test {
 protected:
  struct Region {
    Header header;
    std::array<DescState, kSize> states;
  };

  InflightTest() {
    region_ = static_cast<Region*>(
        ::mmap(nullptr, sizeof(Region), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
    EXPECT_NE(static_cast<void*>(region_), MAP_FAILED);
  }
  ~InflightTest() override { ::munmap(region_, sizeof(Region)); }

  [[nodiscard]] std::span<std::byte> region() {
    return std::as_writable_bytes(std::span(region_, 1));
  }
  [[nodiscard]] RingStart start(bool resume) {
    RingStart start = driver_.ring_start(0);
    start.inflight_entries = kSize;
    start.inflight_resume = resume ? 1 : 0;
    return start;
  }
  [[nodiscard]] SplitRing make(bool resume) {
    return SplitRing::create(memory_, start(resume), region()).value();
  }
  // What the next worker finds.
  [[nodiscard]] WorkerFault fault_of_begin() {
    SplitRing ring = make(true);
    return ring.begin() == Begin::kFault ? ring.fault().code : WorkerFault::kNone;
  }
  [[nodiscard]] static std::vector<std::uint16_t> take_all(SplitRing& ring) {
    std::vector<std::uint16_t> heads;
    while (ring.peek() == Peek::kHead) {
      heads.push_back(ring.head());
      ring.take();
    }
    return heads;
  }
  void offer(std::initializer_list<int> heads) {
    for (const int head : heads) driver_.offer(static_cast<std::uint16_t>(head));
    (void)driver_.publish();
  }

  GuestRam ram_{1 << 20, GuestRam::Backing::kShared};
  common::GuestMemory memory_ = ram_.memory();
  GuestDriver driver_{ram_, {.queue_size = kSize}};
  Region* region_ = nullptr;
};

TEST_F(InflightTest, FreshRegionIsLaidOutAsSpecified) {
  SplitRing ring = make(true);
  EXPECT_EQ(ring.begin(), Begin::kFresh);
  EXPECT_EQ(region_->header.version, 1U);
  EXPECT_EQ(region_->header.features, 0U);
  EXPECT_EQ(region_->header.desc_num, kSize);
  EXPECT_EQ(region_->header.used_idx, 0U);
}

TEST_F(InflightTest, FreshRegionLeavesTheIndexToTheFrontEnd) {
  RingStart from_seven = start(true);
  from_seven.next_avail = 7;
  SplitRing ring = SplitRing::create(memory_, from_seven, region()).value();
  (void)ring.begin();
  EXPECT_EQ(ring.next_avail(), 7U);
}

TEST_F(InflightTest, WhatIsTakenIsMarkedWithItsPlaceInTheOrder) {
  SplitRing ring = make(false);
  (void)ring.begin();
  offer({5, 2});
  EXPECT_EQ(take_all(ring).size(), 2U);
  EXPECT_EQ(region_->states[5].in_flight, 1);
  EXPECT_EQ(region_->states[2].in_flight, 1);
  EXPECT_LT(region_->states[5].counter, region_->states[2].counter);
}

TEST_F(InflightTest, WhatIsPublishedIsNotMarkedAnyMore) {
  SplitRing ring = make(false);
  (void)ring.begin();
  offer({5, 2, 3});
  (void)take_all(ring);
  ring.add_used(2, 0);
  ring.add_used(5, 0);
  EXPECT_EQ(region_->states[2].in_flight, 1);
  (void)ring.publish();
  EXPECT_EQ(region_->states[2].in_flight, 0);
  EXPECT_EQ(region_->states[5].in_flight, 0);
  EXPECT_EQ(region_->states[3].in_flight, 1);
  EXPECT_EQ(region_->header.used_idx, 2U);
  EXPECT_EQ(region_->header.last_batch_head, 5U);
  EXPECT_EQ(region_->states[5].next, 2U);
}

TEST_F(InflightTest, TheNextWorkerServesWhatWasInFlightInOrderAndThenWhatIsNew) {
  {
    SplitRing dead = make(false);
    (void)dead.begin();
    offer({5, 2, 7, 0});
    (void)take_all(dead);
    dead.add_used(2, 0);
    (void)dead.publish();
    dead.add_used(7, 0);  // The disk has done it, and the guest does not know.
  }
  offer({1, 6});
  SplitRing ring = make(true);
  EXPECT_EQ(ring.begin(), Begin::kUsed);
  EXPECT_TRUE(ring.has_new());
  EXPECT_EQ(take_all(ring), (std::vector<std::uint16_t>{5, 7, 0, 1, 6}));
  EXPECT_EQ(ring.next_avail(), 6U);
}

TEST_F(InflightTest, ReplaysKeepTheirPlaceIfTheNextWorkerDiesToo) {
  for (int death = 0; death < 5; ++death) {
    SplitRing ring = make(death != 0);
    (void)ring.begin();
    if (death == 0) offer({4, 3, 2, 1});
    EXPECT_EQ(ring.peek(), Peek::kHead);
    ring.take();
  }
  SplitRing last = make(true);
  (void)last.begin();
  EXPECT_EQ(take_all(last), (std::vector<std::uint16_t>{4, 3, 2, 1}));
}

TEST_F(InflightTest, BatchThatTheGuestSawIsNotServedAgain) {
  {
    SplitRing dead = make(false);
    (void)dead.begin();
    offer({5, 2, 7});
    (void)take_all(dead);
    dead.add_used(2, 0);
    dead.add_used(5, 0);
    (void)dead.publish();
  }
  // As if it had died right after the store of used.idx.
  region_->header.used_idx = 0;
  region_->states[2].in_flight = region_->states[5].in_flight = 1;
  SplitRing ring = make(true);
  EXPECT_EQ(ring.begin(), Begin::kUsed);
  EXPECT_EQ(ring.next_avail(), 3U);
  EXPECT_EQ(take_all(ring), (std::vector<std::uint16_t>{7}));
  EXPECT_EQ(region_->header.used_idx, 2U);
  EXPECT_EQ(region_->states[2].in_flight, 0);
}

TEST_F(InflightTest, IndexOfTheFrontEndIsNotBelievedOverTheRegion) {
  {
    SplitRing dead = make(false);
    (void)dead.begin();
    offer({5, 2});
    (void)take_all(dead);
  }
  RingStart wrong = start(true);
  wrong.next_avail = 2;  // Cloud Hypervisor gives avail.idx here.
  SplitRing ring = SplitRing::create(memory_, wrong, region()).value();
  (void)ring.begin();
  EXPECT_EQ(take_all(ring), (std::vector<std::uint16_t>{5, 2}));
}

TEST_F(InflightTest, WithoutResumeWhateverTheRegionSaysIsForgotten) {
  {
    SplitRing dead = make(false);
    (void)dead.begin();
    offer({5, 2});
    (void)take_all(dead);
  }
  SplitRing ring = make(false);
  (void)ring.begin();
  EXPECT_EQ(region_->states[5].in_flight, 0);
  EXPECT_FALSE(ring.replaying());
  EXPECT_EQ(ring.next_avail(), 0U);
}

// The session takes it for done as soon as the worker says that it serves.
TEST_F(InflightTest, ForgettingIsDoneBeforeTheRingIsTouched) {
  {
    SplitRing dead = make(false);
    (void)dead.begin();
    offer({5, 2});
    (void)take_all(dead);
  }
  { const SplitRing killed_at_once = make(false); }
  RingStart from_seven = start(true);
  from_seven.next_avail = 7;
  SplitRing ring = SplitRing::create(memory_, from_seven, region()).value();
  (void)ring.begin();
  EXPECT_FALSE(ring.replaying());
  EXPECT_EQ(ring.next_avail(), 7U);
}

TEST_F(InflightTest, RingThatWasMadeAnewGoesWithARegionThatHasNothingInFlight) {
  SplitRing old = make(false);
  (void)old.begin();
  offer({5, 2});
  (void)take_all(old);
  old.add_used(5, 0);
  old.add_used(2, 0);
  (void)old.publish();
  driver_.store_used_idx(0);
  driver_.store_avail_idx(0);
  SplitRing ring = make(true);
  EXPECT_NE(ring.begin(), Begin::kFault);
  EXPECT_EQ(ring.next_avail(), 0U);
  EXPECT_EQ(region_->header.used_idx, 0U);
}

TEST_F(InflightTest, SmallerRingThanTheRegionHasRoomForIsServed) {
  const GuestDriver::Options smaller{.queue_size = kSize / 2};
  GuestDriver driver(ram_, smaller);
  RingStart begin = driver.ring_start(0);
  begin.inflight_entries = kSize;
  begin.inflight_resume = 1;
  SplitRing ring = SplitRing::create(memory_, begin, region()).value();
  EXPECT_EQ(ring.begin(), Begin::kFresh);
  EXPECT_EQ(region_->header.desc_num, kSize);
}

TEST_F(InflightTest, RegionThatIsTooSmallForTheRingIsRefused) {
  RingStart small = start(true);
  small.inflight_entries = kSize / 2;
  EXPECT_FALSE(SplitRing::create(memory_, small, region()));
  EXPECT_FALSE(SplitRing::create(memory_, start(true), region().first(sizeof(Region) - 1)));
}

// --- hostile regions --------------------------------------------------------------------------

class HostileRegion : public InflightTest {
 protected:
  // Two are in flight, and a batch of two others is answered.
  HostileRegion() {
    SplitRing dead = make(false);
    (void)dead.begin();
    offer({5, 2, 7, 0});
    (void)take_all(dead);
    dead.add_used(5, 0);
    dead.add_used(2, 0);
    (void)dead.publish();
  }
};

TEST_F(HostileRegion, UnharmedIsAccepted) { EXPECT_EQ(fault_of_begin(), WorkerFault::kNone); }

TEST_F(HostileRegion, UnknownVersionIsRefused) {
  region_->header.version = 2;
  EXPECT_EQ(fault_of_begin(), WorkerFault::kInflightBroken);
}
TEST_F(HostileRegion, UnknownFeaturesAreRefused) {
  region_->header.features = 1;
  EXPECT_EQ(fault_of_begin(), WorkerFault::kInflightBroken);
}
TEST_F(HostileRegion, OtherNumberOfEntriesIsRefused) {
  region_->header.desc_num = kSize * 2;
  EXPECT_EQ(fault_of_begin(), WorkerFault::kInflightBroken);
}
TEST_F(HostileRegion, FlagThatIsNoneIsRefused) {
  region_->states[3].in_flight = 2;
  EXPECT_EQ(fault_of_begin(), WorkerFault::kInflightBroken);
}
TEST_F(HostileRegion, LargerBatchThanTheRingIsRefused) {
  region_->header.used_idx = static_cast<std::uint16_t>(2 - (kSize + 1));
  EXPECT_EQ(fault_of_begin(), WorkerFault::kInflightBroken);
}
TEST_F(HostileRegion, BatchListThatLeavesTheTableIsRefused) {
  region_->header.used_idx = 0;
  region_->header.last_batch_head = kSize;
  EXPECT_EQ(fault_of_begin(), WorkerFault::kInflightBroken);
}
TEST_F(HostileRegion, BatchListWhoseLinkLeavesTheTableIsRefused) {
  region_->header.used_idx = 0;
  region_->states[2].next = 0xffff;
  EXPECT_EQ(fault_of_begin(), WorkerFault::kInflightBroken);
}
TEST_F(HostileRegion, BatchListThatLoopsIsRefused) {
  region_->header.used_idx = 0;
  region_->states[2].next = 2;
  EXPECT_EQ(fault_of_begin(), WorkerFault::kInflightBroken);
}
TEST_F(HostileRegion, HeadInFlightBeyondASmallerRingIsRefused) {
  RingStart small = start(true);
  small.queue_size = kSize / 2;
  SplitRing ring = SplitRing::create(memory_, small, region()).value();
  EXPECT_EQ(ring.begin(), Begin::kFault);
  EXPECT_EQ(ring.fault().code, WorkerFault::kInflightBroken);
}
TEST_F(HostileRegion, CountersThatAreEqualOrWrapOnlyChangeTheOrder) {
  region_->states[7].counter = region_->states[0].counter = UINT64_MAX;
  SplitRing ring = make(true);
  EXPECT_EQ(ring.begin(), Begin::kUsed);
  std::vector<std::uint16_t> heads = take_all(ring);
  std::ranges::sort(heads);
  EXPECT_EQ(heads, (std::vector<std::uint16_t>{0, 7}));
}
TEST_F(HostileRegion, EveryHeadInFlightAtOnceIsServedOnceEach) {
  for (DescState& state : region_->states) state.in_flight = 1;
  SplitRing ring = make(true);
  EXPECT_EQ(ring.begin(), Begin::kUsed);
  EXPECT_EQ(take_all(ring).size(), std::size_t{kSize});
}

// --- death at every instruction ---------------------------------------------------------------

// A worker that serves its whole ring twice over, in batches and out of order, one instruction at a
// time. The next worker must be able to go on from wherever it stands.
class DeathAnywhere : public InflightTest {
 protected:
  static constexpr std::array<std::uint16_t, kSize> kOffered = {5, 2, 7, 0, 1, 6, 3, 4};

  [[noreturn]] void serve() {
    (void)::ptrace(PTRACE_TRACEME, 0, nullptr, nullptr);
    SplitRing ring = make(false);
    (void)ring.begin();
    (void)::raise(SIGSTOP);
    for (const int batch : {1, 3, 2, 2}) {
      std::array<std::uint16_t, kSize> taken{};
      for (int i = 0; i < batch && ring.peek() == Peek::kHead; ++i) {
        taken[static_cast<std::size_t>(i)] = ring.head();
        ring.take();
      }
      for (int i = batch - 1; i >= 0; --i) ring.add_used(taken[static_cast<std::size_t>(i)], 0);
      (void)ring.publish();
    }
    ::_exit(0);
  }

  // In flight and answered together are what was offered first, each once.
  void expect_next_worker_can_go_on() {
    const auto used_bytes = ram_.bytes(driver_.used_addr(), common::used_bytes(kSize, true));
    const std::vector<std::byte> used_before(used_bytes.begin(), used_bytes.end());
    const Region region_before = *region_;
    SplitRing next = make(true);
    ASSERT_NE(next.begin(), Begin::kFault);
    std::multiset<std::uint16_t> served;
    for (std::uint16_t i = 0; i < driver_.used_idx(); ++i) {
      served.insert(static_cast<std::uint16_t>(
          ram_.get<common::WireUsedElem>({driver_.used_addr().value + 4 + i * 8ULL}).id.get()));
    }
    while (next.replaying()) {
      (void)next.peek();
      served.insert(next.head());
      next.take();
    }
    ASSERT_EQ(served.size(), next.next_avail());
    EXPECT_EQ(served,
              std::multiset<std::uint16_t>(kOffered.begin(), kOffered.begin() + next.next_avail()));
    std::ranges::copy(used_before, used_bytes.begin());
    *region_ = region_before;
  }
};

TEST_F(DeathAnywhere, LosesAndRepeatsNothing) {
  for (const std::uint16_t head : kOffered) driver_.offer(head);
  (void)driver_.publish();
  const pid_t child = ::fork();
  if (child == 0) serve();
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  std::vector<std::byte> seen;
  std::uint64_t steps = 0;
  std::uint64_t states = 0;
  while (WIFSTOPPED(status)) {
    const auto used = ram_.bytes(driver_.used_addr(), common::used_bytes(kSize, true));
    std::vector<std::byte> now(used.begin(), used.end());
    now.insert(now.end(), region().begin(), region().end());
    if (now != seen) {
      seen = now;
      ++states;
      expect_next_worker_can_go_on();
    }
    if (HasFatalFailure() || HasNonfatalFailure()) break;
    ASSERT_EQ(::ptrace(PTRACE_SINGLESTEP, child, nullptr, nullptr), 0);
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    ++steps;
  }
  if (!WIFEXITED(status)) (void)::kill(child, SIGKILL);
  EXPECT_TRUE(WIFEXITED(status));
  EXPECT_EQ(driver_.used_idx(), kSize);
  EXPECT_GT(states, 40U) << steps << " instructions";
}

}  // namespace
