// worker/blk_transfer.h: carries out checked block requests with an engine, piece by piece: short
// transfers, retries, aligned copies for O_DIRECT, ranges one after the other.
//
// Trusts: the requests, which parse_request() has checked. Looks at no byte of the guest's except
// to copy data between it and an aligned buffer.
#pragma once

#include <sys/uio.h>

#include <array>
#include <cstdint>
#include <memory>
#include <span>

#include "common/status_page.h"
#include "worker/blk_request.h"
#include "worker/bounce.h"
#include "worker/dirty_log.h"
#include "worker/engine.h"
#include "worker/latency_tally.h"
#include "worker/slots.h"

namespace worker {

// One request under way: a slot of a fixed pool, taken once and answered once. No initialisers: a
// slot is not touched before it is used.
struct Request {
  static constexpr std::uint32_t kInlineSegments = 4;
  enum class RangeStep : std::uint8_t { kPunchHole, kZeroRange, kWriteZeros, kSync };

  // For the answer.
  iovec status_byte;
  iovec in_first;
  std::uint32_t in_bytes;
  std::uint32_t in_done;
  std::uint16_t head;
  ParsedRequest::Work work;
  common::blk::Status status;

  bool busy;
  bool leased;        // `lease` holds the segments.
  bool bounced;       // Its memory is not aligned: goes through a buffer, piece by piece.
  bool has_buffer;    // The piece under way is in `buffer`.
  bool odd;           // Sectors that the disk cannot address: goes through the page cache.
  bool wants_buffer;  // Waits for one.
  std::uint8_t retries;
  RangeStep step;

  Stamp taken;

  // What is left to move.
  std::uint64_t offset;
  std::uint32_t bytes_left;
  std::uint32_t segment_count;
  iovec* segments;
  SegmentPool::Lease lease;
  std::uint32_t buffer;
  std::uint32_t next_waiting;

  // kDiscard and kWriteZeroes.
  std::uint32_t range_list;
  std::uint32_t range;       // Which of the list is next.
  std::uint32_t range_done;  // Bytes of it that are written with zeros.

  std::array<iovec, kInlineSegments> inline_segments;
};

class BlkTransfer {
 public:
  // All that a queue of `slots` slots can need, made now and not touched.
  BlkTransfer(const BlkDevice& device, std::uint32_t slots, Engine& engine,
              common::StatusPage& status, DirtyLog& log);

  // Takes a slot for the request. Nothing if there is no room for it now: then something is under
  // way whose end gives room back, and the chain can stay in the ring until then.
  [[nodiscard]] bool accept(const ParsedRequest& parsed, std::uint16_t head,
                            const RangeList& ranges, std::uint32_t& tag) noexcept;

  // Starts it. True if it is finished already (its status is set).
  [[nodiscard]] bool begin(std::uint32_t tag) noexcept;
  // Takes the engine's result for it. True if it is finished; otherwise the next piece is under
  // way.
  [[nodiscard]] bool complete(std::uint32_t tag, std::int32_t result) noexcept;

  // Of what is accepted from now on.
  void stamp(const Stamp& taken) noexcept { now_ = taken; }
  [[nodiscard]] const Request& request(std::uint32_t tag) const noexcept { return slots_[tag]; }
  // Gives the slot and all of its room back.
  void release(std::uint32_t tag) noexcept;

  [[nodiscard]] bool any_free() const noexcept { return free_.any(); }
  [[nodiscard]] std::uint32_t in_flight() const noexcept { return free_.taken(); }

 private:
  static constexpr std::uint8_t kRetriesMax = 16;
  static constexpr std::uint32_t kNobody = UINT32_MAX;

  [[nodiscard]] bool finish(Request& request, common::blk::Status status) noexcept;
  [[nodiscard]] bool fail(Request& request, std::int32_t result) noexcept;
  void give_buffer_back(Request& request) noexcept;
  [[nodiscard]] bool retry(Request& request, std::int32_t result) const noexcept;

  // Reads and writes.
  [[nodiscard]] bool start_piece(Request& request, std::uint32_t tag) noexcept;
  void start_straight(const Request& request, std::uint32_t tag) noexcept;
  void start_bounced(Request& request, std::uint32_t tag) noexcept;
  [[nodiscard]] bool piece_done(Request& request, std::uint32_t tag, std::int32_t result) noexcept;
  void mark_read(const Request& request) noexcept;
  void advance(Request& request, std::uint32_t bytes) noexcept;
  [[nodiscard]] bool memory_aligned(const Request& request) const noexcept;
  [[nodiscard]] bool disk_aligned(std::uint64_t offset, std::uint64_t bytes) const noexcept;

  // Ranges.
  [[nodiscard]] bool start_range(Request& request, std::uint32_t tag) noexcept;
  [[nodiscard]] bool start_deallocate(Request& request, std::uint32_t tag,
                                      const ByteRange& range) noexcept;
  [[nodiscard]] bool start_zeros(Request& request, std::uint32_t tag,
                                 const ByteRange& range) noexcept;
  [[nodiscard]] bool range_done(Request& request, std::uint32_t tag, std::int32_t result) noexcept;
  [[nodiscard]] bool range_refused(Request& request, std::uint32_t tag,
                                   std::int32_t result) noexcept;
  [[nodiscard]] bool next_range(Request& request, std::uint32_t tag) noexcept;
  [[nodiscard]] Request::RangeStep first_step(const Request& request,
                                              const ByteRange& range) const noexcept;
  [[nodiscard]] bool flush_done(Request& request, std::uint32_t tag, std::int32_t result) noexcept;
  [[nodiscard]] std::span<const iovec> zeros(std::uint32_t bytes) noexcept;
  void start_sync(std::uint32_t tag) noexcept;

  BlkDevice device_;
  Engine& engine_;
  common::StatusPage& status_;
  DirtyLog& log_;

  std::unique_ptr<Request[]> slots_;
  FreeList free_;
  Stamp now_{};
  SegmentPool segments_;
  std::unique_ptr<RangeList[]> range_lists_;
  FreeList free_lists_;
  BouncePool bounce_;
  std::uint32_t first_waiting_ = kNobody;  // For a bounce buffer, in the order of arrival.
  std::uint32_t last_waiting_ = kNobody;

  bool punch_hole_works_ = true;  // Until the disk says otherwise.
  bool zero_range_works_ = true;
  std::unique_ptr<iovec[]> zero_segments_;  // All over the same page of zeros.
  bool zero_segments_made_ = false;
};

}  // namespace worker
