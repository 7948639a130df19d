// worker/chain.h: descriptor chains to checked segments, in our own memory.
//
// Not trusted: every descriptor. Each is fetched exactly once, as a copy; every decision is made on
// the copy, and nothing of the result points back at a descriptor.
#pragma once

#include <sys/uio.h>

#include <array>
#include <cstdint>
#include <span>

#include "common/addresses.h"
#include "common/guest_memory.h"
#include "common/result.h"
#include "common/virtqueue_wire.h"
#include "worker/ring_fault.h"

namespace worker {

// 2.7.5.3.1 bounds a chain by the queue size. For what lies in an indirect table neither Linux nor
// Windows keeps to it (they take the device's seg_max, or their own idea of it), so there the bound
// is ours: 1024 pieces of data, header and status, whatever the size of the ring.
inline constexpr std::uint32_t kIndirectChainMax = 1024 + 2;

// Room for buffers that cross from one memory region into the next and so become two segments.
inline constexpr std::uint32_t kSegmentsMax = kIndirectChainMax + 62;

// Where chains are read into: one for a queue, since a chain is used up before the next is read.
using SegmentScratch = std::array<iovec, kSegmentsMax>;

// One chain, every address and length checked. The segments lie in the reader's scratch and may be
// cut shorter in place by whoever takes the chain apart.
struct Chain {
  std::span<iovec> readable;  // By the device: what the driver says.
  std::span<iovec> writable;
  std::uint32_t readable_bytes = 0;
  std::uint32_t writable_bytes = 0;
  std::uint16_t head = 0;
};

class ChainReader {
 public:
  using Done = common::Result<void, RingFault>;

  // `table` has one descriptor for each ring entry. All are borrowed.
  ChainReader(const common::GuestMemory& memory, const common::GuestWindow& table,
              std::uint16_t queue_size, bool indirect_allowed, SegmentScratch& scratch) noexcept
      : memory_(memory),
        table_(table),
        queue_size_(queue_size),
        indirect_allowed_(indirect_allowed),
        scratch_(scratch) {}

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

  // Each is false for a fault, which is then in `fault_`: a Result for every descriptor is what the
  // data path would spend most of its time on.
  [[nodiscard]] bool walk(const Table& table, std::uint32_t index) noexcept;
  [[nodiscard]] bool fetch(const Table& table, std::uint32_t index,
                           common::WireDesc& desc) noexcept;
  [[nodiscard]] bool fetch_by_address(const Table& table, std::uint32_t index,
                                      common::WireDesc& desc) noexcept;
  [[nodiscard]] bool enter_indirect(Table& table) noexcept;
  // Into walk(): a call for each descriptor costs a third of what is done with it.
  [[nodiscard, gnu::always_inline]] bool append(const common::WireDesc& desc) noexcept;
  [[nodiscard]] bool append_segment(iovec part, bool writable) noexcept;
  [[nodiscard]] bool refuse(common::ipc::WorkerFault code, std::uint64_t first,
                            std::uint64_t second = 0) noexcept;

  const common::GuestMemory& memory_;
  const common::GuestWindow& table_;
  std::uint16_t queue_size_;
  bool indirect_allowed_;
  SegmentScratch& scratch_;

  // Of the chain that is being read.
  std::uint16_t head_ = 0;
  bool writable_seen_ = false;
  bool indirect_found_ = false;
  common::WireDesc holder_{};         // Where indirect_found_: the descriptor that refers to it.
  std::uint32_t count_ = 0;           // Segments.
  std::uint32_t readable_count_ = 0;  // How many of them are readable.
  std::uint32_t readable_bytes_ = 0;
  std::uint32_t writable_bytes_ = 0;
  RingFault fault_;
};

}  // namespace worker
