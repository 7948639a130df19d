#include "worker/fallback_engine.h"

#include <fstream>

#include "tests/unit/worker/engine_rig.h"

namespace worker_test {
namespace {

using Kind = worker::IoRequest::Kind;
using worker::Completion;

TEST(FallbackEngine, BufferedRequestsAreDoneAtOnce) {
  with_engine(EngineType::kFallback, {}, [](Rig& rig) {
    const Pages pages(kBlock);
    const iovec segments[] = {pages.part(0, kBlock)};
    rig.engine->start({.kind = Kind::kRead, .tag = 1, .segments = segments});
    EXPECT_TRUE(rig.engine->ready());
    EXPECT_EQ(rig.engine->system_calls(), 1U);
    Completion completion;
    EXPECT_TRUE(rig.engine->next_completion(completion));
    EXPECT_EQ(completion.result, static_cast<int>(kBlock));
  });
}

TEST(FallbackEngine, DirectRequestsAreSubmittedTogether) {
  with_engine(EngineType::kFallbackDirect, {}, [](Rig& rig) {
    const Pages pages(16 * kBlock);
    std::vector<iovec> segments;
    for (std::size_t i = 0; i < 16; ++i) segments.push_back(pages.part(i * kBlock, kBlock));
    for (std::uint32_t tag = 0; tag < 16; ++tag) {
      rig.engine->start(
          {.kind = Kind::kRead, .tag = tag, .segments = std::span(&segments[tag], 1)});
    }
    EXPECT_EQ(rig.engine->system_calls(), 0U);
    (void)rig.engine->turn(true);
    EXPECT_LE(rig.engine->system_calls(), 3U) << "io_submit, ppoll, read";
  });
}

TEST(FallbackEngine, WorksWithLessDepthThanWantedWhereTheHostHasNoMore) {
  std::uint32_t host_max = 0;
  std::ifstream("/proc/sys/fs/aio-max-nr") >> host_max;
  ASSERT_GT(host_max, 0U);
  with_engine(EngineType::kFallbackDirect, {.depth = host_max + 1}, [](Rig& rig) {
    const Pages pages(kBlock);
    const iovec segments[] = {pages.part(0, kBlock)};
    rig.engine->start({.kind = Kind::kRead, .tag = 1, .segments = segments});
    (void)rig.engine->turn(true);
    Completion completion;
    EXPECT_TRUE(rig.engine->next_completion(completion));
    EXPECT_EQ(completion.result, static_cast<int>(kBlock));
  });
}

TEST(FallbackEngine, MoreThanTheKernelTakesAtOnceIsSubmittedLater) {
  const RigOptions few{.depth = 1};
  with_engine(EngineType::kFallbackDirect, few, [](Rig& rig) {
    const Pages pages(worker::kRequestsMax * 512);
    std::vector<iovec> segments;
    for (std::size_t i = 0; i < worker::kRequestsMax; ++i) {
      segments.push_back(pages.part(i * 512, 512));
    }
    for (std::uint32_t tag = 0; tag < worker::kRequestsMax; ++tag) {
      rig.engine->start(
          {.kind = Kind::kRead, .tag = tag, .segments = std::span(&segments[tag], 1)});
    }
    constexpr std::uint32_t kSecondRound = 100;
    std::uint32_t done = 0;
    Completion completion;
    // To the last one: the disk writes into pages that go away with this scope.
    while (done < worker::kRequestsMax + kSecondRound) {
      ASSERT_FALSE(rig.engine->turn(true).host_fault);
      while (rig.engine->next_completion(completion)) {
        EXPECT_EQ(completion.result, 512);
        // One more in the place of each, so that the queue runs round.
        if (++done <= kSecondRound) {
          rig.engine->start(
              {.kind = Kind::kRead, .tag = 0, .segments = std::span(segments.data(), 1)});
        }
      }
    }
  });
}

TEST(FallbackEngine, AFullDiskIsAnErrorOfTheRequest) {
  with_engine(EngineType::kFallback, {.device = "/dev/full"}, [](Rig& rig) {
    const Pages pages(kBlock);
    const iovec segments[] = {pages.part(0, kBlock)};
    EXPECT_EQ(rig.write(0, segments), -ENOSPC);
  });
}

TEST(FallbackEngine, LeavesTheFlagsOfABlockingBellAlone) {
  with_engine(EngineType::kFallback, {.call_blocks = true}, [](Rig& rig) {
    rig.engine->ring_call();
    EXPECT_EQ(::fcntl(rig.call.ref().number, F_GETFL) & O_NONBLOCK, 0);
    EXPECT_EQ(Rig::count_of(rig.call.ref()), 1U);
  });
}

}  // namespace
}  // namespace worker_test
