#include "common/status_page.h"

#include <gtest/gtest.h>

#include <bit>
#include <cstdint>

#include "common/layers.h"
#include "common/shared_region.h"
#include "common/sys.h"

namespace common {
namespace {

TEST(StatusPage, IsSeenByAReaderOfTheSameMemory) {
  const auto file = make_sealed_memfd("status", kStatusPageBytes);
  ASSERT_TRUE(file);
  using Access = SharedRegion::Access;
  auto writer = SharedRegion::map(file->ref(), 0, kStatusPageBytes, Access::kReadWrite);
  auto reader = SharedRegion::map(file->ref(), 0, kStatusPageBytes, Access::kReadOnly);
  ASSERT_TRUE(writer && reader);
  auto& written = *reinterpret_cast<StatusPage*>(writer->bytes().data());
  const auto& read = *reinterpret_cast<const StatusPage*>(reader->bytes().data());

  EXPECT_EQ(read.stage.load(), Stage::kNotStarted);
  written.stage.store(Stage::kSealed);
  written.add(Counter::kKicks, 3);
  written.add(Counter::kKicks, 4);
  EXPECT_EQ(read.stage.load(), Stage::kSealed);
  EXPECT_EQ(read.counters[static_cast<std::size_t>(Counter::kKicks)].load(), 7U);
  EXPECT_EQ(read.counters[static_cast<std::size_t>(Counter::kCalls)].load(), 0U);
}

TEST(StatusPage, HoldsEachLayerResultInOneWord) {
  const LayerResult result{LayerResult::State::kDegraded, 7, 22};
  const auto word = std::bit_cast<std::uint32_t>(result);
  const auto back = std::bit_cast<LayerResult>(word);
  EXPECT_EQ(back.state, LayerResult::State::kDegraded);
  EXPECT_EQ(back.detail, 7);
  EXPECT_EQ(back.os_errno, 22);
}

TEST(Layers, HaveANameEach) {
  for (std::size_t i = 0; i < kLayerCount; ++i) {
    EXPECT_FALSE(layer_name(static_cast<Layer>(i)).empty()) << i;
  }
  EXPECT_EQ(layer_name(Layer::kUserNamespace), "user namespace");
  EXPECT_EQ(layer_name(Layer::kSeccomp), "seccomp");
}

}  // namespace
}  // namespace common
