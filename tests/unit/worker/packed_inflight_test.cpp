// The in-flight region of a packed ring: what it says after a death at any instruction, and what is
// refused of it. Long because each field that a front-end can spoil has its own test.
#include "worker/packed_inflight.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cstring>
#include <functional>
#include <initializer_list>
#include <optional>
#include <set>
#include <vector>

namespace {

using common::GuestWindow;
using common::Le16;
using common::Le32;
using common::Le64;
using common::PackedBase;
using common::PackedPlace;
using common::WirePackedDesc;
using common::inflight::PackedDescState;
using common::inflight::PackedHeader;
using common::ipc::WorkerFault;
using worker::PackedInflight;

constexpr std::uint16_t kSize = 8;
constexpr std::uint16_t kEntries = 10;
using Ids = std::initializer_list<std::uint16_t>;

PackedPlace ahead(PackedPlace place, std::uint32_t count) {
  const std::uint32_t index = place.index + count;
  if (index < kSize) return {static_cast<std::uint16_t>(index), place.wrap};
  return {static_cast<std::uint16_t>(index - kSize), !place.wrap};
}

// Buffer ids are the chains' numbers; a chain's length is its driver's secret.
constexpr std::array<std::uint16_t, 5> kLengths = {1, 3, 2, 1, 1};

// A packed ring and a region that outlive whoever serves them, with a driver that offers chains of
// kLengths, and just enough of a device to show answers.
class PackedInflightTest : public testing::Test {
 protected:
  struct Shared {
    std::array<WirePackedDesc, kSize> ring;
    PackedHeader header;
    std::array<PackedDescState, kEntries> states;
  };

  PackedInflightTest() {
    void* const memory =
        ::mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    EXPECT_NE(memory, MAP_FAILED);
    shared_ = static_cast<Shared*>(memory);
  }
  ~PackedInflightTest() override { ::munmap(shared_, sizeof(Shared)); }

  [[nodiscard]] GuestWindow ring() {
    return {reinterpret_cast<std::byte*>(shared_->ring.data()), sizeof(shared_->ring)};
  }
  [[nodiscard]] std::span<std::byte> region() {
    return std::as_writable_bytes(std::span(shared_, 1)).subspan(sizeof(Shared::ring));
  }
  [[nodiscard]] PackedInflight make(bool resume) { return {region(), kEntries, kSize, resume}; }
  [[nodiscard]] WorkerFault fault_of_begin() {
    const auto begun = make(true).begin(ring(), {start_, start_});
    return begun ? WorkerFault::kNone : begun.error().code;
  }

  void offer(std::uint16_t id) {
    for (std::uint16_t left = kLengths[id]; left > 0; --left) {
      std::uint16_t flags = offered_.wrap ? common::kPackedAvail : common::kPackedUsed;
      if (left > 1) flags |= common::kDescNext;
      shared_->ring[offered_.index] = {Le64(id * 100U + left), Le32(left), Le16(id), Le16(flags)};
      offered_ = ahead(offered_, 1);
    }
  }
  // A device's next chain, whose length it would find by the flags.
  [[nodiscard]] std::uint16_t take(PackedInflight& inflight, std::uint16_t id) {
    std::vector<WirePackedDesc> chain;
    for (std::uint16_t i = 0; i < kLengths[id]; ++i) {
      chain.push_back(shared_->ring[taken_.index]);
      taken_ = ahead(taken_, 1);
    }
    return inflight.take(chain);
  }
  void answer(PackedInflight& inflight, std::uint16_t entry, std::uint16_t id) {
    batch_.push_back(id);
    inflight.answer(entry);
  }
  void write_used(PackedPlace place, std::uint16_t id) {
    const std::uint16_t flags = place.wrap ? common::kPackedAvail | common::kPackedUsed : 0;
    shared_->ring[place.index].id = Le16(id);
    __atomic_signal_fence(__ATOMIC_SEQ_CST);
    shared_->ring[place.index].flags = Le16(flags);
  }
  // All but the first, then the first: that is what the driver looks at.
  void show() {
    PackedPlace place = ahead(used_, kLengths[batch_.front()]);
    for (std::size_t i = 1; i < batch_.size(); ++i) {
      write_used(place, batch_[i]);
      place = ahead(place, kLengths[batch_[i]]);
    }
    write_used(used_, batch_.front());
    used_ = place;
    batch_.clear();
  }
  void publish(PackedInflight& inflight) {
    inflight.before_publish();
    show();
    inflight.after_publish();
  }
  [[nodiscard]] std::vector<std::uint16_t> driver_sees() const {
    std::vector<std::uint16_t> ids;
    PackedPlace place = start_;
    while (ids.size() < kLengths.size()) {
      const WirePackedDesc& desc = shared_->ring[place.index];
      const std::uint16_t flags = desc.flags.get();
      if (((flags & common::kPackedAvail) != 0) != place.wrap ||
          ((flags & common::kPackedUsed) != 0) != place.wrap) {
        break;
      }
      ids.push_back(desc.id.get());
      place = ahead(place, kLengths[desc.id.get()]);
    }
    return ids;
  }
  [[nodiscard]] static std::vector<std::uint16_t> replay_all(PackedInflight& inflight) {
    std::vector<std::uint16_t> ids;
    for (; inflight.replays_left() != 0; inflight.replayed()) {
      ids.push_back(inflight.replay().descriptors.back().id.get());
    }
    return ids;
  }

  Shared* shared_ = nullptr;
  // Near the end of the ring, so that a chain and a batch cross it.
  PackedPlace start_{5, true};
  PackedPlace offered_ = start_;
  PackedPlace taken_ = start_;
  PackedPlace used_ = start_;
  std::vector<std::uint16_t> batch_;
};

TEST_F(PackedInflightTest, FreshRegionIsLaidOutAsSpecified) {
  PackedInflight inflight = make(true);
  EXPECT_EQ(inflight.begin(ring(), {start_, start_}), false);
  EXPECT_EQ(shared_->header.heads.version, 1U);
  EXPECT_EQ(shared_->header.features, 0U);
  EXPECT_EQ(shared_->header.heads.desc_num, kEntries);
  EXPECT_EQ(shared_->header.heads.free_head, 0U);
  EXPECT_EQ(shared_->header.heads.old_free_head, 0U);
  EXPECT_EQ(shared_->header.used.used_idx, 5U);
  EXPECT_EQ(shared_->header.used.old_used_idx, 5U);
  EXPECT_EQ(shared_->header.used.used_wrap_counter, 1U);
  EXPECT_EQ(shared_->header.used.old_used_wrap_counter, 1U);
  EXPECT_EQ(shared_->states[0].next, 1U);
  EXPECT_EQ(shared_->states[kEntries - 1].next, kEntries);
}

TEST_F(PackedInflightTest, FreshRegionLeavesThePlaceToTheFrontEnd) {
  PackedInflight inflight = make(true);
  const PackedBase base{{3, false}, {1, false}};
  EXPECT_EQ(inflight.begin(ring(), base), false);
  EXPECT_EQ(inflight.base(), base);
}

TEST_F(PackedInflightTest, WithoutARegionNothingIsKept) {
  PackedInflight inflight(std::span<std::byte>(), kSize, kSize, false);
  EXPECT_EQ(inflight.begin(ring(), {}), false);
  offer(0);
  inflight.answer(take(inflight, 0));
  inflight.before_publish();
  inflight.after_publish();
  EXPECT_EQ(inflight.replays_left(), 0U);
}

TEST_F(PackedInflightTest, WhatIsTakenIsWrittenDownDescriptorByDescriptor) {
  PackedInflight inflight = make(false);
  (void)inflight.begin(ring(), {start_, start_});
  offer(0);
  offer(1);
  EXPECT_EQ(take(inflight, 0), 0U);
  EXPECT_EQ(take(inflight, 1), 1U);
  const PackedDescState& head = shared_->states[1];
  EXPECT_EQ(head.in_flight, 1U);
  EXPECT_EQ(head.num, 3U);
  EXPECT_EQ(head.last, 3U);
  EXPECT_EQ(head.next, 2U);
  EXPECT_EQ(head.counter, shared_->states[0].counter + 1);
  EXPECT_EQ(head.id, 1U);
  EXPECT_EQ(head.addr, 103U);
  EXPECT_EQ(head.len, 3U);
  EXPECT_EQ(head.flags, common::kPackedAvail | common::kDescNext);
  EXPECT_EQ(shared_->states[2].addr, 102U);
  EXPECT_EQ(shared_->header.heads.free_head, 4U);
  EXPECT_EQ(shared_->header.heads.old_free_head, 4U);
}

TEST_F(PackedInflightTest, WhatIsPublishedIsFreeAgain) {
  PackedInflight inflight = make(false);
  (void)inflight.begin(ring(), {start_, start_});
  for (const std::uint16_t id : Ids{0, 1, 2}) offer(id);
  (void)take(inflight, 0);
  const std::uint16_t entry = take(inflight, 1);
  const std::uint16_t third = take(inflight, 2);
  answer(inflight, third, 2);
  answer(inflight, entry, 1);
  EXPECT_EQ(shared_->states[entry].in_flight, 1U);
  publish(inflight);
  EXPECT_EQ(shared_->states[entry].in_flight, 0U);
  EXPECT_EQ(shared_->states[third].in_flight, 0U);
  EXPECT_EQ(shared_->states[0].in_flight, 1U);
  // Five descriptors on from the sixth place of eight.
  EXPECT_EQ(shared_->header.used.used_idx, 2U);
  EXPECT_EQ(shared_->header.used.old_used_idx, 2U);
  EXPECT_EQ(shared_->header.used.used_wrap_counter, 0U);
  EXPECT_EQ(shared_->header.used.old_used_wrap_counter, 0U);
  EXPECT_EQ(shared_->header.heads.free_head, entry);
  EXPECT_EQ(shared_->header.heads.old_free_head, entry);
  EXPECT_EQ(shared_->states[3].next, third);
}

TEST_F(PackedInflightTest, TheNextWorkerServesWhatWasInFlightInOrder) {
  PackedInflight dead = make(false);
  (void)dead.begin(ring(), {start_, start_});
  for (const std::uint16_t id : Ids{0, 1, 2, 3}) offer(id);
  std::array<std::uint16_t, 4> entries{};
  for (const std::uint16_t id : Ids{0, 1, 2, 3}) entries[id] = take(dead, id);
  answer(dead, entries[1], 1);
  publish(dead);
  dead.answer(entries[3]);  // The disk has done it, and the guest does not know.

  PackedInflight next = make(true);
  EXPECT_EQ(next.begin(ring(), {}), true);
  EXPECT_EQ(next.base(), (PackedBase{ahead(start_, 7), ahead(start_, 3)}));
  EXPECT_EQ(next.replay().descriptors.size(), 1U);
  EXPECT_EQ(next.replay().entry, entries[0]);
  EXPECT_EQ(next.replay().descriptors[0].addr.get(), 1U);
  EXPECT_EQ(replay_all(next), (std::vector<std::uint16_t>{0, 2, 3}));
}

TEST_F(PackedInflightTest, ReplaysAreAnsweredAndTheirEntriesUsedAgain) {
  {
    PackedInflight dead = make(false);
    (void)dead.begin(ring(), {start_, start_});
    for (const std::uint16_t id : Ids{0, 1, 2}) offer(id);
    for (const std::uint16_t id : Ids{0, 1, 2}) (void)take(dead, id);
  }
  PackedInflight next = make(true);
  EXPECT_EQ(next.begin(ring(), {}), true);
  for (; next.replays_left() != 0; next.replayed()) {
    answer(next, next.replay().entry, next.replay().descriptors.back().id.get());
  }
  publish(next);
  PackedInflight last = make(true);
  EXPECT_EQ(last.begin(ring(), {}), true);
  EXPECT_EQ(last.replays_left(), 0U);
  EXPECT_EQ(last.base(), (PackedBase{ahead(start_, 6), ahead(start_, 6)}));
}

TEST_F(PackedInflightTest, ReplaysKeepTheirPlaceIfTheNextWorkerDiesToo) {
  for (int death = 0; death < 4; ++death) {
    PackedInflight dead = make(death != 0);
    (void)dead.begin(ring(), {start_, start_});
    if (death == 0) {
      offer(2);
      offer(1);
      (void)take(dead, 2);
      (void)take(dead, 1);
    }
  }
  PackedInflight last = make(true);
  (void)last.begin(ring(), {});
  EXPECT_EQ(replay_all(last), (std::vector<std::uint16_t>{2, 1}));
}

// "Back-end has submitted the buffer to guest driver before crash."
TEST_F(PackedInflightTest, BatchThatTheGuestSawIsNotServedAgain) {
  PackedInflight dead = make(false);
  (void)dead.begin(ring(), {start_, start_});
  for (const std::uint16_t id : Ids{0, 1, 2}) offer(id);
  const std::uint16_t first = take(dead, 0);
  const std::uint16_t second = take(dead, 1);
  (void)take(dead, 2);
  answer(dead, second, 1);
  answer(dead, first, 0);
  dead.before_publish();
  show();

  PackedInflight next = make(true);
  EXPECT_EQ(next.begin(ring(), {}), true);
  EXPECT_EQ(next.base(), (PackedBase{ahead(start_, 6), ahead(start_, 4)}));
  EXPECT_EQ(replay_all(next), std::vector<std::uint16_t>{2});
  EXPECT_EQ(shared_->states[first].in_flight, 0U);
  EXPECT_EQ(shared_->header.used.old_used_idx, shared_->header.used.used_idx);
}

// The driver may be quicker than the death: its next chain lies where the batch was.
TEST_F(PackedInflightTest, BatchWhosePlaceTheGuestHasUsedAgainWasShown) {
  PackedInflight dead = make(false);
  (void)dead.begin(ring(), {start_, start_});
  for (const std::uint16_t id : Ids{0, 1, 2, 3, 4}) offer(id);
  const std::uint16_t first = take(dead, 0);
  answer(dead, first, 0);
  dead.before_publish();
  show();
  offer(0);

  PackedInflight next = make(true);
  EXPECT_EQ(next.begin(ring(), {}), true);
  EXPECT_EQ(next.base(), (PackedBase{ahead(start_, 1), ahead(start_, 1)}));
  EXPECT_EQ(next.replays_left(), 0U);
}

// "Roll back any in-progress update."
TEST_F(PackedInflightTest, BatchThatTheGuestDidNotSeeIsServedAgain) {
  PackedInflight dead = make(false);
  (void)dead.begin(ring(), {start_, start_});
  for (const std::uint16_t id : Ids{0, 1, 2}) offer(id);
  const std::uint16_t first = take(dead, 0);
  const std::uint16_t second = take(dead, 1);
  answer(dead, second, 1);
  answer(dead, first, 0);
  dead.before_publish();

  PackedInflight next = make(true);
  EXPECT_EQ(next.begin(ring(), {}), true);
  EXPECT_EQ(next.base(), (PackedBase{ahead(start_, 4), start_}));
  EXPECT_EQ(replay_all(next), (std::vector<std::uint16_t>{0, 1}));
  EXPECT_EQ(shared_->header.heads.free_head, shared_->header.heads.old_free_head);
  EXPECT_EQ(shared_->header.used.used_idx, 5U);
}

// Then used_idx equals old_used_idx, and the wrap counter alone tells.
TEST_F(PackedInflightTest, BatchOfTheWholeRingIsToldFromNone) {
  PackedInflight dead = make(false);
  (void)dead.begin(ring(), {start_, start_});
  std::array<std::uint16_t, kLengths.size()> entries{};
  for (std::uint16_t id = 0; id < kLengths.size(); ++id) offer(id);
  for (std::uint16_t id = 0; id < kLengths.size(); ++id) entries[id] = take(dead, id);
  for (std::uint16_t id = 0; id < kLengths.size(); ++id) answer(dead, entries[id], id);
  dead.before_publish();
  show();

  PackedInflight next = make(true);
  EXPECT_EQ(next.begin(ring(), {}), true);
  EXPECT_EQ(next.replays_left(), 0U);
  EXPECT_EQ(next.base(), (PackedBase{{5, false}, {5, false}}));
}

TEST_F(PackedInflightTest, ChainThatWasAboutToBeTakenIsNotInFlight) {
  PackedInflight dead = make(false);
  (void)dead.begin(ring(), {start_, start_});
  offer(1);
  (void)take(dead, 1);
  // As if it had died right before the one store that makes it taken.
  shared_->header.heads.free_head = shared_->header.heads.old_free_head = 0;
  PackedInflight next = make(true);
  EXPECT_EQ(next.begin(ring(), {}), true);
  EXPECT_EQ(next.replays_left(), 0U);
  EXPECT_EQ(next.base(), (PackedBase{start_, start_}));
  EXPECT_EQ(shared_->states[0].in_flight, 0U);
}

TEST_F(PackedInflightTest, WithoutResumeWhateverTheRegionSaysIsForgottenAtOnce) {
  {
    PackedInflight dead = make(false);
    (void)dead.begin(ring(), {start_, start_});
    offer(1);
    (void)take(dead, 1);
  }
  { const PackedInflight killed_at_once = make(false); }
  PackedInflight next = make(true);
  EXPECT_EQ(next.begin(ring(), {start_, start_}), false);
  EXPECT_EQ(next.replays_left(), 0U);
  EXPECT_EQ(next.base(), (PackedBase{start_, start_}));
}

// Another back-end may have linked only as many entries as its ring had.
TEST_F(PackedInflightTest, EntriesThatNobodyLinkedAreFound) {
  {
    PackedInflight dead = make(false);
    (void)dead.begin(ring(), {start_, start_});
  }
  shared_->states[2].next = 0xffff;
  PackedInflight next = make(true);
  EXPECT_EQ(next.begin(ring(), {}), true);
  std::set<std::uint16_t> entries;
  for (const std::uint16_t id : Ids{0, 3, 4, 0, 3, 4, 0, 3}) entries.insert(take(next, id));
  EXPECT_EQ(entries.size(), 8U);
}

TEST_F(PackedInflightTest, RegionWithoutAnyFreeEntryGetsThemBack) {
  {
    PackedInflight dead = make(false);
    (void)dead.begin(ring(), {start_, start_});
  }
  shared_->header.heads.free_head = shared_->header.heads.old_free_head = kEntries;
  PackedInflight next = make(true);
  EXPECT_EQ(next.begin(ring(), {}), true);
  offer(1);
  EXPECT_EQ(take(next, 1), 0U);
  EXPECT_EQ(shared_->header.heads.free_head, 3U);
}

// --- hostile regions --------------------------------------------------------------------------

// Two chains are in flight, entries 0 and 4..5, and one of entries 1..3 is answered.
class HostilePackedRegion : public PackedInflightTest {
 protected:
  HostilePackedRegion() {
    PackedInflight dead = make(false);
    (void)dead.begin(ring(), {start_, start_});
    for (const std::uint16_t id : Ids{0, 1, 2}) offer(id);
    (void)take(dead, 0);
    const std::uint16_t second = take(dead, 1);
    (void)take(dead, 2);
    answer(dead, second, 1);
    publish(dead);
  }
  void expect_refused() { EXPECT_EQ(fault_of_begin(), WorkerFault::kInflightBroken); }
};

TEST_F(HostilePackedRegion, UnharmedIsAccepted) { EXPECT_EQ(fault_of_begin(), WorkerFault::kNone); }

TEST_F(HostilePackedRegion, UnknownVersionIsRefused) {
  shared_->header.heads.version = 2;
  expect_refused();
}
TEST_F(HostilePackedRegion, UnknownFeaturesAreRefused) {
  shared_->header.features = 1;
  expect_refused();
}
TEST_F(HostilePackedRegion, OtherNumberOfEntriesIsRefused) {
  shared_->header.heads.desc_num = kEntries - 1;
  expect_refused();
}
TEST_F(HostilePackedRegion, UsedIndexOutsideTheRingIsRefused) {
  shared_->header.used.used_idx = kSize;
  expect_refused();
}
TEST_F(HostilePackedRegion, OldUsedIndexOutsideTheRingIsRefused) {
  shared_->header.used.old_used_idx = 0xffff;
  expect_refused();
}
TEST_F(HostilePackedRegion, WrapCounterThatIsNoneIsRefused) {
  shared_->header.used.used_wrap_counter = 2;
  expect_refused();
}
TEST_F(HostilePackedRegion, OldWrapCounterThatIsNoneIsRefused) {
  shared_->header.used.old_used_wrap_counter = 0xff;
  expect_refused();
}
TEST_F(HostilePackedRegion, FlagThatIsNoneIsRefused) {
  shared_->states[4].in_flight = 2;
  expect_refused();
}
TEST_F(HostilePackedRegion, FreeListThatLoopsIsRefused) {
  shared_->states[6].next = 6;
  expect_refused();
}
TEST_F(HostilePackedRegion, FreeListThatLeavesTheEntriesEndsThere) {
  shared_->states[6].next = 0xffff;
  EXPECT_EQ(fault_of_begin(), WorkerFault::kNone);
}
TEST_F(HostilePackedRegion, FreeListWithTheMiddleOfAChainIsRefused) {
  shared_->states[6].next = 5;
  expect_refused();
}
TEST_F(HostilePackedRegion, FreeListThatGoesOnIntoAChainIsRefused) {
  shared_->states[6].next = 0;
  // Entry 0 leads on to the answered chain's entries, which are in the list already.
  EXPECT_EQ(fault_of_begin(), WorkerFault::kInflightBroken);
}
TEST_F(HostilePackedRegion, ChainOfNothingIsRefused) {
  shared_->states[4].num = 0;
  expect_refused();
}
TEST_F(HostilePackedRegion, ChainLongerThanItsListIsRefused) {
  shared_->states[4].num = 3;
  expect_refused();
}
TEST_F(HostilePackedRegion, ChainShorterThanItsListIsRefused) {
  shared_->states[4].num = 1;
  expect_refused();
}
TEST_F(HostilePackedRegion, ChainLongerThanTheRingIsRefused) {
  shared_->states[4].num = 0xffff;
  expect_refused();
}
TEST_F(HostilePackedRegion, ChainThatLoopsIsRefused) {
  shared_->states[4].next = 4;
  expect_refused();
}
TEST_F(HostilePackedRegion, ChainThatLeavesTheEntriesIsRefused) {
  shared_->states[4].next = kEntries;
  expect_refused();
}
TEST_F(HostilePackedRegion, ChainThatEndsElsewhereThanItSaysIsRefused) {
  shared_->states[4].last = 7;
  expect_refused();
}
TEST_F(HostilePackedRegion, EntryOfTwoChainsIsRefused) {
  shared_->states[4].next = 0;
  expect_refused();
}
TEST_F(HostilePackedRegion, HeadInsideAnotherChainIsRefused) {
  shared_->states[5].in_flight = 1;
  expect_refused();
}
TEST_F(HostilePackedRegion, MoreInFlightThanTheRingHoldsIsRefused) {
  // Every entry is a chain of its own, and the ring has fewer than there are entries.
  shared_->header.heads.free_head = shared_->header.heads.old_free_head = kEntries;
  for (std::uint16_t entry = 0; entry < kEntries; ++entry) {
    PackedDescState& state = shared_->states[entry];
    state.in_flight = 1;
    state.num = 1;
    state.last = entry;
    state.flags = 0;
  }
  expect_refused();
}
TEST_F(HostilePackedRegion, CountersThatAreEqualOrWrapOnlyChangeTheOrder) {
  shared_->states[0].counter = shared_->states[4].counter = UINT64_MAX;
  PackedInflight next = make(true);
  EXPECT_EQ(next.begin(ring(), {}), true);
  EXPECT_EQ(replay_all(next).size(), 2U);
  EXPECT_EQ(take(next, 0), 1U);
  EXPECT_EQ(shared_->states[1].counter, 0U);
}
// Two chains that name one buffer: the driver's business, who gets both answers.
TEST_F(HostilePackedRegion, BufferIdThatComesTwiceIsReplayedTwice) {
  shared_->states[0].id = shared_->states[5].id;
  PackedInflight next = make(true);
  EXPECT_EQ(next.begin(ring(), {}), true);
  EXPECT_EQ(replay_all(next), (std::vector<std::uint16_t>{2, 2}));
}
// What a worker read at the start is what counts, whatever is written later.
TEST_F(HostilePackedRegion, ChangesAfterTheStartAreNotSeen) {
  PackedInflight next = make(true);
  EXPECT_EQ(next.begin(ring(), {}), true);
  const std::span<std::byte> all = region();
  std::memset(all.data(), 0xff, all.size());
  EXPECT_EQ(next.replay().descriptors[0].id.get(), 0U);
  for (; next.replays_left() != 0; next.replayed()) {
    answer(next, next.replay().entry, next.replay().descriptors.back().id.get());
  }
  publish(next);
  EXPECT_EQ(next.base().used, ahead(start_, 3));
}

// A region of a split ring, in use: one request in flight and one answered.
TEST_F(PackedInflightTest, RegionOfASplitRingIsRefused) {
  struct Split {
    common::inflight::Header header;
    std::array<common::inflight::DescState, kEntries> states;
  };
  Split split{};
  split.header = {0, common::inflight::kVersion, kEntries, 3, 7};
  split.states[3] = {0, {}, 2, 8};
  split.states[5] = {1, {}, 0, 9};
  std::memcpy(region().data(), &split, sizeof(split));
  EXPECT_EQ(fault_of_begin(), WorkerFault::kInflightBroken);
}

// --- death at every instruction ---------------------------------------------------------------

// A worker that serves the ring once round, in batches and out of order, one instruction at a time.
// The next worker must be able to go on from wherever it stands.
class PackedDeathAnywhere : public PackedInflightTest {
 protected:
  [[noreturn]] void serve() {
    (void)::ptrace(PTRACE_TRACEME, 0, nullptr, nullptr);
    PackedInflight inflight = make(false);
    (void)inflight.begin(ring(), {start_, start_});
    (void)::raise(SIGSTOP);
    std::array<std::uint16_t, kLengths.size()> entries{};
    for (const std::uint16_t id : Ids{0, 1, 2}) entries[id] = take(inflight, id);
    answer(inflight, entries[1], 1);
    entries[3] = take(inflight, 3);
    publish(inflight);
    answer(inflight, entries[3], 3);
    answer(inflight, entries[0], 0);
    publish(inflight);
    entries[4] = take(inflight, 4);
    answer(inflight, entries[4], 4);
    answer(inflight, entries[2], 2);
    publish(inflight);
    ::_exit(0);
  }
  // Recovers from where a worker before it died.
  [[noreturn]] void recover() {
    (void)::ptrace(PTRACE_TRACEME, 0, nullptr, nullptr);
    PackedInflight inflight = make(true);
    (void)::raise(SIGSTOP);
    (void)inflight.begin(ring(), {});
    ::_exit(0);
  }

  // In flight and answered together are what was offered first, each once.
  void expect_next_worker_can_go_on() {
    const Shared before = *shared_;
    PackedInflight next = make(true);
    const auto begun = next.begin(ring(), {start_, start_});
    ASSERT_TRUE(begun);
    const PackedBase base = next.base();
    const std::vector<std::uint16_t> seen = driver_sees();
    std::multiset<std::uint16_t> served(seen.begin(), seen.end());
    std::uint32_t used = 0;
    for (const std::uint16_t id : seen) used += kLengths[id];
    const std::vector<std::uint16_t> replayed = replay_all(next);
    EXPECT_TRUE(std::is_sorted(replayed.begin(), replayed.end()));
    served.insert(replayed.begin(), replayed.end());
    std::multiset<std::uint16_t> first;
    std::uint32_t taken = 0;
    for (std::uint16_t id = 0; id < served.size(); ++id) {
      first.insert(id);
      taken += kLengths[id];
    }
    EXPECT_EQ(served, first);
    EXPECT_EQ(base.used, ahead(start_, used));
    EXPECT_EQ(base.avail, ahead(start_, taken));
    *shared_ = before;
  }

  // How many states of the memory there were on the way.
  [[nodiscard]] std::uint32_t step_through(const std::function<void()>& child_does) {
    const pid_t child = ::fork();
    if (child == 0) child_does();
    int status = 0;
    EXPECT_EQ(::waitpid(child, &status, 0), child);
    Shared seen{};
    std::uint32_t states = 0;
    while (WIFSTOPPED(status)) {
      if (std::memcmp(&seen, shared_, sizeof(seen)) != 0) {
        seen = *shared_;
        ++states;
        expect_next_worker_can_go_on();
      }
      if (HasFailure()) break;
      EXPECT_EQ(::ptrace(PTRACE_SINGLESTEP, child, nullptr, nullptr), 0);
      EXPECT_EQ(::waitpid(child, &status, 0), child);
    }
    if (!WIFEXITED(status)) (void)::kill(child, SIGKILL);
    EXPECT_TRUE(WIFEXITED(status));
    return states;
  }
};

TEST_F(PackedDeathAnywhere, LosesAndRepeatsNothing) {
  for (std::uint16_t id = 0; id < kLengths.size(); ++id) offer(id);
  EXPECT_GT(step_through([this] { serve(); }), 60U);
  EXPECT_EQ(driver_sees(), (std::vector<std::uint16_t>{1, 3, 0, 4, 2}));
}

TEST_F(PackedDeathAnywhere, LosesNothingWhileItRecoversFromAnother) {
  PackedInflight dead = make(false);
  (void)dead.begin(ring(), {start_, start_});
  for (const std::uint16_t id : Ids{0, 1, 2, 3}) offer(id);
  std::array<std::uint16_t, 4> entries{};
  for (const std::uint16_t id : Ids{0, 1, 2, 3}) entries[id] = take(dead, id);
  answer(dead, entries[2], 2);
  answer(dead, entries[0], 0);
  dead.before_publish();
  show();
  shared_->states[8].next = 0xffff;  // And an entry that nobody has linked.
  EXPECT_GT(step_through([this] { recover(); }), 4U);
}

TEST_F(PackedDeathAnywhere, TakesBackWhatNobodySawWhileItRecovers) {
  PackedInflight dead = make(false);
  (void)dead.begin(ring(), {start_, start_});
  for (const std::uint16_t id : Ids{0, 1}) offer(id);
  const std::uint16_t first = take(dead, 0);
  const std::uint16_t second = take(dead, 1);
  answer(dead, second, 1);
  answer(dead, first, 0);
  dead.before_publish();
  EXPECT_GT(step_through([this] { recover(); }), 1U);
}

}  // namespace
