// tests/fakes/split_driver.h: the guest's half of a split virtqueue (virtio 1.2, 2.7), fast enough
// for the benchmark, honest unless a test writes where it should not.
//
// Chains are the caller's: write descriptors, offer() heads, publish() once, kick() if told to. The
// order of stores and loads is what a Linux guest does with strong barriers between two CPUs.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>

#include "common/virtqueue_wire.h"
#include "tests/fakes/vhost_frontend.h"
#include "tests/fakes/vm_memory.h"

namespace fakes {

// Where a ring is, in guest-physical addresses.
struct RingPlace {
  std::uint16_t size = 0;
  std::uint64_t desc = 0;
  std::uint64_t avail = 0;
  std::uint64_t used = 0;

  // Its three parts one after the other from `start`, as Linux lays them out.
  [[nodiscard]] static RingPlace packed_from(std::uint64_t start, std::uint16_t size) noexcept;
  [[nodiscard]] std::uint64_t end() const noexcept;
  [[nodiscard]] VringAddr vring_addr(std::uint32_t index, const VmMemory& memory,
                                     bool logged = false) const;
};

class SplitDriver {
 public:
  SplitDriver() = default;
  // Zeroes the ring. It must lie within one region of `memory`, part by part.
  SplitDriver(const RingPlace& place, const VmMemory& memory, bool event_idx);

  [[nodiscard]] std::uint16_t size() const noexcept { return size_; }

  void set_desc(std::uint16_t index, std::uint64_t addr, std::uint32_t len, std::uint16_t flags,
                std::uint16_t next) noexcept;

  // Puts a chain's head into the avail ring; the device does not see it before publish().
  void offer(std::uint16_t head) noexcept;
  // Makes what was offered visible. True if the device wants a kick for it.
  [[nodiscard]] bool publish() noexcept;

  // The next used element, or nothing.
  [[nodiscard]] std::optional<common::WireUsedElem> take() noexcept;
  [[nodiscard]] bool has_used() const noexcept;

  // Asks for an interrupt at the next used element. False if one is there already: do not sleep.
  [[nodiscard]] bool enable_interrupts() noexcept;
  void disable_interrupts() noexcept;

  // What SET_VRING_BASE takes after a stop: where the device goes on.
  [[nodiscard]] std::uint16_t next_avail() const noexcept { return avail_next_; }
  [[nodiscard]] std::uint16_t next_used() const noexcept { return used_next_; }
  // Offered, and not come back yet.
  [[nodiscard]] std::uint16_t outstanding() const noexcept {
    return static_cast<std::uint16_t>(avail_next_ - used_next_);
  }
  // Pretends that this many chains went through the ring already. Before the first offer() only.
  void start_at(std::uint16_t index) noexcept;

  // --- for tests that misbehave -----------------------------------------------------------------
  void store_avail_idx(std::uint16_t value) noexcept;
  void store_avail_entry(std::uint16_t slot, std::uint16_t head) noexcept;
  [[nodiscard]] std::uint16_t used_idx() const noexcept;

 private:
  std::uint16_t size_ = 0;
  bool event_idx_ = false;
  common::WireDesc* desc_ = nullptr;
  std::uint16_t* avail_ = nullptr;  // flags, idx, ring[size], used_event
  std::uint16_t* used_ = nullptr;   // flags, idx, elem[size] as four halves each, avail_event
  std::uint16_t avail_next_ = 0;
  std::uint16_t avail_published_ = 0;
  std::uint16_t used_next_ = 0;
};

}  // namespace fakes
