// worker/chain.h: descriptor chains of a split ring to checked segments, in our own memory.
//
// Not trusted: every descriptor. Each is fetched exactly once, as a copy; every decision is made on
// the copy, and nothing of the result points back at a descriptor.
#pragma once

#include <cstdint>

#include "common/addresses.h"
#include "common/guest_memory.h"
#include "common/result.h"
#include "common/virtqueue_wire.h"
#include "worker/chain_builder.h"

namespace worker {

class ChainReader : private ChainBuilder {
 public:
  using Done = common::Result<void, RingFault>;

  // `table` has one descriptor for each ring entry. All are borrowed.
  ChainReader(const common::GuestMemory& memory, const common::GuestWindow& table,
              std::uint16_t queue_size, bool indirect_allowed, SegmentScratch& scratch) noexcept
      : ChainBuilder(memory, scratch),
        table_(table),
        queue_size_(queue_size),
        indirect_allowed_(indirect_allowed) {}

  // `head` is within the table: the ring has checked it. `out` is valid until the next read().
  [[nodiscard]] Done read(std::uint16_t head, Chain& out) noexcept;

 private:
  // The ring's own table, or an indirect one.
  struct Table {
    common::GuestWindow whole;  // Empty where it does not lie in one piece; then by address.
    common::GuestAddr start;
    std::uint32_t entries = 0;
    std::uint32_t chain_max = 0;
    bool indirect = false;
  };

  [[nodiscard]] bool walk(const Table& table, std::uint32_t index) noexcept;
  [[nodiscard]] bool fetch(const Table& table, std::uint32_t index,
                           common::WireDesc& desc) noexcept;
  [[nodiscard]] bool fetch_by_address(const Table& table, std::uint32_t index,
                                      common::WireDesc& desc) noexcept;
  [[nodiscard]] bool enter_indirect(Table& table) noexcept;

  const common::GuestWindow& table_;
  std::uint16_t queue_size_;
  bool indirect_allowed_;

  // Of the chain that is being read.
  bool indirect_found_ = false;
  common::WireDesc holder_{};  // Where indirect_found_: the descriptor that refers to it.
};

}  // namespace worker
