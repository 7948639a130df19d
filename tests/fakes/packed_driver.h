// tests/fakes/packed_driver.h: the guest's half of a packed virtqueue (virtio 1.2, 2.8), honest
// unless a test writes where it should not. Knows nothing of where chains' buffers are.
//
// The order of stores and loads is what a Linux guest does with strong barriers between two CPUs.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "common/virtqueue_wire.h"

namespace fakes {

// Where the three parts are, in our memory.
struct PackedParts {
  std::byte* ring = nullptr;
  std::byte* driver_area = nullptr;
  std::byte* device_area = nullptr;
};

class PackedDriver {
 public:
  struct Used {
    std::uint16_t token = 0;
    std::uint32_t len = 0;
    std::uint16_t flags = 0;
  };

  PackedDriver() = default;
  // Zeroes the ring. Buffer ids begin with `first_id`: any number will do.
  PackedDriver(std::uint16_t size, const PackedParts& parts, bool event_idx,
               std::uint16_t first_id = 0);

  [[nodiscard]] std::uint16_t size() const noexcept { return size_; }

  // Puts a chain of these into the ring, where the device does not see it before publish(). Of
  // their flags WRITE and INDIRECT count. Its token, below the ring's size; nothing where there is
  // no room.
  [[nodiscard]] std::optional<std::uint16_t> add(std::span<const common::WireDesc> parts);
  // Makes what was added visible. True if the device wants a kick for it.
  [[nodiscard]] bool publish() noexcept;

  // The next answer, or nothing.
  [[nodiscard]] std::optional<Used> take();
  [[nodiscard]] bool has_used() const noexcept;

  // Asks for an interrupt at the next answer. False if one is there already: do not sleep.
  [[nodiscard]] bool enable_interrupts() noexcept;
  void disable_interrupts() noexcept;
  // Asks for one when this many descriptors more have been used (EVENT_IDX).
  void interrupt_after(std::uint32_t descriptors) noexcept;

  [[nodiscard]] std::uint16_t free_descriptors() const noexcept { return free_; }
  // Chains that were added, and have not come back yet.
  [[nodiscard]] std::uint16_t outstanding() const noexcept { return outstanding_; }
  [[nodiscard]] common::PackedPlace next_avail() const noexcept { return next_avail_; }
  [[nodiscard]] common::PackedPlace next_used() const noexcept { return next_used_; }
  // Where a device stands that has answered all that it took: what SET_VRING_BASE takes after it.
  [[nodiscard]] std::uint32_t base() const noexcept;
  // Pretends that the ring has been gone round as far as this. Before the first add() only.
  void start_at(common::PackedPlace place) noexcept;

  // --- what the device wrote --------------------------------------------------------------------
  [[nodiscard]] common::WirePackedDesc desc(std::uint16_t index) const noexcept;
  [[nodiscard]] std::uint16_t device_flags() const noexcept;
  [[nodiscard]] std::uint16_t device_off_wrap() const noexcept;

  // --- for tests that misbehave -----------------------------------------------------------------
  void write_desc(std::uint16_t index, const common::WirePackedDesc& desc) noexcept;
  void store_flags(std::uint16_t index, std::uint16_t flags) noexcept;
  void store_driver_area(std::uint16_t off_wrap, std::uint16_t flags) noexcept;
  // AVAIL and USED as 2.8.1 has them for a descriptor that is made available.
  [[nodiscard]] static constexpr std::uint16_t available(bool wrap) noexcept {
    return wrap ? common::kPackedAvail : common::kPackedUsed;
  }

 private:
  void step(common::PackedPlace& at, std::uint32_t count = 1) const noexcept;
  [[nodiscard]] std::uint16_t* flags_at(std::uint16_t index) const noexcept;
  [[nodiscard]] static std::uint16_t* half(std::byte* area, std::uint64_t offset) noexcept;
  [[nodiscard]] bool wants_kick() const noexcept;
  [[nodiscard]] bool is_used(common::PackedPlace at) const noexcept;

  std::uint16_t size_ = 0;
  bool event_idx_ = false;
  std::uint16_t first_id_ = 0;
  PackedParts parts_;
  common::PackedPlace next_avail_;
  common::PackedPlace next_used_;
  common::PackedPlace first_;      // Of what was added and not published:
  std::uint16_t first_flags_ = 0;  // its flags are stored last,
  std::uint32_t unpublished_ = 0;  // and how many descriptors it all is.
  std::uint16_t free_ = 0;         // Descriptors.
  std::uint16_t outstanding_ = 0;
  std::vector<std::uint16_t> tokens_;       // Free ones.
  std::vector<std::uint16_t> descriptors_;  // By token; 0: it is not out.
};

}  // namespace fakes
