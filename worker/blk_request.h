// worker/blk_request.h: one block request: what the guest asks for, and whether it may.
//
// Not trusted: header, ranges and lengths. The header is copied once; what is decided, is decided
// on the copy. Buffers are carried as segments for the kernel, never looked into.
#pragma once

#include <sys/uio.h>

#include <array>
#include <cstdint>
#include <optional>
#include <span>

#include "common/ipc/worker_messages.h"
#include "common/virtio_blk_wire.h"
#include "worker/blk_range.h"
#include "worker/chain.h"
#include "worker/slots.h"

namespace worker {

// What a request is checked against and carried out with: the broker's word about the disk, and
// what the driver has acknowledged.
struct BlkDevice {
  std::uint64_t capacity_sectors = 0;
  std::uint64_t capacity_bytes = 0;
  bool read_only = false;
  bool discard = false;        // Offered and acknowledged.
  bool write_zeroes = false;   // Offered and acknowledged.
  bool may_unmap = false;      // Space may be given back at all: the operator's word.
  bool write_through = false;  // 5.2.6.2: a write is stable when it completes.
  bool direct = false;
  bool has_buffered = false;
  bool block_device = false;
  std::uint64_t memory_alignment = 1;  // Of O_DIRECT; powers of two.
  std::uint64_t offset_alignment = 1;
  std::array<std::uint8_t, common::blk::kIdBytes> serial{};

  [[nodiscard]] static BlkDevice from(const common::ipc::BlkStart& start,
                                      const common::ipc::RingStart& ring) noexcept;
};

// A chain taken apart by bytes: 2.7.4.2 forbids to read anything into how it was cut up. The spans
// lie in the chain's scratch.
struct ParsedRequest {
  enum class Work : std::uint8_t { kAnswer, kRead, kWrite, kFlush, kDiscard, kWriteZeroes };

  Work work = Work::kAnswer;
  common::blk::Status status = common::blk::Status::kOk;  // kAnswer: what to say.
  std::uint32_t type = 0;
  std::uint64_t offset = 0;    // kRead, kWrite: bytes from the start of the disk.
  std::uint32_t bytes = 0;     // kRead, kWrite: of data.
  std::uint32_t in_bytes = 0;  // Writable bytes before the status byte.
  std::uint32_t in_done = 0;   // kAnswer: how many of them have been written.
  std::span<iovec> data;       // kRead, kWrite: what the disk fills or takes.
  iovec status_byte{nullptr, 0};
  iovec in_first{nullptr, 0};  // The first writable byte, where `in_bytes` > 0.
};

// Takes `chain` apart. A chain without a writable byte breaks the ring; anything else that is wrong
// is answered. `ranges` is filled for kDiscard and kWriteZeroes.
[[nodiscard]] common::Result<void, RingFault> parse_request(Chain& chain, const BlkDevice& device,
                                                            ParsedRequest& out,
                                                            RangeList& ranges) noexcept;

// Writes the status byte and returns used.len: 2.7.8.2 wants that many bytes written, counted from
// the first writable one, so it is the true prefix of the data, and the status byte if all of the
// data came. Where none came, the first byte is cleared, so that an answer never has length 0.
[[nodiscard]] std::uint32_t write_answer(const iovec& status_byte, const iovec& in_first,
                                         std::uint32_t in_bytes, std::uint32_t in_done,
                                         common::blk::Status status) noexcept;

// Cuts `bytes` off the front; never more than there are.
void drop_front(std::span<iovec>& segments, std::uint64_t bytes) noexcept;

}  // namespace worker
