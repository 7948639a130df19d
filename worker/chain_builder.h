// worker/chain_builder.h: what reading a chain has in common for both kinds of ring: descriptors in
// our own memory to checked segments in our own memory.
//
// Not trusted: addresses, lengths and flags, which the driver wrote. They come as copies.
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

// Each function is false for a fault, which is then in `fault_`: a Result for every descriptor is
// what the data path would spend most of its time on.
class ChainBuilder {
 protected:
  ChainBuilder(const common::GuestMemory& memory, SegmentScratch& scratch) noexcept
      : memory_(memory), scratch_(scratch) {}

  // `head` is what faults name.
  void begin(std::uint16_t head) noexcept {
    head_ = head;
    writable_seen_ = false;
    count_ = readable_count_ = readable_bytes_ = writable_bytes_ = 0;
  }
  // Everything but the head.
  void finish(Chain& out) const noexcept {
    const std::span<iovec> all(scratch_);
    out.readable = all.first(readable_count_);
    out.writable = all.subspan(readable_count_, count_ - readable_count_);
    out.readable_bytes = readable_bytes_;
    out.writable_bytes = writable_bytes_;
  }

  [[nodiscard]] bool refuse(common::ipc::WorkerFault code, std::uint64_t first,
                            std::uint64_t second = 0) noexcept {
    fault_ = {code, first, second};
    return false;
  }

  // Into whoever walks: a call for each descriptor costs a third of what is done with it.
  [[nodiscard, gnu::always_inline]] bool append(std::uint64_t at, std::uint64_t left,
                                                bool writable) noexcept {
    using common::ipc::WorkerFault;
    // 2.7.4.2, 2.8.17: everything readable comes before everything writable.
    if (!writable && writable_seen_) return refuse(WorkerFault::kReadableAfterWritable, head_);
    writable_seen_ = writable;

    // A buffer of no bytes is nowhere forbidden, and says nothing: its address is not looked at.
    // 2.7.5.2: 2^32 bytes at most; one less here, since used.len could not say it.
    const std::uint64_t total = std::uint64_t{readable_bytes_} + writable_bytes_ + left;
    if (total > UINT32_MAX) return refuse(WorkerFault::kTotalOverflow, head_);
    (writable ? writable_bytes_ : readable_bytes_) += static_cast<std::uint32_t>(left);

    while (left > 0) {
      const iovec part = memory_.translate(common::GuestAddr{at}, left);
      if (part.iov_len == 0) return refuse(WorkerFault::kUnmappedBuffer, at, left);
      if (!append_segment(part, writable)) {
        return refuse(WorkerFault::kChainTooLong, head_, kSegmentsMax);
      }
      at += part.iov_len;  // Stays inside the region, or is the address right behind it.
      left -= part.iov_len;
    }
    return true;
  }

  const common::GuestMemory& memory_;
  std::uint16_t head_ = 0;
  RingFault fault_;

 private:
  [[nodiscard]] bool append_segment(iovec part, bool writable) noexcept {
    if (count_ > (writable ? readable_count_ : 0)) {
      iovec& last = scratch_[count_ - 1];
      if (static_cast<std::byte*>(last.iov_base) + last.iov_len == part.iov_base) {
        last.iov_len += part.iov_len;
        return true;
      }
    }
    if (count_ == kSegmentsMax) return false;
    scratch_[count_++] = part;
    if (!writable) readable_count_ = count_;
    return true;
  }

  SegmentScratch& scratch_;
  bool writable_seen_ = false;
  std::uint32_t count_ = 0;           // Segments.
  std::uint32_t readable_count_ = 0;  // How many of them are readable.
  std::uint32_t readable_bytes_ = 0;
  std::uint32_t writable_bytes_ = 0;
};

}  // namespace worker
