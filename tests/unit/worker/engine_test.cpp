// Both engines keep one contract (worker/engine.h): the same tests for each of them.
#include <algorithm>
#include <set>

#include "tests/unit/worker/engine_rig.h"

namespace worker_test {
namespace {

using Kind = worker::IoRequest::Kind;
using worker::Completion;
using worker::Wakeup;

class EngineTest : public testing::TestWithParam<EngineType> {
 protected:
  static void run(const std::function<void(Rig&)>& body, const RigOptions& options = {}) {
    with_engine(GetParam(), options, body);
  }
};

TEST_P(EngineTest, ReadsWhatTheDiskHolds) {
  run([](Rig& rig) {
    const Pages pages(kBlock);
    const iovec segments[] = {pages.part(0, kBlock)};
    EXPECT_EQ(rig.read(5 * kBlock, segments), static_cast<int>(kBlock));
    EXPECT_TRUE(pages.holds_only(pattern(5 * kBlock)));
  });
}

TEST_P(EngineTest, ReadsIntoSeveralSegments) {
  run([](Rig& rig) {
    const Pages pages(4 * kBlock);
    const iovec segments[] = {pages.part(3 * kBlock, 512), pages.part(0, kBlock),
                              pages.part(2 * kBlock, kBlock - 512)};
    EXPECT_EQ(rig.read(kBlock, segments), static_cast<int>(2 * kBlock));
    EXPECT_EQ(pages.data()[3 * kBlock], pattern(kBlock));
    EXPECT_EQ(pages.data()[kBlock - 512 - 1], pattern(kBlock));
    EXPECT_EQ(pages.data()[kBlock - 1], pattern(2 * kBlock));
    EXPECT_EQ(pages.data()[2 * kBlock], pattern(2 * kBlock));
    EXPECT_EQ(pages.data()[kBlock], 0) << "between the segments";
  });
}

TEST_P(EngineTest, WritesSeveralSegments) {
  run([](Rig& rig) {
    const Pages first(kBlock, 0xaa);
    const Pages second(kBlock, 0xbb);
    const iovec segments[] = {first.part(0, kBlock), second.part(0, kBlock)};
    EXPECT_EQ(rig.write(8 * kBlock, segments), static_cast<int>(2 * kBlock));
    EXPECT_EQ(rig.byte_at(8 * kBlock), 0xaa);
    EXPECT_EQ(rig.byte_at(10 * kBlock - 1), 0xbb);
    EXPECT_EQ(rig.byte_at(10 * kBlock), pattern(10 * kBlock));
  });
}

TEST_P(EngineTest, WritesDurably) {
  run([](Rig& rig) {
    const Pages pages(kBlock, 0xcc);
    const iovec segments[] = {pages.part(0, kBlock)};
    EXPECT_EQ(rig.write(0, segments, true), static_cast<int>(kBlock));
    EXPECT_EQ(rig.byte_at(0), 0xcc);
  });
}

TEST_P(EngineTest, UsesTheBufferedDescriptorWhereAsked) {
  run([](Rig& rig) {
    const Pages pages(kBlock, 0xdd);
    const iovec odd[] = {pages.part(1, 512)};  // O_DIRECT would refuse this address.
    EXPECT_EQ(rig.run({.kind = Kind::kWrite, .buffered = true, .tag = 1, .segments = odd}), 512);
    EXPECT_EQ(rig.byte_at(511), 0xdd);
  });
}

TEST_P(EngineTest, Syncs) {
  run([](Rig& rig) { EXPECT_EQ(rig.run({.kind = Kind::kSync, .tag = 3}), 0); });
}

TEST_P(EngineTest, PunchesHolesThatReadAsZeros) {
  run([](Rig& rig) {
    EXPECT_EQ(rig.run({.kind = Kind::kPunchHole, .tag = 4, .offset = kBlock, .length = kBlock}), 0);
    EXPECT_EQ(rig.byte_at(kBlock - 1), pattern(0));
    EXPECT_EQ(rig.byte_at(kBlock), 0);
    EXPECT_EQ(rig.byte_at(2 * kBlock - 1), 0);
    EXPECT_EQ(rig.byte_at(2 * kBlock), pattern(2 * kBlock));
  });
}

TEST_P(EngineTest, NeverChangesTheSizeOfTheDisk) {
  run([](Rig& rig) {
    const auto end = static_cast<std::uint64_t>(kDiskBytes);
    EXPECT_EQ(
        rig.run({.kind = Kind::kPunchHole, .tag = 4, .offset = end - kBlock, .length = 3 * kBlock}),
        0);
    (void)rig.run(
        {.kind = Kind::kZeroRange, .tag = 4, .offset = end - kBlock, .length = 3 * kBlock});
    EXPECT_EQ(::lseek(rig.plain.ref().number, 0, SEEK_END), static_cast<off_t>(end));
  });
}

TEST_P(EngineTest, ZeroesRanges) {
  run([](Rig& rig) {
    const std::int32_t result =
        rig.run({.kind = Kind::kZeroRange, .tag = 5, .offset = 2 * kBlock, .length = kBlock});
    if (result == -EOPNOTSUPP) GTEST_SKIP() << "the file system of TMPDIR cannot zero ranges";
    EXPECT_EQ(result, 0);
    EXPECT_EQ(rig.byte_at(2 * kBlock), 0);
    EXPECT_EQ(rig.byte_at(3 * kBlock), pattern(3 * kBlock));
  });
}

TEST_P(EngineTest, ReadAcrossTheEndIsShort) {
  run([](Rig& rig) {
    const Pages pages(2 * kBlock);
    const iovec segments[] = {pages.part(0, 2 * kBlock)};
    EXPECT_EQ(rig.read(kDiskBytes - kBlock, segments), static_cast<int>(kBlock));
  });
}

TEST_P(EngineTest, ErrorsComeBackAsCompletions) {
  run(
      [](Rig& rig) {
        const Pages pages(kBlock);
        const iovec segments[] = {pages.part(0, kBlock)};
        EXPECT_EQ(rig.write(0, segments), -EBADF);
        EXPECT_EQ(rig.read(0, segments), static_cast<int>(kBlock)) << "and it goes on";
      },
      {.open_flags = O_RDONLY});
}

TEST_P(EngineTest, UnmappedMemoryIsAnErrorAndNoDeath) {
  run([](Rig& rig) {
    void* const gone = ::mmap(nullptr, kBlock, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    const iovec segments[] = {{gone, kBlock}};
    EXPECT_EQ(rig.read(0, segments), -EFAULT);
    ::munmap(gone, kBlock);
  });
}

TEST_P(EngineTest, AsManyInFlightAsARingHasEntriesAllComplete) {
  run([](Rig& rig) {
    const Pages pages(worker::kRequestsMax * 512);
    std::vector<iovec> segments;
    for (std::size_t i = 0; i < worker::kRequestsMax; ++i)
      segments.push_back(pages.part(i * 512, 512));
    for (std::uint32_t tag = 0; tag < worker::kRequestsMax; ++tag) {
      rig.engine->start({.kind = Kind::kRead,
                         .tag = tag,
                         .offset = tag * std::uint64_t{512},
                         .segments = std::span(&segments[tag], 1)});
    }
    std::set<std::uint32_t> seen;
    Completion completion;
    while (seen.size() < worker::kRequestsMax) {
      ASSERT_FALSE(rig.engine->turn(true).host_fault);
      while (rig.engine->next_completion(completion)) {
        EXPECT_EQ(completion.result, 512);
        EXPECT_TRUE(seen.insert(completion.tag).second) << completion.tag;
      }
    }
    EXPECT_EQ(pages.data()[0], pattern(0));
    EXPECT_EQ(pages.data()[pages.size() - 1], pattern(pages.size() - 1));
  });
}

TEST_P(EngineTest, AKickWakesTheSleeper) {
  run([](Rig& rig) {
    std::thread guest([&] { rig.ring_kick(); });
    const Wakeup wakeup = rig.engine->turn(true);
    guest.join();
    EXPECT_TRUE(wakeup.kicked);
    EXPECT_FALSE(wakeup.stop);
    EXPECT_FALSE(wakeup.host_fault);
  });
}

TEST_P(EngineTest, AKickFromBeforeIsNotLost) {
  run([](Rig& rig) {
    rig.ring_kick();
    EXPECT_TRUE(rig.engine->turn(true).kicked);
    rig.ring_kick();
    EXPECT_TRUE(rig.engine->turn(true).kicked) << "and it is armed again";
  });
}

TEST_P(EngineTest, AKickWakesWhoWaitsForSeveralCompletions) {
  run([](Rig& rig) {
    rig.ring_kick();
    EXPECT_TRUE(rig.engine->turn(true).kicked);
  });
}

TEST_P(EngineTest, DoesNotSleepWhenNotAllowed) {
  run([](Rig& rig) {
    const Wakeup wakeup = rig.engine->turn(false);
    EXPECT_FALSE(wakeup.kicked || wakeup.stop || wakeup.host_fault || wakeup.call_swapped);
    EXPECT_FALSE(rig.engine->ready());
  });
}

TEST_P(EngineTest, WithoutAKickItLooksFromTimeToTime) {
  run(
      [](Rig& rig) {
        const Wakeup wakeup = rig.engine->turn(true);
        EXPECT_FALSE(wakeup.kicked || wakeup.stop || wakeup.host_fault);
      },
      {.kick = false});
}

TEST_P(EngineTest, SleepsNoLongerThanItIsTold) {
  run([](Rig& rig) {
    rig.engine->sleep_at_most(500);
    const Wakeup woken = rig.engine->turn(true);  // Nothing else would wake it.
    EXPECT_FALSE(woken.kicked || woken.stop || woken.call_swapped || woken.host_fault);
  });
}

TEST_P(EngineTest, AKickWakesWhoSleepsForALimitedTime) {
  run([](Rig& rig) {
    rig.engine->sleep_at_most(3'600'000'000);
    rig.ring_kick();
    EXPECT_TRUE(rig.engine->turn(true).kicked);
  });
}

TEST_P(EngineTest, RingsTheBell) {
  run([](Rig& rig) {
    rig.engine->ring_call();
    (void)rig.engine->turn(false);
    EXPECT_EQ(Rig::count_of(rig.call.ref()), 1U);
    rig.engine->ring_call();
    (void)rig.engine->turn(false);
    EXPECT_EQ(Rig::count_of(rig.call.ref()), 1U);
  });
}

TEST_P(EngineTest, NoBellIsLostHoweverOftenItIsRung) {
  run([](Rig& rig) {
    for (int i = 0; i < 100; ++i) {
      rig.engine->ring_call();
      rig.engine->ring_call();
      (void)rig.engine->turn(false);
      ASSERT_NE(Rig::count_of(rig.call.ref()), 0U) << i;
    }
  });
}

TEST_P(EngineTest, RingingNobodyIsHarmless) {
  run(
      [](Rig& rig) {
        rig.engine->ring_call();
        EXPECT_FALSE(rig.engine->turn(false).host_fault);
      },
      {.call = false});
}

TEST_P(EngineTest, ABellThatNobodyReadsHoldsNothingUp) {
  for (const bool blocks : {false, true}) {
    run(
        [](Rig& rig) {
          Rig::add(rig.call.ref(), ~std::uint64_t{1});  // Full.
          rig.engine->ring_call();
          (void)rig.engine->turn(false);
          rig.engine->ring_call();

          const Pages pages(kBlock);
          const iovec segments[] = {pages.part(0, kBlock)};
          EXPECT_EQ(rig.read(0, segments), static_cast<int>(kBlock));
          rig.ring_kick();
          EXPECT_TRUE(rig.engine->turn(true).kicked);

          EXPECT_EQ(Rig::count_of(rig.call.ref()), ~std::uint64_t{1});
          // Once it was read it rings again; a kernel thread may have to do it.
          while (Rig::count_of(rig.call.ref()) == 0) {
            rig.engine->ring_call();
            (void)rig.engine->turn(false);
          }
          rig.stop();
          EXPECT_TRUE(rig.engine->turn(true).stop);
        },
        {.call_blocks = blocks});
  }
}

TEST_P(EngineTest, StopWakesTheSleeperAndStays) {
  run([](Rig& rig) {
    std::thread broker([&] { rig.stop(); });
    EXPECT_TRUE(rig.engine->turn(true).stop);
    broker.join();
    EXPECT_TRUE(rig.engine->turn(false).stop);
    EXPECT_TRUE(rig.engine->turn(true).stop) << "and does not sleep: nothing more can come";
  });
}

TEST_P(EngineTest, ABrokerThatDoesNotHaveTheRingStopsItToo) {
  run([](Rig& rig) {
    std::thread broker([&] { rig.stop_without_ring(); });
    EXPECT_TRUE(rig.engine->turn(true).stop);
    broker.join();
    EXPECT_TRUE(rig.engine->turn(false).stop);
  });
}

TEST_P(EngineTest, StopsWhenNobodyIsLeftWhoCouldStopIt) {
  run([](Rig& rig) {
    std::thread broker([&] { rig.stop_pipe.writing.reset(); });
    EXPECT_TRUE(rig.engine->turn(true).stop);
    broker.join();
    EXPECT_TRUE(rig.engine->turn(true).stop);
  });
}

TEST_P(EngineTest, WhatIsInFlightCompletesAfterStop) {
  run([](Rig& rig) {
    rig.stop();
    EXPECT_TRUE(rig.engine->turn(true).stop);
    const Pages pages(kBlock);
    const iovec segments[] = {pages.part(0, kBlock)};
    EXPECT_EQ(rig.read(0, segments), static_cast<int>(kBlock));
    EXPECT_EQ(rig.run({.kind = Kind::kSync, .tag = 3}), 0);
  });
}

TEST_P(EngineTest, StopIsSeenByAWorkerThatIsNeverIdle) {
  run([](Rig& rig) {
    const Pages pages(kBlock);
    const iovec segments[] = {pages.part(0, kBlock)};
    rig.stop();
    bool stopped = false;
    Completion completion;
    for (int turn = 0; turn < 1000 && !stopped; ++turn) {
      rig.engine->start({.kind = Kind::kRead, .tag = 1, .segments = segments});
      stopped = rig.engine->turn(true).stop;
      while (rig.engine->next_completion(completion)) {
      }
    }
    EXPECT_TRUE(stopped);
  });
}

TEST_P(EngineTest, CountsItsSystemCalls) {
  run([](Rig& rig) {
    const std::uint64_t before = rig.engine->system_calls();
    const Pages pages(kBlock);
    const iovec segments[] = {pages.part(0, kBlock)};
    (void)rig.read(0, segments);
    EXPECT_GT(rig.engine->system_calls(), before);
  });
}

INSTANTIATE_TEST_SUITE_P(Engines, EngineTest,
                         testing::Values(EngineType::kIoUring, EngineType::kFallback,
                                         EngineType::kFallbackDirect),
                         type_name);

}  // namespace
}  // namespace worker_test
