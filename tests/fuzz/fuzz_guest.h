// tests/fuzz/fuzz_guest.h: the guest that fuzz inputs are images of; make_seeds.cpp writes such
// images.
//
// Two regions that touch in guest space and are apart in ours, and one at the very top of the
// address space. The image starts at kStart and covers the first two.
#pragma once

#include <sys/uio.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

#include "common/ipc/worker_messages.h"
#include "common/virtqueue_wire.h"
#include "tests/fakes/guest_driver.h"

namespace fuzz {

struct Guest {
  static constexpr std::uint64_t kStart = 0x1'0000;
  static constexpr std::uint64_t kFirstBytes = 0x4000;
  static constexpr std::uint64_t kSecondBytes = 0x2000;
  static constexpr std::uint64_t kTopBytes = 0x1000;
  static constexpr std::uint64_t kTop = 0xffff'ffff'ffff'e000;
  static constexpr std::uint64_t kImageBytes = kFirstBytes + kSecondBytes;

  // Where a ring of up to 64 entries lies, and what is behind it.
  static constexpr std::uint32_t kEntriesMax = 64;
  static constexpr std::uint64_t kDesc = kStart;
  static constexpr std::uint64_t kAvail = kStart + 0x400;
  static constexpr std::uint64_t kUsed = kStart + 0x500;
  static constexpr std::uint64_t kHeap = kStart + 0x800;

  Guest() : ram(kFirstBytes, fakes::GuestRam::Backing::kPrivate, {kStart}) {
    ram.add_region({kStart + kFirstBytes}, kSecondBytes);
    ram.add_region({kTop}, kTopBytes);
  }

  [[nodiscard]] static common::ipc::RingStart ring(std::uint8_t size_log2, std::uint64_t features) {
    common::ipc::RingStart ring{};
    ring.kind = common::ipc::RingStart::kKind;
    const bool packed = (features & common::kFeatureRingPacked) != 0;
    // virtio 1.2, 2.8.10.1: of any size.
    ring.queue_size = packed ? size_log2 % kEntriesMax + 1U : 1U << (size_log2 % 7);
    ring.desc_addr = kDesc;
    ring.avail_addr = kAvail;
    ring.used_addr = kUsed;
    ring.features = features;
    ring.next_avail = packed ? common::kPackedBaseFresh : 0;
    return ring;
  }

  void load(std::span<const std::uint8_t> image) {
    for (const common::GuestRegion& region : ram.regions()) {
      std::memset(region.host, 0, region.bytes);
    }
    const auto first = image.first(std::min<std::size_t>(image.size(), kFirstBytes));
    if (!first.empty()) std::memcpy(ram.regions()[0].host, first.data(), first.size());
    const auto second = image.subspan(first.size());
    if (!second.empty()) std::memcpy(ram.regions()[1].host, second.data(), second.size());
  }

  // Whether a segment lies in one piece of this guest's memory.
  [[nodiscard]] bool holds(const iovec& segment) const {
    for (const common::GuestRegion& region : ram.regions()) {
      const auto* at = static_cast<const std::byte*>(segment.iov_base);
      if (at >= region.host && at <= region.host + region.bytes &&
          segment.iov_len <= static_cast<std::uint64_t>(region.host + region.bytes - at)) {
        return true;
      }
    }
    return false;
  }

  fakes::GuestRam ram;
};

}  // namespace fuzz
