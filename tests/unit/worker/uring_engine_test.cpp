#include "worker/uring_engine.h"

#include "tests/unit/worker/engine_rig.h"

namespace worker_test {
namespace {

using Kind = worker::IoRequest::Kind;
using worker::Completion;
using worker::Wakeup;

void with_ring(const std::function<void(Rig&)>& body, const RigOptions& options = {}) {
  with_engine(EngineType::kIoUring, options, body);
}

TEST(UringEngine, NeedsNoDescriptorOnceItIsMade) {
  with_ring([](Rig& rig) {
    for (Fd* const fd : {&rig.disk, &rig.kick, &rig.plain}) fd->reset();
    const Fd bell = *common::duplicate(rig.call.ref());
    rig.call.reset();
    const Pages pages(kBlock);
    const iovec segments[] = {pages.part(0, kBlock)};
    EXPECT_EQ(rig.read(kBlock, segments), static_cast<int>(kBlock));
    rig.stop();
    rig.ring.reset();
    rig.engine->ring_call();
    EXPECT_TRUE(rig.engine->turn(true).stop);
    EXPECT_EQ(Rig::count_of(bell.ref()), 1U);
    EXPECT_EQ(rig.read(0, segments), static_cast<int>(kBlock));
  });
}

TEST(UringEngine, MakesNoSystemCallWhereThereIsNothingToDo) {
  with_ring([](Rig& rig) {
    (void)rig.engine->turn(false);  // Arms the kick.
    const std::uint64_t before = rig.engine->system_calls();
    for (int i = 0; i < 10; ++i) (void)rig.engine->turn(false);
    EXPECT_EQ(rig.engine->system_calls(), before);
  });
}

TEST(UringEngine, NoticesAKickWithoutSleeping) {
  with_ring([](Rig& rig) {
    (void)rig.engine->turn(false);
    EXPECT_FALSE(rig.engine->ready());
    rig.ring_kick();
    EXPECT_TRUE(rig.engine->ready());
    EXPECT_TRUE(rig.engine->turn(false).kicked);
  });
}

TEST(UringEngine, SubmitsABatchWithOneSystemCall) {
  with_ring([](Rig& rig) {
    const Pages pages(8 * kBlock);
    std::vector<iovec> segments;
    for (std::size_t i = 0; i < 8; ++i) segments.push_back(pages.part(i * kBlock, kBlock));
    (void)rig.engine->turn(false);
    const std::uint64_t before = rig.engine->system_calls();
    for (std::uint32_t tag = 0; tag < 8; ++tag) {
      rig.engine->start(
          {.kind = Kind::kRead, .tag = tag, .segments = std::span(&segments[tag], 1)});
    }
    rig.engine->ring_call();
    (void)rig.engine->turn(false);
    EXPECT_EQ(rig.engine->system_calls(), before + 1);
    EXPECT_EQ(Rig::count_of(rig.call.ref()), 1U);
  });
}

TEST(UringEngine, BellsBeforeOneSubmissionAreOne) {
  with_ring([](Rig& rig) {
    for (int i = 0; i < 5; ++i) rig.engine->ring_call();
    (void)rig.engine->turn(false);
    EXPECT_EQ(Rig::count_of(rig.call.ref()), 1U);
  });
}

TEST(UringEngine, ABellWantedWhileOneIsPendingIsRungAfterIt) {
  with_ring([](Rig& rig) {
    Rig::add(rig.call.ref(), ~std::uint64_t{1});
    rig.engine->ring_call();
    (void)rig.engine->turn(false);
    rig.engine->ring_call();
    EXPECT_EQ(Rig::count_of(rig.call.ref()), ~std::uint64_t{1});
    EXPECT_TRUE(rig.engine->ready()) << "the first can be written now";
    (void)rig.engine->turn(false);
    (void)rig.engine->turn(false);
    EXPECT_EQ(Rig::count_of(rig.call.ref()), 2U);
  });
}

TEST(UringEngine, TheBrokerSwapsTheBell) {
  with_ring([](Rig& rig) {
    const Fd fresh = *common::make_eventfd();
    rig.engine->ring_call();
    (void)rig.engine->turn(false);
    rig.swap_call(fresh.ref());
    EXPECT_TRUE(rig.engine->turn(true).call_swapped);
    rig.engine->ring_call();
    (void)rig.engine->turn(false);
    EXPECT_EQ(Rig::count_of(fresh.ref()), 1U);
    EXPECT_EQ(Rig::count_of(rig.call.ref()), 1U) << "the old one only once";
  });
}

TEST(UringEngine, ABellStuckInTheOldEventfdDoesNotSilenceTheNew) {
  with_ring([](Rig& rig) {
    const Fd fresh = *common::make_eventfd();
    Rig::add(rig.call.ref(), ~std::uint64_t{1});
    rig.engine->ring_call();
    (void)rig.engine->turn(false);
    rig.engine->ring_call();
    rig.swap_call(fresh.ref());
    EXPECT_TRUE(rig.engine->turn(true).call_swapped);
    rig.engine->ring_call();
    (void)rig.engine->turn(false);
    EXPECT_EQ(Rig::count_of(fresh.ref()), 1U);
    EXPECT_EQ(Rig::count_of(rig.call.ref()), ~std::uint64_t{1});
    rig.engine->ring_call();
    (void)rig.engine->turn(false);
    EXPECT_EQ(Rig::count_of(fresh.ref()), 1U) << "what the old one still completed means nothing";
  });
}

TEST(UringEngine, ABellQueuedWhenTheSlotIsSwappedIsNotLost) {
  with_ring([](Rig& rig) {
    const Fd fresh = *common::make_eventfd();
    rig.engine->ring_call();
    rig.swap_call(fresh.ref());
    const Wakeup wakeup = rig.engine->turn(true);
    EXPECT_TRUE(wakeup.call_swapped);
    rig.engine->ring_call();
    (void)rig.engine->turn(false);
    EXPECT_GE(Rig::count_of(fresh.ref()), 1U);
    rig.engine->ring_call();
    (void)rig.engine->turn(false);
    EXPECT_EQ(Rig::count_of(fresh.ref()), 1U);
  });
}

TEST(UringEngine, ABellThatComesLaterRings) {
  with_ring(
      [](Rig& rig) {
        const Fd fresh = *common::make_eventfd();
        rig.swap_call(fresh.ref());
        EXPECT_TRUE(rig.engine->turn(true).call_swapped);
        rig.engine->ring_call();
        (void)rig.engine->turn(false);
        EXPECT_EQ(Rig::count_of(fresh.ref()), 1U);
      },
      {.call = false});
}

TEST(UringEngine, AFullDiskIsAnErrorOfTheRequest) {
  with_ring(
      [](Rig& rig) {
        const Pages pages(kBlock);
        const iovec segments[] = {pages.part(0, kBlock)};
        EXPECT_EQ(rig.write(0, segments), -ENOSPC);
      },
      {.device = "/dev/full"});
}

}  // namespace
}  // namespace worker_test
