// worker/segments.h: taking lists of segments apart. They name guest memory, checked by chain.cpp,
// and are looked at by the kernel and GuestMemory only.
#pragma once

#include <sys/uio.h>

#include <algorithm>
#include <cstddef>
#include <span>

namespace worker {

// What follows the first `bytes` of `segments`, which is cut in place.
[[nodiscard]] inline std::span<iovec> skip_front(std::span<iovec> segments,
                                                 std::size_t bytes) noexcept {
  while (bytes > 0 && !segments.empty()) {
    iovec& front = segments.front();
    const std::size_t here = std::min(bytes, front.iov_len);
    front.iov_base = static_cast<std::byte*>(front.iov_base) + here;
    front.iov_len -= here;
    bytes -= here;
    if (front.iov_len == 0) segments = segments.subspan(1);
  }
  return segments;
}

}  // namespace worker
