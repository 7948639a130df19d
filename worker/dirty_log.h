// worker/dirty_log.h: tells a front-end that migrates which pages of its guest's memory we, or the
// disk or tap at our word, have written (vhost-user, "Migration"): one bit for each 4096 bytes of
// guest-physical memory, shared with the front-end and with every other queue of the guest.
//
// Not trusted: the log's bits, which are only ever set and never looked at. Where the log lies and
// how large it is, the session says; that all of the guest's memory and the used ring's place in it
// have their bits is checked before the first is set.
//
// A page is marked after it was written, never before: the front-end copies a page after it has
// taken its bit away. Data is marked before its answer is published, and the ring after.
#pragma once

#include <sys/uio.h>

#include <cstddef>
#include <cstdint>
#include <span>

#include "common/addresses.h"
#include "common/guest_memory.h"
#include "common/ipc/worker_messages.h"
#include "common/result.h"
#include "worker/ring_fault.h"

namespace worker {

class DirtyLog {
 public:
  // Nobody migrates: nothing is marked.
  DirtyLog() noexcept = default;

  // `bits` is what `start` says of the log, mapped as long as this lives; empty where it has none.
  // `used_bytes`: of the used ring. Refuses a log that is too small. Touches no bit.
  [[nodiscard]] static common::Result<DirtyLog, RingFault> create(
      const common::GuestMemory& memory, const common::ipc::RingStart& start,
      std::span<std::byte> bits, std::uint64_t used_bytes) noexcept;

  [[nodiscard]] bool on() const noexcept { return !bits_.empty(); }

  // What a segment names, or as much of a list as its first `bytes` bytes. What is no guest memory
  // (a buffer of our own) is passed over.
  void mark(const iovec& segment) noexcept { mark(segment.iov_base, segment.iov_len); }
  void mark(std::span<const iovec> segments, std::uint64_t bytes = UINT64_MAX) noexcept;
  // Of a ring's descriptors, which lie in one region.
  void mark(common::GuestAddr addr, std::uint64_t bytes) noexcept { set(addr.value, bytes); }
  // Of the used ring, counted from its start.
  void mark_used(std::uint64_t offset, std::uint64_t bytes) noexcept {
    set(used_log_ + offset, bytes);
  }
  // Before anything else: whoever served this ring before us may have died between writing the used
  // ring and marking it. Where it had no log, or one that the front-end does not look at any more,
  // all of the guest's memory is marked.
  void begin() noexcept;

 private:
  void mark(const void* host, std::uint64_t bytes) noexcept;
  void set(std::uint64_t addr, std::uint64_t bytes) noexcept;

  common::GuestMemory memory_;
  std::span<std::byte> bits_;
  std::uint64_t used_log_ = 0;  // Where the log has the used ring.
  std::uint64_t used_bytes_ = 0;
  bool all_ = false;
};

}  // namespace worker
