// worker/ring_kind.h: the two kinds of ring a queue is made for, each with its chain reader. Which
// one it is was negotiated; what serves is compiled for either, so that no request pays for a
// choice.
#pragma once

#include "common/ipc/worker_messages.h"
#include "common/virtqueue_wire.h"
#include "worker/chain.h"
#include "worker/packed_chain.h"
#include "worker/packed_ring.h"
#include "worker/ring.h"

namespace worker {

[[nodiscard]] constexpr bool is_packed(const common::ipc::RingStart& start) noexcept {
  return (start.features & common::kFeatureRingPacked) != 0;
}

// `ring` and `scratch` are borrowed, and so is `memory`.
[[nodiscard]] inline ChainReader make_reader(const common::GuestMemory& memory,
                                             const SplitRing& ring, std::uint64_t features,
                                             SegmentScratch& scratch) noexcept {
  const bool indirect = (features & common::kFeatureIndirectDesc) != 0;
  return {memory, ring.descriptors(), ring.size(), indirect, scratch};
}
[[nodiscard]] inline PackedChainReader make_reader(const common::GuestMemory& memory,
                                                   const PackedRing& ring, std::uint64_t features,
                                                   SegmentScratch& scratch) noexcept {
  return {memory, ring, (features & common::kFeatureIndirectDesc) != 0, scratch};
}

template <typename Ring>
struct ReaderOf;
template <>
struct ReaderOf<SplitRing> {
  using Type = ChainReader;
};
template <>
struct ReaderOf<PackedRing> {
  using Type = PackedChainReader;
};

}  // namespace worker
