// Where a back-end stands in a packed ring, as vhost-user carries it.
#include <gtest/gtest.h>

#include "common/virtqueue_wire.h"

namespace {

using common::pack_vring_base;
using common::packed_base_is_sane;
using common::packed_distance;
using common::PackedBase;
using common::PackedPlace;
using common::unpack_vring_base;

TEST(PackedBase, PutsAvailBelowUsedAndTheWrapCountersOnTop) {
  const PackedBase base{.avail = {0x123, true}, .used = {0x7ffe, false}};
  EXPECT_EQ(pack_vring_base(base), 0x7ffe'8123U);
}

TEST(PackedBase, ComesBackAsItWasPut) {
  EXPECT_EQ(pack_vring_base(unpack_vring_base(0xdead'7eefU)), 0xdead'7eefU);
  const PackedBase base = unpack_vring_base(0x8005'0007U);
  EXPECT_EQ(base.avail, (PackedPlace{7, false}));
  EXPECT_EQ(base.used, (PackedPlace{5, true}));
}

TEST(PackedBase, CountsTheDistanceAcrossTheEndOfTheRing) {
  EXPECT_EQ(packed_distance({5, true}, {7, true}, 8), 2U);
  EXPECT_EQ(packed_distance({7, true}, {1, false}, 8), 2U);
  EXPECT_EQ(packed_distance({3, false}, {3, true}, 8), 8U);
  EXPECT_EQ(packed_distance({3, false}, {3, false}, 8), 0U);
}

TEST(PackedBase, RefusesAvailBehindUsedAndPlacesOutsideTheRing) {
  EXPECT_TRUE(packed_base_is_sane({{3, false}, {3, true}}, 8));
  EXPECT_TRUE(packed_base_is_sane({{2, true}, {2, true}}, 3));
  EXPECT_FALSE(packed_base_is_sane({{2, true}, {3, true}}, 8));
  EXPECT_FALSE(packed_base_is_sane({{4, false}, {3, true}}, 8));
  EXPECT_FALSE(packed_base_is_sane({{8, true}, {7, true}}, 8));
  EXPECT_FALSE(packed_base_is_sane({{0, false}, {8, true}}, 8));
}

}  // namespace
