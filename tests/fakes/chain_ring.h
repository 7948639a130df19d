// tests/fakes/chain_ring.h: the guest's half of either kind of ring, for whoever has whole chains:
// it finds their descriptors places in the ring, and tells chains apart by tokens of its own.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "common/virtqueue_wire.h"
#include "tests/fakes/packed_driver.h"
#include "tests/fakes/split_driver.h"
#include "tests/fakes/vm_memory.h"

namespace fakes {

// An indirect table of these descriptors (virtio 1.2, 2.7.5.3 and 2.8.7).
void write_table(std::byte* to, std::span<const common::WireDesc> parts, bool packed);

class ChainRing {
 public:
  struct Done {
    std::uint16_t token = 0;
    std::uint32_t len = 0;
  };

  ChainRing() = default;
  // Zeroes the ring. A packed one has its event areas where a split one has avail and used.
  ChainRing(const RingPlace& place, const VmMemory& memory, bool packed, bool event_idx);

  // Of the descriptors' flags WRITE and INDIRECT count. The token is below the ring's size; of a
  // split ring, it is the chain's head. Fails where there is no room.
  std::uint16_t add(std::span<const common::WireDesc> parts);
  [[nodiscard]] bool publish() noexcept { return packed_ ? two_.publish() : one_.publish(); }
  [[nodiscard]] std::optional<Done> take();
  [[nodiscard]] bool has_used() const noexcept {
    return packed_ ? two_.has_used() : one_.has_used();
  }
  [[nodiscard]] bool enable_interrupts() noexcept {
    return packed_ ? two_.enable_interrupts() : one_.enable_interrupts();
  }
  void disable_interrupts() noexcept {
    return packed_ ? two_.disable_interrupts() : one_.disable_interrupts();
  }
  // Chains.
  [[nodiscard]] std::uint16_t outstanding() const noexcept {
    return packed_ ? two_.outstanding() : one_.outstanding();
  }
  // What SET_VRING_BASE takes where a device goes on that has answered everything.
  [[nodiscard]] std::uint32_t base() const noexcept {
    return packed_ ? two_.base() : one_.next_avail();
  }
  // What a VMM has to say whose device is gone: what came back, and nothing that was taken. Of a
  // split ring the device has left it in used.idx.
  [[nodiscard]] std::uint32_t base_of_used() const noexcept {
    return packed_ ? two_.base() : one_.used_idx();
  }

  // The one that it is.
  [[nodiscard]] SplitDriver& split() noexcept { return one_; }
  [[nodiscard]] PackedDriver& packed() noexcept { return two_; }

 private:
  [[nodiscard]] std::uint16_t add_split(std::span<const common::WireDesc> parts);

  bool packed_ = false;
  SplitDriver one_;
  PackedDriver two_;
  // Of a split ring's table.
  std::vector<std::uint16_t> free_;
  std::vector<std::vector<std::uint16_t>> taken_;  // By head.
};

}  // namespace fakes
