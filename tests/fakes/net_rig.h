// tests/fakes/net_rig.h: a guest, a tap and a network queue between them, in one thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "common/ipc/worker_messages.h"
#include "common/status_page.h"
#include "common/virtio_net_wire.h"
#include "tests/fakes/guest_driver.h"
#include "tests/fakes/logged_ram.h"
#include "tests/fakes/rates.h"
#include "tests/fakes/scripted_tap.h"
#include "worker/net_receive.h"
#include "worker/net_transmit.h"

namespace fakes {

namespace net = common::net;

struct NetRig {
  using Frame = ScriptedTap::Frame;

  NetRig(worker::TapDirection direction, const GuestDriver::Options& options = {})
      : ring(ram, options), tap(direction) {
    device.kind = common::ipc::NetStart::kKind;
    device.tsc_per_us = 0;  // No lingering: each wait is one that the test sees.
    device.pairs = 1;
    using common::ipc::NetRole;
    const bool sends = direction == worker::TapDirection::kTransmit;
    device.role = static_cast<std::uint32_t>(sends ? NetRole::kTransmit : NetRole::kReceive);
  }

  [[nodiscard]] worker::NetQueueParts parts() {
    common::ipc::RingStart start = ring.ring_start(features);
    if (legacy) start.features &= ~common::kFeatureVersion1;
    start.next_avail += told_ahead;
    if (log != nullptr) log->describe(start);
    return {.memory = ram.memory(),
            .device = device,
            .ring = start,
            .engine = &tap,
            .status = &status,
            .log = log != nullptr ? log->bits() : std::span<std::byte>(),
            .rates = {rates.view(), {}}};
  }
  // Shows the device what was added and serves until nothing is left to do.
  [[nodiscard]] common::ipc::WorkerExit transmit() {
    (void)ring.publish();
    return worker::NetTransmit::create(parts())->run();
  }
  [[nodiscard]] common::ipc::WorkerExit receive() {
    (void)ring.publish();
    return worker::NetReceive::create(parts())->run();
  }

  [[nodiscard]] std::uint64_t count(common::Counter counter) const {
    return status.counters[static_cast<std::size_t>(counter)].load();
  }
  [[nodiscard]] common::ipc::WorkerFault fault() const {
    return static_cast<common::ipc::WorkerFault>(status.fault.load());
  }

  // --- transmit ---------------------------------------------------------------------------------
  // `bytes` bytes behind `header`, in buffers of at most `piece` bytes. The head.
  std::optional<std::uint16_t> send(const net::WireHeader& header, std::uint32_t bytes,
                                    std::uint32_t piece = 1U << 20,
                                    GuestDriver::Layout layout = GuestDriver::Layout::kDirect) {
    const std::uint32_t header_size = legacy ? net::kLegacyHeaderBytes : net::kHeaderBytes;
    const common::GuestAddr at = ram.alloc(header_size + bytes);
    const std::span<std::byte> memory = ram.bytes(at, header_size + bytes);
    std::memcpy(memory.data(), &header, header_size);
    for (std::uint32_t i = 0; i < bytes; ++i) memory[header_size + i] = pattern(sends_, i);
    ++sends_;
    std::vector<Buffer> buffers;
    for (std::uint32_t done = 0; done < header_size + bytes;) {
      const std::uint32_t here = std::min(piece, header_size + bytes - done);
      buffers.push_back({{at.value + done}, here, false});
      done += here;
    }
    return ring.add(buffers, layout);
  }
  // Whether the tap got packet `number` of those sent, as its `place`-th, with this header.
  [[nodiscard]] bool arrived(std::size_t place, std::uint32_t number, const net::WireHeader& header,
                             std::uint32_t bytes) const {
    if (place >= tap.sent.size()) return false;
    const Frame& frame = tap.sent[place];
    if (frame.size() != net::kHeaderBytes + bytes) return false;
    if (std::memcmp(frame.data(), &header, sizeof(header)) != 0) return false;
    return matches(std::span(frame).subspan(net::kHeaderBytes), number);
  }

  // --- receive ----------------------------------------------------------------------------------
  // A packet on its way to the guest, `bytes` long without header.
  void arrive(std::uint32_t bytes) {
    Frame frame(net::kHeaderBytes + bytes);
    frame[0] = std::byte{net::kHeaderDataValid};
    for (std::uint32_t i = 0; i < bytes; ++i) {
      frame[net::kHeaderBytes + i] = pattern(arrivals_, i);
    }
    ++arrivals_;
    tap.incoming.push_back(std::move(frame));
  }
  // A receive buffer, in pieces of at most `piece` bytes.
  std::optional<std::uint16_t> offer(std::uint32_t bytes, std::uint32_t piece = 1U << 20,
                                     GuestDriver::Layout layout = GuestDriver::Layout::kDirect) {
    const common::GuestAddr at = ram.alloc(bytes);
    ram.fill(at, bytes, 0xee);
    std::vector<Buffer> buffers;
    for (std::uint32_t done = 0; done < bytes; done += piece) {
      buffers.push_back({{at.value + done}, std::min(piece, bytes - done), true});
    }
    const auto head = ring.add(buffers, layout);
    if (head) {
      if (offered_.size() <= *head) offered_.resize(*head + 1U);
      offered_[*head] = {at, bytes, true};
    }
    return head;
  }
  struct Got {
    net::WireHeader header{};
    std::vector<std::byte> packet;
    std::vector<std::uint32_t> lengths;  // Of each buffer.
  };
  // The next packet, as a guest puts it together; nothing where there is none.
  [[nodiscard]] std::optional<Got> next_packet() {
    std::optional<Used> used = ring.next_used();
    if (!used) return std::nullopt;
    Got got;
    std::vector<std::byte> all;
    take_buffer(*used, got, all);
    const std::uint32_t header_size = legacy ? net::kLegacyHeaderBytes : net::kHeaderBytes;
    if (all.size() < header_size) return got;
    std::memcpy(&got.header, all.data(), header_size);
    for (std::uint32_t i = 1; !legacy && i < got.header.num_buffers.get(); ++i) {
      used = ring.next_used();
      if (!used) return std::nullopt;
      take_buffer(*used, got, all);
    }
    got.packet.assign(all.begin() + header_size, all.end());
    return got;
  }
  // Whether the next packet is number `number` of those that arrived.
  [[nodiscard]] bool next_is(std::uint32_t number, std::uint32_t bytes) {
    const auto got = next_packet();
    return got && got->packet.size() == bytes && matches(got->packet, number);
  }

  [[nodiscard]] static std::byte pattern(std::uint32_t packet, std::uint32_t at) {
    return static_cast<std::byte>(packet * 31 + at * 7 + (at >> 8));
  }
  [[nodiscard]] static bool matches(std::span<const std::byte> packet, std::uint32_t number) {
    for (std::uint32_t i = 0; i < packet.size(); ++i) {
      if (packet[i] != pattern(number, i)) return false;
    }
    return true;
  }

  GuestRam ram{64U << 20};
  GuestDriver ring;
  ScriptedTap tap;
  common::StatusPage status{};
  common::ipc::NetStart device{};
  std::uint64_t features = 0;
  bool legacy = false;
  // A worker before this one has told of so many more answers than it has shown.
  std::uint32_t told_ahead = 0;
  LoggedRam* log = nullptr;  // A migration is under way.
  Rates rates;

 private:
  void take_buffer(const Used& used, Got& got, std::vector<std::byte>& all) {
    const Buffer& buffer = offered_.at(used.head);
    got.lengths.push_back(used.written);
    const auto memory = ram.bytes(buffer.addr, buffer.bytes).first(used.written);
    all.insert(all.end(), memory.begin(), memory.end());
  }

  std::uint32_t sends_ = 0;
  std::uint32_t arrivals_ = 0;
  std::vector<Buffer> offered_;  // By head.
};

}  // namespace fakes
