#include "worker/blk_transfer.h"

#include <algorithm>
#include <cerrno>

#include "common/checked.h"
#include "common/guest_memory.h"
#include "common/verify.h"

namespace worker {
namespace {

using common::GuestMemory;
using common::blk::Status;
using Work = ParsedRequest::Work;
using Step = Request::RangeStep;

// What the kernel takes in one readv (IOV_MAX).
constexpr std::uint32_t kPieceSegments = 1024;

// Zeros for a disk that cannot make them itself: up to 1 MiB at once, all from one page.
constexpr std::uint32_t kZeroPageBytes = 4096;
constexpr std::uint32_t kZeroPages = 256;
constexpr std::uint32_t kZeroSectors = kZeroPageBytes / common::kSectorBytes;
alignas(kZeroPageBytes) constexpr std::array<std::byte, kZeroPageBytes> kZeroPage{};

// The disk cannot do this kind of thing, as opposed to: it has failed to.
bool is_unsupported(std::int32_t result) noexcept {
  return result == -EOPNOTSUPP || result == -ENOSYS || result == -EINVAL;
}

}  // namespace

BlkTransfer::BlkTransfer(const BlkDevice& device, std::uint32_t slots, Engine& engine,
                         common::StatusPage& status, DirtyLog& log)
    : device_(device),
      engine_(engine),
      status_(status),
      log_(log),
      slots_(std::make_unique_for_overwrite<Request[]>(slots)),
      free_(slots),
      segments_(slots, kSegmentsMax),
      range_lists_(std::make_unique_for_overwrite<RangeList[]>(slots)),
      free_lists_(slots),
      bounce_(device.direct, std::max(device.memory_alignment, device.offset_alignment)),
      zero_segments_(std::make_unique_for_overwrite<iovec[]>(kZeroPages + kZeroSectors)) {}

// --- slots ------------------------------------------------------------------------------------

bool BlkTransfer::accept(const ParsedRequest& parsed, std::uint16_t head, const RangeList& ranges,
                         std::uint32_t& tag) noexcept {
  const auto count = static_cast<std::uint32_t>(parsed.data.size());
  const bool transfer = parsed.work == Work::kRead || parsed.work == Work::kWrite;
  SegmentPool::Lease lease{};
  const bool leased = transfer && count > Request::kInlineSegments;
  if (leased) {
    const auto room = segments_.take(count);
    if (!room) return false;
    lease = *room;
  }
  tag = free_.take();
  Request& request = slots_[tag];
  request.status_byte = parsed.status_byte;
  request.in_first = parsed.in_first;
  request.in_bytes = parsed.in_bytes;
  request.in_done = 0;
  request.head = head;
  request.work = parsed.work;
  request.taken = now_.of(parsed.work);
  request.status = Status::kOk;
  request.busy = true;
  request.leased = leased;
  request.bounced = request.has_buffer = request.odd = request.wants_buffer = false;
  request.retries = 0;
  request.offset = parsed.offset;
  request.bytes_left = parsed.bytes;
  request.lease = lease;
  request.segments = leased ? lease.room : request.inline_segments.data();
  request.segment_count = transfer ? count : 0;
  if (transfer) {
    std::copy(parsed.data.begin(), parsed.data.end(), request.segments);
  } else if (parsed.work != Work::kFlush) {
    request.range_list = free_lists_.take();  // There are as many as slots.
    RangeList& list = range_lists_[request.range_list];
    list.count = ranges.count;
    std::copy_n(ranges.ranges.begin(), ranges.count, list.ranges.begin());
    request.range = 0;
    request.range_done = 0;
  }
  return true;
}

void BlkTransfer::release(std::uint32_t tag) noexcept {
  Request& request = slots_[tag];
  common::verify(request.busy);
  request.busy = false;
  if (request.leased) segments_.put(request.lease);
  if (request.work == Work::kDiscard || request.work == Work::kWriteZeroes) {
    free_lists_.put(request.range_list);
  }
  free_.put(tag);
}

// --- life of a request ------------------------------------------------------------------------

bool BlkTransfer::begin(std::uint32_t tag) noexcept {
  Request& request = slots_[tag];
  switch (request.work) {
    case Work::kRead:
    case Work::kWrite:
      request.bounced = device_.direct && disk_aligned(request.offset, request.bytes_left) &&
                        !memory_aligned(request);
      if (request.bounced) status_.add(common::Counter::kBounced, 1);
      return start_piece(request, tag);
    case Work::kFlush:
      start_sync(tag);
      return false;
    case Work::kDiscard:
    case Work::kWriteZeroes:
      request.step = first_step(request, range_lists_[request.range_list].ranges[0]);
      return start_range(request, tag);
    case Work::kAnswer:
      break;
  }
  __builtin_trap();  // An answer takes no slot.
}

bool BlkTransfer::complete(std::uint32_t tag, std::int32_t result) noexcept {
  Request& request = slots_[tag];
  common::verify(request.busy && !request.wants_buffer);
  switch (request.work) {
    case Work::kRead:
    case Work::kWrite:
      return piece_done(request, tag, result);
    case Work::kFlush:
      return flush_done(request, tag, result);
    case Work::kDiscard:
    case Work::kWriteZeroes:
      return range_done(request, tag, result);
    case Work::kAnswer:
      break;
  }
  __builtin_trap();
}

// The disk's fault, which its operator should hear of. EFAULT is the guest's: its memory has gone.
bool BlkTransfer::fail(Request& request, std::int32_t result) noexcept {
  if (result != -EFAULT) {
    status_.disk_os_errno.store(static_cast<std::uint32_t>(-result), std::memory_order_relaxed);
    status_.add(common::Counter::kDiskErrors, 1);
  }
  return finish(request, Status::kIoError);
}

bool BlkTransfer::finish(Request& request, Status status) noexcept {
  request.status = status;
  give_buffer_back(request);
  return true;
}

// To whoever waits longest. That one cannot finish here: it waits because there is a piece to move.
void BlkTransfer::give_buffer_back(Request& request) noexcept {
  if (!request.has_buffer) return;
  request.has_buffer = false;
  bounce_.put(request.buffer);
  if (first_waiting_ == kNobody) return;

  const std::uint32_t tag = first_waiting_;
  Request& next = slots_[tag];
  first_waiting_ = next.next_waiting;
  if (first_waiting_ == kNobody) last_waiting_ = kNobody;
  next.wants_buffer = false;
  start_bounced(next, tag);
}

// What a signal or a moment's shortage may cause, a bounded number of times between two steps.
bool BlkTransfer::retry(Request& request, std::int32_t result) const noexcept {
  if (result != -EINTR && result != -EAGAIN) return false;
  return ++request.retries <= kRetriesMax;
}

void BlkTransfer::start_sync(std::uint32_t tag) noexcept {
  IoRequest io;
  io.kind = IoRequest::Kind::kSync;
  io.tag = tag;
  engine_.start(io);
}

bool BlkTransfer::flush_done(Request& request, std::uint32_t tag, std::int32_t result) noexcept {
  if (retry(request, result)) {
    start_sync(tag);
    return false;
  }
  if (result >= 0) return finish(request, Status::kOk);
  const bool unsupported = result == -EOPNOTSUPP || result == -ENOSYS;
  return unsupported ? finish(request, Status::kUnsupported) : fail(request, result);
}

// --- reads and writes -------------------------------------------------------------------------

bool BlkTransfer::memory_aligned(const Request& request) const noexcept {
  std::uint64_t addresses = 0;
  std::uint64_t lengths = 0;
  for (const iovec& segment : std::span(request.segments, request.segment_count)) {
    addresses |= reinterpret_cast<std::uintptr_t>(segment.iov_base);
    lengths |= segment.iov_len;
  }
  // Lengths as the disk wants them: older kernels ask it of each segment, not of the sum.
  return (addresses & (device_.memory_alignment - 1)) == 0 &&
         (lengths & (device_.offset_alignment - 1)) == 0;
}

bool BlkTransfer::disk_aligned(std::uint64_t offset, std::uint64_t bytes) const noexcept {
  return ((offset | bytes) & (device_.offset_alignment - 1)) == 0;
}

bool BlkTransfer::start_piece(Request& request, std::uint32_t tag) noexcept {
  if (device_.direct && !disk_aligned(request.offset, request.bytes_left)) {
    // Sectors smaller than the disk's blocks, or the rest after an odd short transfer.
    if (!device_.has_buffered) return finish(request, Status::kIoError);
    request.odd = true;
    give_buffer_back(request);
  }
  if (request.odd || !request.bounced) {
    start_straight(request, tag);
    return false;
  }
  if (!request.has_buffer && !bounce_.any()) {
    request.wants_buffer = true;
    request.next_waiting = kNobody;
    (last_waiting_ == kNobody ? first_waiting_ : slots_[last_waiting_].next_waiting) = tag;
    last_waiting_ = tag;
    return false;
  }
  start_bounced(request, tag);
  return false;
}

void BlkTransfer::start_straight(const Request& request, std::uint32_t tag) noexcept {
  IoRequest io;
  io.kind = request.work == Work::kRead ? IoRequest::Kind::kRead : IoRequest::Kind::kWrite;
  io.durable = request.work == Work::kWrite && device_.write_through;
  io.buffered = request.odd;
  io.tag = tag;
  io.offset = request.offset;
  io.segments = {request.segments, std::min(request.segment_count, kPieceSegments)};
  engine_.start(io);
}

void BlkTransfer::start_bounced(Request& request, std::uint32_t tag) noexcept {
  if (!request.has_buffer) request.buffer = bounce_.take();
  request.has_buffer = true;
  const std::uint32_t bytes = std::min(request.bytes_left, BouncePool::kBufferBytes);
  if (request.work == Work::kWrite) {
    const std::span<std::byte> room = bounce_.bytes(request.buffer).first(bytes);
    common::verify(GuestMemory::gather({request.segments, request.segment_count}, room) == bytes);
  }
  IoRequest io;
  io.kind = request.work == Work::kRead ? IoRequest::Kind::kRead : IoRequest::Kind::kWrite;
  io.durable = request.work == Work::kWrite && device_.write_through;
  io.tag = tag;
  io.offset = request.offset;
  io.segments = bounce_.segment(request.buffer, bytes);
  engine_.start(io);
}

// All that the disk may have filled, since what failed or came short may have filled more of it
// than was said.
inline void BlkTransfer::mark_read(const Request& request) noexcept {
  if (request.work == Work::kRead && log_.on()) [[unlikely]] {
    log_.mark(std::span(request.segments, request.segment_count));
  }
}

void BlkTransfer::advance(Request& request, std::uint32_t bytes) noexcept {
  request.offset += bytes;
  request.bytes_left -= bytes;
  if (request.work == Work::kRead) {
    request.in_done += bytes;
    status_.add(common::Counter::kReadBytes, bytes);
  } else {
    status_.add(common::Counter::kWrittenBytes, bytes);
  }
}

bool BlkTransfer::piece_done(Request& request, std::uint32_t tag, std::int32_t result) noexcept {
  if (result <= 0) [[unlikely]] {
    if (retry(request, result)) return start_piece(request, tag);
    // A disk that asks for more alignment than it told the broker.
    if (result == -EINVAL && device_.direct && !request.bounced && !request.odd) {
      request.bounced = true;
      status_.add(common::Counter::kBounced, 1);
      return start_piece(request, tag);
    }
    mark_read(request);
    return fail(request, result);  // 0: the disk has become shorter than it was.
  }
  const auto moved = static_cast<std::uint32_t>(result);
  common::verify(moved <= request.bytes_left);
  if (request.has_buffer && request.work == Work::kRead) {
    const std::span<const std::byte> from = bounce_.bytes(request.buffer).first(moved);
    (void)GuestMemory::scatter(from, {request.segments, request.segment_count});
  }
  mark_read(request);
  advance(request, moved);
  if (request.bytes_left == 0) return finish(request, Status::kOk);

  std::span<iovec> rest(request.segments, request.segment_count);
  drop_front(rest, moved);
  request.segments = rest.data();
  request.segment_count = static_cast<std::uint32_t>(rest.size());
  request.retries = 0;
  return start_piece(request, tag);
}

// --- ranges -----------------------------------------------------------------------------------

Step BlkTransfer::first_step(const Request& request, const ByteRange& range) const noexcept {
  if (request.work == Work::kDiscard) return Step::kPunchHole;
  // Linux sets the flag whatever write_zeroes_may_unmap says.
  if (range.unmap != 0 && device_.may_unmap && punch_hole_works_) return Step::kPunchHole;
  return zero_range_works_ ? Step::kZeroRange : Step::kWriteZeros;
}

bool BlkTransfer::start_range(Request& request, std::uint32_t tag) noexcept {
  const ByteRange& range = range_lists_[request.range_list].ranges[request.range];
  switch (request.step) {
    case Step::kPunchHole:
    case Step::kZeroRange:
      return start_deallocate(request, tag, range);
    case Step::kWriteZeros:
      return start_zeros(request, tag, range);
    case Step::kSync:
      start_sync(tag);
      return false;
  }
  __builtin_trap();
}

bool BlkTransfer::start_deallocate(Request& request, std::uint32_t tag,
                                   const ByteRange& range) noexcept {
  std::uint64_t from = range.offset;
  std::uint64_t to = range.offset + range.bytes;
  if (request.work == Work::kDiscard) {
    // 5.2.6: a discard is a hint. A disk that cannot, need not; one with large blocks discards the
    // whole blocks of the range.
    if (!punch_hole_works_) return next_range(request, tag);
    if (device_.block_device) {
      from = common::round_down(from + device_.offset_alignment - 1, device_.offset_alignment);
      to = common::round_down(to, device_.offset_alignment);
      if (from >= to) return next_range(request, tag);
    }
  }
  IoRequest io;
  io.kind =
      request.step == Step::kPunchHole ? IoRequest::Kind::kPunchHole : IoRequest::Kind::kZeroRange;
  io.tag = tag;
  io.offset = from;
  io.length = to - from;
  engine_.start(io);
  return false;
}

// Whole pages of zeros first, then what is left in sectors.
std::span<const iovec> BlkTransfer::zeros(std::uint32_t bytes) noexcept {
  if (!zero_segments_made_) {
    // The kernel only reads from it: it is named in writes and nowhere else.
    void* const page = const_cast<std::byte*>(kZeroPage.data());
    std::fill_n(zero_segments_.get(), kZeroPages, iovec{page, kZeroPageBytes});
    std::fill_n(zero_segments_.get() + kZeroPages, kZeroSectors, iovec{page, common::kSectorBytes});
    zero_segments_made_ = true;
  }
  const std::span<const iovec> all(zero_segments_.get(), kZeroPages + kZeroSectors);
  if (bytes >= kZeroPageBytes) return all.first(std::min(bytes / kZeroPageBytes, kZeroPages));
  return all.subspan(kZeroPages, bytes / common::kSectorBytes);
}

bool BlkTransfer::start_zeros(Request& request, std::uint32_t tag,
                              const ByteRange& range) noexcept {
  IoRequest io;
  io.kind = IoRequest::Kind::kWrite;
  io.tag = tag;
  io.offset = range.offset + request.range_done;
  io.segments = zeros(range.bytes - request.range_done);
  const std::uint64_t bytes = io.segments.size() * io.segments.front().iov_len;
  if (device_.direct && !disk_aligned(io.offset, bytes)) {
    if (!device_.has_buffered) return finish(request, Status::kIoError);
    io.buffered = true;
  }
  engine_.start(io);
  return false;
}

bool BlkTransfer::range_done(Request& request, std::uint32_t tag, std::int32_t result) noexcept {
  if (retry(request, result)) return start_range(request, tag);
  switch (request.step) {
    case Step::kPunchHole:
    case Step::kZeroRange:
      return result < 0 ? range_refused(request, tag, result) : next_range(request, tag);
    case Step::kWriteZeros: {
      // Whole sectors only: what is left is written in sectors, and zeros may be written twice.
      if (result > 0) result -= result % static_cast<std::int32_t>(common::kSectorBytes);
      if (result <= 0) return fail(request, result);
      const ByteRange& range = range_lists_[request.range_list].ranges[request.range];
      const auto moved = static_cast<std::uint32_t>(result);
      common::verify(moved <= range.bytes - request.range_done);
      request.range_done += moved;
      request.retries = 0;
      return request.range_done < range.bytes ? start_zeros(request, tag, range)
                                              : next_range(request, tag);
    }
    case Step::kSync:
      return result < 0 ? fail(request, result) : finish(request, Status::kOk);
  }
  __builtin_trap();
}

// The next best way, where the disk does not know this one.
bool BlkTransfer::range_refused(Request& request, std::uint32_t tag, std::int32_t result) noexcept {
  if (!is_unsupported(result)) return fail(request, result);
  const bool punched = request.step == Step::kPunchHole;
  // EINVAL may be about this range's alignment only.
  if (result != -EINVAL) (punched ? punch_hole_works_ : zero_range_works_) = false;
  if (request.work == Work::kDiscard) return next_range(request, tag);
  request.step = punched && zero_range_works_ ? Step::kZeroRange : Step::kWriteZeros;
  return start_range(request, tag);
}

bool BlkTransfer::next_range(Request& request, std::uint32_t tag) noexcept {
  const RangeList& list = range_lists_[request.range_list];
  request.range_done = 0;
  request.retries = 0;
  if (++request.range < list.count) {
    request.step = first_step(request, list.ranges[request.range]);
    return start_range(request, tag);
  }
  if (!device_.write_through) return finish(request, Status::kOk);
  request.step = Step::kSync;
  start_sync(tag);
  return false;
}

}  // namespace worker
