// tests/fakes/net_queue_driver.h: one virtqueue of a guest's virtio-net driver: receive, transmit
// or control; honest unless a test writes where it should not.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <optional>
#include <span>
#include <vector>

#include "common/fd.h"
#include "common/virtio_net_wire.h"
#include "tests/fakes/chain_ring.h"
#include "tests/fakes/doorbell.h"
#include "tests/fakes/host_port.h"
#include "tests/fakes/vm_memory.h"

namespace fakes {

// A part of a slot's memory, as one descriptor.
struct NetPiece {
  std::uint32_t offset = 0;
  std::uint32_t bytes = 0;
  bool device_writes = false;
};

struct NetDone {
  std::uint16_t slot = 0;
  std::uint32_t written = 0;  // The used element's len.
};

class NetQueueDriver {
 public:
  struct Shape {
    std::uint16_t size = 256;
    std::uint16_t slots = 64;
    std::uint32_t slot_bytes = 2048;
    bool event_idx = true;
    bool indirect = true;
    bool packed = false;
    std::uint32_t header_bytes = common::net::kHeaderBytes;
    std::uint16_t buffer_pieces = 1;  // Of each receive buffer.
  };
  static constexpr std::size_t kPiecesMost = 1024;  // Of one chain.

  // How much guest memory a queue of this shape takes.
  [[nodiscard]] static std::uint64_t bytes_needed(const Shape& shape) noexcept;
  NetQueueDriver(const VmMemory& memory, std::uint64_t guest_addr, const Shape& shape);

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
  // As after a reset: an empty ring, and every slot free.
  void reset();

  // --- any queue --------------------------------------------------------------------------------
  [[nodiscard]] std::optional<std::uint16_t> free_slot() const;
  [[nodiscard]] std::span<std::byte> data(std::uint16_t slot) const;
  [[nodiscard]] std::uint64_t data_addr(std::uint16_t slot) const { return slots_.at(slot).data; }
  // Offers a chain; the device does not see it before send().
  void prepare(std::uint16_t slot, std::span<const NetPiece> pieces);
  // Publishes; kicks where the device wants it.
  void publish();
  void kick() const;
  // Sleeps on the doorbell as a guest does; nothing after `timeout_ms`.
  [[nodiscard]] std::optional<NetDone> wait(int timeout_ms);
  // What the ring has now.
  [[nodiscard]] std::optional<NetDone> harvest();

  // --- receive ----------------------------------------------------------------------------------
  // Offers every free slot as a buffer (at most `most`). How many.
  std::size_t offer_buffers(std::size_t most = SIZE_MAX);
  // The next packet, put together from as many buffers as its header says; buffers that have come
  // back are offered again. Fails where a header lies.
  [[nodiscard]] std::optional<NetPacket> receive(int timeout_ms);
  // How many buffers the last packet filled.
  [[nodiscard]] std::size_t last_buffers() const noexcept { return last_buffers_; }
  void offer_again(bool on) noexcept { offer_again_ = on; }

  // --- transmit ---------------------------------------------------------------------------------
  // Waits for a free slot, if need be. `cuts`: where header and frame are divided into descriptors.
  void send(const NetPacket& packet, std::span<const std::uint32_t> cuts = {});
  // Without publishing: several go out together.
  void add(const NetPacket& packet, std::span<const std::uint32_t> cuts = {});
  // Until all that was sent has come back; false after the fakes' patience.
  [[nodiscard]] bool wait_sent();

  // --- control ----------------------------------------------------------------------------------
  // One command (virtio 1.2, 5.1.6.5); its ack, or nothing after the fakes' patience.
  [[nodiscard]] std::optional<std::uint8_t> command(std::uint8_t class_, std::uint8_t command,
                                                    std::span<const std::byte> arguments);

 private:
  struct Slot {
    bool busy = false;
    std::uint64_t table = 0;
    std::uint64_t data = 0;
  };
  [[nodiscard]] static std::uint64_t slot_bytes_all(const Shape& shape) noexcept;
  void add_buffer(std::uint16_t slot);
  [[nodiscard]] std::uint16_t wait_free_slot();

  const VmMemory& memory_;
  Shape shape_;
  RingPlace place_;
  ChainRing ring_;
  Doorbell doorbell_;
  common::Fd kick_;
  common::Fd err_;
  std::vector<Slot> slots_;
  std::vector<std::uint16_t> slot_of_token_;
  std::deque<std::uint16_t> order_;  // Slots that are offered.
  std::size_t last_buffers_ = 0;
  bool offer_again_ = true;
};

}  // namespace fakes
