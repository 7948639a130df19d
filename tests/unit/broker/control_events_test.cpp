#include "broker/control/event_ring.h"

#include <gtest/gtest.h>

#include "broker/control/wire.h"

namespace broker::control {
namespace {

TEST(EventRing, HandsOutOneAfterTheOther) {
  EventRing ring;
  EXPECT_EQ(ring.after(0), nullptr);
  ring.add(Level::kInfo, "vda", "first");
  ring.add(Level::kWarn, "", "second");
  ASSERT_NE(ring.after(0), nullptr);
  EXPECT_EQ(text_of(ring.after(0)->text), "first");
  EXPECT_EQ(ring.after(0)->sequence, 1u);
  EXPECT_EQ(text_of(ring.after(1)->text), "second");
  EXPECT_EQ(ring.after(2), nullptr);
  EXPECT_EQ(ring.after(~std::uint64_t{0}), nullptr);
}

TEST(EventRing, ForgetsTheOldestAndTheNumbersTell) {
  EventRing ring;
  for (std::size_t i = 0; i < EventRing::kKept + 10; ++i) {
    ring.add(Level::kInfo, "", std::to_string(i));
  }
  ASSERT_NE(ring.after(0), nullptr);
  EXPECT_EQ(ring.after(0)->sequence, 11u);
  EXPECT_EQ(ring.after(11)->sequence, 12u);
  EXPECT_EQ(ring.after(EventRing::kKept + 10), nullptr);
}

TEST(EventRing, CutsOffWhatDoesNotFit) {
  EventRing ring;
  ring.add(Level::kInfo, std::string(500, 's'), std::string(5000, 't'));
  EXPECT_EQ(text_of(ring.after(0)->subject)->size(), 96u);
  EXPECT_EQ(text_of(ring.after(0)->text)->size(), 768u);
}

}  // namespace
}  // namespace broker::control
