#include "worker/receive_buffers.h"

#include <algorithm>

namespace worker {
namespace {

// The first `bytes` of what the chain offers.
std::span<iovec> cut_back(std::span<iovec> segments, std::size_t bytes) noexcept {
  std::size_t count = 0;
  for (; bytes > 0; ++count) {
    iovec& segment = segments[count];
    segment.iov_len = std::min(segment.iov_len, bytes);
    bytes -= segment.iov_len;
  }
  return segments.first(count);
}

}  // namespace

using common::ipc::WorkerFault;

template <typename Ring>
bool ReceiveBuffers::fill(NetVirtqueue<Ring>& queue, std::uint32_t wanted) noexcept {
  while (count() < wanted) {
    Chain chain;
    if (!queue.next(chain)) return false;
    if (!chain.readable.empty()) {
      constexpr auto kRole = static_cast<std::uint64_t>(common::ipc::NetRole::kReceive);
      queue.ring.put_back(1);
      queue.stop_for({WorkerFault::kWrongDirection, chain.head, kRole});
      return false;
    }
    // 5.1.6.3.1: each is at least as large as the header.
    if (chain.writable_bytes < header_bytes_) {
      queue.ring.put_back(1);
      queue.stop_for({WorkerFault::kBufferTooSmall, chain.head, chain.writable_bytes});
      return false;
    }
    const std::uint32_t bytes = std::min(chain.writable_bytes, common::net::kFrameBytesMax);
    const std::span<const iovec> list =
        bytes == chain.writable_bytes ? chain.writable : cut_back(chain.writable, bytes);
    if (!make_room(list.size() + 1)) {
      queue.ring.put_back(1);
      pool_is_full_ = true;
      return false;
    }
    std::copy(list.begin(), list.end(), &pool_[used_]);
    const auto segments = static_cast<std::uint32_t>(list.size());
    buffers_[end_++] = {used_, segments, bytes, chain.head};
    used_ += segments + 1;
  }
  return true;
}

template bool ReceiveBuffers::fill(NetVirtqueue<SplitRing>& queue, std::uint32_t wanted) noexcept;
template bool ReceiveBuffers::fill(NetVirtqueue<PackedRing>& queue, std::uint32_t wanted) noexcept;

void ReceiveBuffers::pop() noexcept {
  pool_is_full_ = false;
  if (++begin_ == end_) begin_ = end_ = used_ = 0;
}

// Moves what is held to the front where there is no room behind it.
bool ReceiveBuffers::make_room(std::size_t segments) noexcept {
  if (end_ < buffers_.size() && used_ + segments <= pool_.size()) return true;
  const std::uint32_t start = begin_ == end_ ? used_ : buffers_[begin_].first;
  std::copy(pool_.begin() + start, pool_.begin() + used_, pool_.begin());
  std::copy(buffers_.begin() + begin_, buffers_.begin() + end_, buffers_.begin());
  end_ -= begin_;
  begin_ = 0;
  used_ -= start;
  for (std::uint32_t i = 0; i < end_; ++i) buffers_[i].first -= start;
  return end_ < buffers_.size() && used_ + segments <= pool_.size();
}

}  // namespace worker
