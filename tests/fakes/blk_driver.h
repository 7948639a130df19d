// tests/fakes/blk_driver.h: a guest's virtio-blk driver over one GuestDriver.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <optional>
#include <span>
#include <vector>

#include "common/virtio_blk_wire.h"
#include "tests/fakes/guest_driver.h"

namespace fakes {

// What became of a request.
struct BlkAnswer {
  std::uint16_t head = 0;
  std::uint32_t written = 0;  // used.len
  std::uint8_t status = 0xff;
};

class BlkDriver {
 public:
  using Layout = GuestDriver::Layout;
  static constexpr std::uint8_t kNoStatus = 0xff;  // What a status byte holds before the answer.

  BlkDriver(GuestRam& ram, GuestDriver& ring);

  // Adds (not publishes) a request whose data are these buffers. Nothing where the ring is full.
  [[nodiscard]] std::optional<std::uint16_t> add(common::blk::RequestType type,
                                                 std::uint64_t sector, std::span<const Buffer> data,
                                                 Layout layout = Layout::kDirect);
  [[nodiscard]] std::optional<std::uint16_t> add_raw(std::uint32_t type, std::uint64_t sector,
                                                     std::span<const Buffer> data,
                                                     Layout layout = Layout::kDirect);
  [[nodiscard]] std::optional<std::uint16_t> read(std::uint64_t sector, common::GuestAddr to,
                                                  std::uint32_t bytes,
                                                  Layout layout = Layout::kDirect);
  [[nodiscard]] std::optional<std::uint16_t> write(std::uint64_t sector, common::GuestAddr from,
                                                   std::uint32_t bytes,
                                                   Layout layout = Layout::kDirect);
  [[nodiscard]] std::optional<std::uint16_t> flush();
  // DISCARD or WRITE_ZEROES. The ranges are copied into guest memory of the request's own.
  [[nodiscard]] std::optional<std::uint16_t> ranges(common::blk::RequestType type,
                                                    std::span<const common::blk::WireRange> ranges,
                                                    Layout layout = Layout::kDirect);

  // The next answer in the used ring.
  [[nodiscard]] std::optional<BlkAnswer> next();

  [[nodiscard]] GuestDriver& ring() { return ring_; }

 private:
  struct Envelope {
    common::GuestAddr header;
    common::GuestAddr status;
    common::GuestAddr ranges;  // Room for kRangeSegmentsMax + 1, made when first needed.
  };

  GuestRam& ram_;
  GuestDriver& ring_;
  std::vector<Envelope> envelopes_;  // Free ones at the back.
  std::vector<Envelope> by_head_;
};

[[nodiscard]] common::blk::WireRange make_range(std::uint64_t sector, std::uint32_t sectors,
                                                std::uint32_t flags = 0);

}  // namespace fakes
