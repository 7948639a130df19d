// Packets through a network card, compared byte by byte at both ends.
#include <gtest/gtest.h>

#include <array>

#include "common/virtqueue_wire.h"
#include "tests/integration/net_host.h"

namespace integration {
namespace {

class NetPackets : public NetTest {};
BULKHEAD_FOR_BOTH_ENGINES(NetPackets);

TEST_P(NetPackets, OnePacketGoesEachWay) {
  start();
  expect_works();
}

}  // namespace
}  // namespace integration
