// tests/fakes/blk_queue_driver.h: one virtqueue of a guest's virtio-blk driver: slots, chains,
// waiting.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "common/fd.h"
#include "common/virtio_blk_wire.h"
#include "tests/fakes/chain_ring.h"
#include "tests/fakes/doorbell.h"
#include "tests/fakes/vm_memory.h"

namespace fakes {

struct BlkSegment {
  std::uint64_t guest_addr = 0;
  std::uint32_t bytes = 0;
};

struct BlkDone {
  std::uint16_t slot = 0;
  std::uint8_t status = 0xff;
  std::uint32_t written = 0;  // The used element's len.
};

// Room for `slots` requests at once, each with its own data area in guest memory.
class BlkQueueDriver {
 public:
  struct Shape {
    std::uint16_t size = 128;
    std::uint16_t slots = 16;
    std::uint32_t slot_bytes = 64 * 1024;
    bool event_idx = true;
    bool indirect = true;
    bool packed = false;
  };
  static constexpr std::uint16_t kSegmentsMost = 300;  // In one request.
  static constexpr std::uint32_t kScratchBytes = 64 * 1024;

  // How much guest memory a queue of this shape takes.
  [[nodiscard]] static std::uint64_t bytes_needed(const Shape& shape) noexcept;
  BlkQueueDriver(const VmMemory& memory, std::uint64_t guest_addr, const Shape& shape);

  [[nodiscard]] const RingPlace& place() const noexcept { return place_; }
  // Only where the ring is one.
  [[nodiscard]] SplitDriver& driver() noexcept { return ring_.split(); }
  [[nodiscard]] PackedDriver& packed_driver() noexcept { return ring_.packed(); }
  [[nodiscard]] ChainRing& ring() noexcept { return ring_; }
  [[nodiscard]] Doorbell& doorbell() noexcept { return doorbell_; }
  [[nodiscard]] common::FdRef kick_fd() const noexcept { return kick_.ref(); }
  [[nodiscard]] common::FdRef err_fd() const noexcept { return err_.ref(); }
  // True if the back-end has signalled that the ring is broken, within the fakes' patience.
  [[nodiscard]] bool error_signalled() const;
  [[nodiscard]] bool error_signalled_now() const;
  void clear_error() const;

  // --- asynchronous -----------------------------------------------------------------------------
  [[nodiscard]] std::optional<std::uint16_t> free_slot() const;
  [[nodiscard]] std::uint64_t data_addr(std::uint16_t slot) const { return slots_.at(slot).data; }
  [[nodiscard]] std::span<std::byte> data(std::uint16_t slot) const;
  // Builds a request's chain and offers it; the device does not see it before send().
  void prepare(std::uint16_t slot, common::blk::RequestType type, std::uint64_t sector,
               std::span<const BlkSegment> segments, bool device_writes);
  // Publishes; kicks where the device wants it.
  void send();
  void kick() const;
  // Sleeps on the doorbell as a guest does. Nothing after `timeout_ms`: an interrupt was lost, or
  // the queue does not work.
  [[nodiscard]] std::optional<BlkDone> wait(int timeout_ms);
  // The same without interrupts: looks at the ring.
  [[nodiscard]] std::optional<BlkDone> poll(int timeout_ms);
  // What the ring has now.
  [[nodiscard]] std::optional<BlkDone> harvest();

  // --- one request at a time --------------------------------------------------------------------
  [[nodiscard]] BlkDone perform(common::blk::RequestType type, std::uint64_t sector,
                                std::span<const BlkSegment> segments, bool device_writes);
  // Through the data area of a slot, in one segment.
  [[nodiscard]] std::uint8_t read(std::uint64_t sector, std::span<std::byte> to);
  [[nodiscard]] std::uint8_t write(std::uint64_t sector, std::span<const std::byte> from);
  [[nodiscard]] std::uint8_t flush();
  [[nodiscard]] std::string get_id();
  [[nodiscard]] std::uint8_t ranges(common::blk::RequestType type,
                                    std::span<const common::blk::WireRange> ranges);

  // kScratchBytes of guest memory for chains that a test builds by hand.
  [[nodiscard]] std::uint64_t scratch() const noexcept { return scratch_; }

 private:
  struct Slot {
    bool busy = false;
    std::uint64_t header = 0;  // Guest addresses: request header,
    std::uint64_t status = 0;  // status byte,
    std::uint64_t table = 0;   // indirect table,
    std::uint64_t data = 0;    // data.
  };
  [[nodiscard]] static std::uint64_t slot_bytes_all(const Shape& shape) noexcept;
  [[nodiscard]] common::WireDesc indirect(const Slot& slot,
                                          std::span<const common::WireDesc> parts) const;

  const VmMemory& memory_;
  Shape shape_;
  RingPlace place_;
  ChainRing ring_;
  Doorbell doorbell_;
  common::Fd kick_;
  common::Fd err_;
  std::vector<Slot> slots_;
  std::vector<std::uint16_t> slot_of_token_;
  std::uint64_t scratch_ = 0;
};

}  // namespace fakes
