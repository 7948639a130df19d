// worker/packed_chain.h: chains of a packed ring to checked segments, in our own memory.
//
// Not trusted: every descriptor. Those of the ring the ring has copied already; each of an indirect
// table is fetched exactly once here. Every decision is made on the copy.
#pragma once

#include <cstdint>

#include "common/guest_memory.h"
#include "common/result.h"
#include "common/virtqueue_wire.h"
#include "worker/chain_builder.h"
#include "worker/packed_ring.h"

namespace worker {

class PackedChainReader : private ChainBuilder {
 public:
  using Done = common::Result<void, RingFault>;

  // All are borrowed.
  PackedChainReader(const common::GuestMemory& memory, const PackedRing& ring,
                    bool indirect_allowed, SegmentScratch& scratch) noexcept
      : ChainBuilder(memory, scratch), ring_(ring), indirect_allowed_(indirect_allowed) {}

  // The chain that the ring has peeked at: `head` is its head(). `out` is valid until the next
  // read().
  [[nodiscard]] Done read(std::uint16_t head, Chain& out) noexcept;

 private:
  [[nodiscard]] bool read_listed() noexcept;
  [[nodiscard]] bool read_indirect(const common::WirePackedDesc& holder) noexcept;
  [[nodiscard]] bool fetch_by_address(std::uint64_t table, std::uint32_t index,
                                      common::WirePackedDesc& desc) noexcept;

  const PackedRing& ring_;
  bool indirect_allowed_;
};

}  // namespace worker
