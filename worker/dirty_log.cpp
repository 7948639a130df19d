#include "worker/dirty_log.h"

#include <algorithm>

#include "common/checked.h"
#include "common/dirty_log_wire.h"
#include "common/verify.h"

namespace worker {
namespace {

using common::dirty_log::kPageBytes;
using common::dirty_log::kPagesInByte;
using common::ipc::WorkerFault;

// Other queues' workers and the front-end change the same byte at the same time. Release: what was
// written before is visible to a front-end that takes the bit.
void set_bits(std::byte& byte, unsigned mask) noexcept {
  __atomic_fetch_or(reinterpret_cast<std::uint8_t*>(&byte), static_cast<std::uint8_t>(mask),
                    __ATOMIC_RELEASE);
}

}  // namespace

common::Result<DirtyLog, RingFault> DirtyLog::create(const common::GuestMemory& memory,
                                                     const common::ipc::RingStart& start,
                                                     std::span<std::byte> bits,
                                                     std::uint64_t used_bytes) noexcept {
  DirtyLog log;
  if (bits.empty()) return log;
  const auto used_end = common::checked_add(start.log_used_addr, used_bytes);
  std::uint64_t end = used_end.value_or(UINT64_MAX);
  for (const common::GuestRegion& region : memory.regions()) {
    end = std::max(end, region.start.value + region.bytes);
  }
  const std::uint64_t needed = common::dirty_log::bytes_for(end);
  if (!used_end || needed > bits.size()) {
    return common::fail(RingFault{WorkerFault::kLogTooSmall, needed, bits.size()});
  }
  log.memory_ = memory;
  log.bits_ = bits;
  log.used_log_ = start.log_used_addr;
  log.used_bytes_ = used_bytes;
  log.all_ = start.log_everything != 0;
  return log;
}

void DirtyLog::begin() noexcept {
  if (!on()) return;
  mark_used(0, used_bytes_);
  if (!all_) return;
  for (const common::GuestRegion& region : memory_.regions()) set(region.start.value, region.bytes);
}

void DirtyLog::mark(std::span<const iovec> segments, std::uint64_t bytes) noexcept {
  for (const iovec& segment : segments) {
    const std::uint64_t here = std::min<std::uint64_t>(bytes, segment.iov_len);
    mark(segment.iov_base, here);
    bytes -= here;
    if (bytes == 0) return;
  }
}

// A segment may go from one region into the next, where the two are neighbours in our memory.
void DirtyLog::mark(const void* host, std::uint64_t bytes) noexcept {
  const auto* at = static_cast<const std::byte*>(host);
  while (bytes > 0) {
    const auto place = memory_.place_of(at, bytes);
    if (!place) return;
    set(place->start.value, place->bytes);
    at += place->bytes;
    bytes -= place->bytes;
  }
}

void DirtyLog::set(std::uint64_t addr, std::uint64_t bytes) noexcept {
  if (bytes == 0) return;
  const std::uint64_t first = addr / kPageBytes;
  const std::uint64_t last = (addr + bytes - 1) / kPageBytes;
  common::verify(first <= last && last / kPagesInByte < bits_.size());
  for (std::uint64_t page = first; page <= last;) {
    const std::uint64_t bit = page % kPagesInByte;
    const std::uint64_t count = std::min(kPagesInByte - bit, last - page + 1);
    set_bits(bits_[page / kPagesInByte], ((1U << count) - 1) << bit);
    page += count;
  }
}

}  // namespace worker
