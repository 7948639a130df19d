// broker/net_card_state.h: what the next broker has to know of a network card that goes on
// (keep.h): what its tap is, and what its guest has asked for that only the kernel remembers.
//
// Written by a broker, perhaps of another version: read_card_state() checks it.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <type_traits>

#include "broker/config.h"
#include "common/ipc/session_broker.h"

namespace broker {

struct NetCardState {
  // The tap. As it was when it was opened: its name may have changed since.
  std::uint32_t index;  // 0: in another network namespace.
  std::uint32_t pairs;
  std::uint32_t mtu;
  std::uint32_t offloads;  // Tap::offloads.
  std::uint8_t macvtap;
  std::uint8_t multiqueue;
  std::uint8_t nowait;
  std::uint8_t rarp_waits;  // 1: `rarp` is to be sent once a queue is attached.
  std::array<std::uint8_t, 6> mac;
  std::array<std::uint8_t, 6> guest_mac;
  std::array<std::uint8_t, 6> rarp;
  std::array<std::uint8_t, 2> unused;
  std::array<char, 16> name;    // With a zero at the end, as the next one.
  std::array<char, 64> source;  // By which setting it was opened: source_of().
  // The guest.
  std::uint32_t pairs_used;  // By its word; 0: it has not said.
  std::uint32_t unused2;
  std::uint64_t features;  // For which the tap's offloads were chosen.
};
static_assert(std::has_unique_object_representations_v<NetCardState>);
static_assert(sizeof(NetCardState) <= common::ipc::kConfigBytesMax);

// "--tap-name=tap0": whether it is the same card.
[[nodiscard]] std::string source_of(const DeviceConfig& config);

// Fails where it is not sound.
[[nodiscard]] Answer<NetCardState> read_card_state(std::span<const std::byte> bytes);

}  // namespace broker
