#include "worker/blk_request.h"

#include <algorithm>

#include "common/addresses.h"
#include "common/checked.h"
#include "common/guest_memory.h"
#include "common/verify.h"

namespace worker {
namespace {

using common::GuestMemory;
using common::kSectorBytes;
using common::blk::RequestType;
using common::blk::Status;
using common::blk::WireRequestHeader;
using common::ipc::WorkerFault;
using Work = ParsedRequest::Work;

void answer(ParsedRequest& out, Status status) noexcept {
  out.work = Work::kAnswer;
  out.status = status;
}

// Splits the last byte off the writable part: the status, in a descriptor of its own or not.
iovec split_status(std::span<iovec>& writable) noexcept {
  iovec& last = writable.back();
  const iovec status{static_cast<std::byte*>(last.iov_base) + last.iov_len - 1, 1};
  --last.iov_len;
  if (last.iov_len == 0) writable = writable.first(writable.size() - 1);
  return status;
}

// 5.2.6: reads and writes in whole sectors, inside the disk. No data at all is an error of the
// driver too: there is nothing that it could have meant.
bool transfer_valid(std::uint64_t sector, std::uint32_t bytes, const BlkDevice& device) noexcept {
  return bytes != 0 && bytes % kSectorBytes == 0 &&
         common::range_within(sector, bytes / kSectorBytes, device.capacity_sectors);
}

void plan_transfer(Work work, std::uint64_t sector, std::span<iovec> data, std::uint32_t bytes,
                   const BlkDevice& device, ParsedRequest& out) noexcept {
  if (!transfer_valid(sector, bytes, device)) return answer(out, Status::kIoError);
  // 5.2.6.2: IOERR for a write to a read-only device, and nothing written.
  if (work == Work::kWrite && device.read_only) return answer(out, Status::kIoError);
  out.work = work;
  out.offset = sector * kSectorBytes;  // Within the capacity in bytes, so it cannot wrap.
  out.bytes = bytes;
  out.data = data;
}

void plan_get_id(std::span<iovec> data, const BlkDevice& device, ParsedRequest& out) noexcept {
  // 20 bytes it should be; a shorter buffer gets the beginning.
  if (out.in_bytes == 0) return answer(out, Status::kIoError);
  out.in_done = static_cast<std::uint32_t>(
      GuestMemory::scatter(std::as_bytes(std::span(device.serial)), data));
  answer(out, Status::kOk);
}

void plan_ranges(Work work, std::span<const iovec> data, std::uint32_t bytes,
                 const BlkDevice& device, ParsedRequest& out, RangeList& ranges) noexcept {
  const bool discard = work == Work::kDiscard;
  if (!(discard ? device.discard : device.write_zeroes)) return answer(out, Status::kUnsupported);
  if (device.read_only) return answer(out, Status::kIoError);
  const Status checked =
      read_ranges(data, bytes, discard ? RangeKind::kDiscard : RangeKind::kWriteZeroes,
                  device.capacity_sectors, ranges);
  if (checked != Status::kOk) return answer(out, checked);
  if (ranges.count == 0) return answer(out, Status::kOk);
  out.work = work;
}

}  // namespace

BlkDevice BlkDevice::from(const common::ipc::BlkStart& start,
                          const common::ipc::RingStart& ring) noexcept {
  const auto acked = [&ring](std::uint64_t feature) { return (ring.features & feature) != 0; };
  BlkDevice device;
  // Bytes are signed 64-bit numbers to the kernel; no disk is larger.
  device.capacity_sectors =
      std::min<std::uint64_t>(start.capacity_sectors, INT64_MAX / kSectorBytes);
  device.capacity_bytes = device.capacity_sectors * kSectorBytes;
  device.read_only = start.read_only != 0;
  device.discard = start.discard != 0 && acked(common::blk::kFeatureDiscard);
  device.write_zeroes = start.write_zeroes != 0 && acked(common::blk::kFeatureWriteZeroes);
  device.may_unmap = start.discard != 0;
  // 5.2.6.2: without FLUSH a driver cannot ask for stability; with CONFIG_WCE it has said so.
  device.write_through = !acked(common::blk::kFeatureFlush) ||
                         (acked(common::blk::kFeatureConfigWce) && ring.writable_config[0] == 0);
  device.direct = start.direct != 0;
  device.has_buffered = start.has_buffered != 0;
  device.block_device = start.block_device != 0;
  device.memory_alignment = std::max<std::uint64_t>(start.memory_alignment, 1);
  device.offset_alignment = std::max<std::uint64_t>(start.offset_alignment, 1);
  device.serial = start.serial;
  return device;
}

void drop_front(std::span<iovec>& segments, std::uint64_t bytes) noexcept {
  while (bytes > 0 && !segments.empty()) {
    iovec& first = segments.front();
    if (bytes < first.iov_len) {
      first.iov_base = static_cast<std::byte*>(first.iov_base) + bytes;
      first.iov_len -= bytes;
      return;
    }
    bytes -= first.iov_len;
    segments = segments.subspan(1);
  }
}

common::Result<void, RingFault> parse_request(Chain& chain, const BlkDevice& device,
                                              ParsedRequest& out, RangeList& ranges) noexcept {
  if (chain.writable_bytes == 0) {
    return common::fail(RingFault{WorkerFault::kNoStatusByte, chain.head, 0});
  }
  out.status_byte = split_status(chain.writable);
  out.in_bytes = chain.writable_bytes - 1;
  out.in_done = 0;
  if (out.in_bytes > 0) out.in_first = {chain.writable.front().iov_base, 1};

  // The only look at the header.
  WireRequestHeader header;
  out.type = UINT32_MAX;
  if (!GuestMemory::gather_one(chain.readable, header)) {
    // There is no request, but somewhere to say so, which is friendlier than to stop the queue.
    answer(out, Status::kIoError);
    return {};
  }
  drop_front(chain.readable, sizeof(header));
  const std::uint32_t out_bytes = chain.readable_bytes - static_cast<std::uint32_t>(sizeof(header));
  const std::uint64_t sector = header.sector.get();
  out.type = header.type.get();

  switch (static_cast<RequestType>(out.type)) {
    case RequestType::kIn:
      plan_transfer(Work::kRead, sector, chain.writable, out.in_bytes, device, out);
      return {};
    case RequestType::kOut:
      plan_transfer(Work::kWrite, sector, chain.readable, out_bytes, device, out);
      return {};
    case RequestType::kFlush:
      out.work = Work::kFlush;  // 5.2.6.1: without data, and sector 0; neither changes anything.
      return {};
    case RequestType::kGetId:
      plan_get_id(chain.writable, device, out);
      return {};
    case RequestType::kDiscard:
      plan_ranges(Work::kDiscard, chain.readable, out_bytes, device, out, ranges);
      return {};
    case RequestType::kWriteZeroes:
      plan_ranges(Work::kWriteZeroes, chain.readable, out_bytes, device, out, ranges);
      return {};
  }
  answer(out, Status::kUnsupported);
  return {};
}

std::uint32_t write_answer(const iovec& status_byte, const iovec& in_first, std::uint32_t in_bytes,
                           std::uint32_t in_done, Status status) noexcept {
  GuestMemory::store_byte(status_byte, static_cast<std::byte>(status));
  if (in_done == in_bytes) return in_bytes + 1;
  if (in_done > 0) return in_done;
  GuestMemory::store_byte(in_first, std::byte{0});
  return 1;
}

}  // namespace worker
