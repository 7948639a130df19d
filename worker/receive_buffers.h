// worker/receive_buffers.h: the guest's receive buffers that we have taken and not filled yet, in
// the order in which it offered them.
#pragma once

#include <sys/uio.h>

#include <array>
#include <cstdint>
#include <span>

#include "common/virtqueue_wire.h"
#include "worker/chain.h"
#include "worker/net_virtqueue.h"

namespace worker {

struct ReceiveBuffer {  // Without initialisers, so that making the array touches no page.
  std::uint32_t first;  // Of the pool; behind the last one is room for one segment of ours.
  std::uint32_t count;  // Segments.
  std::uint32_t bytes;  // At most net::kFrameBytesMax: what is beyond is not used.
  std::uint16_t head;
};

class ReceiveBuffers {
 public:
  explicit ReceiveBuffers(std::uint32_t header_bytes) noexcept : header_bytes_(header_bytes) {}

  [[nodiscard]] std::uint32_t count() const noexcept { return end_ - begin_; }
  // The oldest is 0.
  [[nodiscard]] const ReceiveBuffer& at(std::uint32_t index) const noexcept {
    return buffers_[begin_ + index];
  }
  // With the room behind it.
  [[nodiscard]] iovec* segments(const ReceiveBuffer& buffer) noexcept {
    return &pool_[buffer.first];
  }
  [[nodiscard]] std::span<const iovec> list(const ReceiveBuffer& buffer) const noexcept {
    return {&pool_[buffer.first], buffer.count};
  }

  // Takes buffers of the guest's until there are `wanted` of them. True if there are. What cannot
  // be received into stops the queue.
  template <typename Ring>
  [[nodiscard]] bool fill(NetVirtqueue<Ring>& queue, std::uint32_t wanted) noexcept;
  // True if no more will ever fit: we hold all that the ring, or the pool, can have.
  template <typename Ring>
  [[nodiscard]] bool full(const NetVirtqueue<Ring>& queue) const noexcept {
    return count() >= queue.ring.size() || pool_is_full_;
  }

  // The oldest has been answered.
  void pop() noexcept;

 private:
  // A chain of the longest kind fits always, beside what a batch of ordinary ones has.
  static constexpr std::size_t kPoolSegments = std::size_t{4} * kSegmentsMax;

  [[nodiscard]] bool make_room(std::size_t segments) noexcept;

  std::uint32_t header_bytes_;
  std::uint32_t begin_ = 0;
  std::uint32_t end_ = 0;
  std::uint32_t used_ = 0;  // Of the pool, from its start.
  bool pool_is_full_ = false;
  std::array<ReceiveBuffer, std::size_t{2} * common::kQueueSizeMax> buffers_;
  std::array<iovec, kPoolSegments> pool_;  // Not to be touched before use.
};

}  // namespace worker
