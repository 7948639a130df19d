// common/virtio_net_wire.h: the network device as the guest sees it (virtio 1.2, chapter 5.1).
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "common/endian.h"

namespace common::net {

// 5.1.3: feature bits, as masks. "Host" is what the device can take of the driver, "guest" what the
// driver can take of the device.
inline constexpr std::uint64_t kFeatureCsum = 1ULL << 0;
inline constexpr std::uint64_t kFeatureGuestCsum = 1ULL << 1;
inline constexpr std::uint64_t kFeatureCtrlGuestOffloads = 1ULL << 2;
inline constexpr std::uint64_t kFeatureMtu = 1ULL << 3;
inline constexpr std::uint64_t kFeatureMac = 1ULL << 5;
inline constexpr std::uint64_t kFeatureGuestTso4 = 1ULL << 7;
inline constexpr std::uint64_t kFeatureGuestTso6 = 1ULL << 8;
inline constexpr std::uint64_t kFeatureGuestEcn = 1ULL << 9;
inline constexpr std::uint64_t kFeatureGuestUfo = 1ULL << 10;
inline constexpr std::uint64_t kFeatureHostTso4 = 1ULL << 11;
inline constexpr std::uint64_t kFeatureHostTso6 = 1ULL << 12;
inline constexpr std::uint64_t kFeatureHostEcn = 1ULL << 13;
inline constexpr std::uint64_t kFeatureHostUfo = 1ULL << 14;
inline constexpr std::uint64_t kFeatureMergeableBuffers = 1ULL << 15;  // VIRTIO_NET_F_MRG_RXBUF
inline constexpr std::uint64_t kFeatureStatus = 1ULL << 16;
inline constexpr std::uint64_t kFeatureCtrlVq = 1ULL << 17;
inline constexpr std::uint64_t kFeatureCtrlRx = 1ULL << 18;
inline constexpr std::uint64_t kFeatureCtrlVlan = 1ULL << 19;
inline constexpr std::uint64_t kFeatureCtrlRxExtra = 1ULL << 20;
inline constexpr std::uint64_t kFeatureGuestAnnounce = 1ULL << 21;
inline constexpr std::uint64_t kFeatureMq = 1ULL << 22;
inline constexpr std::uint64_t kFeatureCtrlMacAddr = 1ULL << 23;
inline constexpr std::uint64_t kFeatureGuestUso4 = 1ULL << 54;
inline constexpr std::uint64_t kFeatureGuestUso6 = 1ULL << 55;
inline constexpr std::uint64_t kFeatureHostUso = 1ULL << 56;

// 5.1.6.5.6.1: the offloads a driver may switch while it runs have the numbers of their features.
inline constexpr std::uint64_t kGuestOffloads =
    kFeatureGuestCsum | kFeatureGuestTso4 | kFeatureGuestTso6 | kFeatureGuestEcn |
    kFeatureGuestUfo | kFeatureGuestUso4 | kFeatureGuestUso6;
// With one of these a received packet can be as long as kPacketBytesMax (5.1.6.3.1).
inline constexpr std::uint64_t kGuestLargePackets = kFeatureGuestTso4 | kFeatureGuestTso6 |
                                                    kFeatureGuestUfo | kFeatureGuestUso4 |
                                                    kFeatureGuestUso6;

// 5.1.6: flags and GSO types of the header.
inline constexpr std::uint8_t kHeaderNeedsCsum = 1;
inline constexpr std::uint8_t kHeaderDataValid = 2;
inline constexpr std::uint8_t kHeaderRscInfo = 4;

enum class Gso : std::uint8_t { kNone = 0, kTcp4 = 1, kUdp = 3, kTcp6 = 4, kUdpL4 = 5 };
inline constexpr std::uint8_t kGsoEcn = 0x80;  // A bit beside the type.

// 5.1.6: before each packet. Without VERSION_1 and without mergeable buffers the last field is
// absent (5.1.6.1); the tap has it always.
struct WireHeader {
  std::uint8_t flags;
  std::uint8_t gso_type;
  Le16 hdr_len;
  Le16 gso_size;
  Le16 csum_start;
  Le16 csum_offset;
  Le16 num_buffers;
};
static_assert(sizeof(WireHeader) == 12 && std::has_unique_object_representations_v<WireHeader>);
inline constexpr std::uint32_t kHeaderBytes = 12;
inline constexpr std::uint32_t kLegacyHeaderBytes = 10;
inline constexpr std::uint32_t kNumBuffersOffset = 10;

// 5.1.6.3.1: header, Ethernet header and 64 KiB: the longest packet there is, 65562 bytes. An
// 802.1Q tag, which the specification's number has no room for, adds 4.
inline constexpr std::uint32_t kEthernetBytes = 14;
inline constexpr std::uint32_t kVlanBytes = 4;
inline constexpr std::uint32_t kPacketBytesMax = 65550;  // Without the header.
inline constexpr std::uint32_t kFrameBytesMax = kHeaderBytes + kPacketBytesMax + kVlanBytes;

// 5.1.4.1: "The device MUST set mtu to between 68 and 65535 inclusive".
inline constexpr std::uint32_t kMtuMin = 68;
inline constexpr std::uint32_t kMtuMax = 65535;

// 5.1.4. The fields after `mtu` (speed, duplex, RSS) are not offered and read as zero.
inline constexpr std::size_t kMacBytes = 6;
using Mac = std::array<std::uint8_t, kMacBytes>;
struct WireConfig {
  Mac mac;
  Le16 status;
  Le16 max_virtqueue_pairs;
  Le16 mtu;
};
static_assert(sizeof(WireConfig) == 12 && std::has_unique_object_representations_v<WireConfig>);
inline constexpr std::uint16_t kStatusLinkUp = 1;
inline constexpr std::uint16_t kStatusAnnounce = 2;

// 5.1.6.5: a command of the control virtqueue, what it is about, and how it is answered.
struct WireControl {
  std::uint8_t class_;
  std::uint8_t command;
};
static_assert(sizeof(WireControl) == 2);
enum class ControlClass : std::uint8_t {
  kRx = 0,
  kMac = 1,
  kVlan = 2,
  kAnnounce = 3,
  kMq = 4,
  kOffloads = 5,
};
inline constexpr std::uint8_t kControlOk = 0;
inline constexpr std::uint8_t kControlError = 1;

// 5.1.6.5.1: the commands of kRx, each with one byte, on or off. Those from kRxAllUni on belong to
// CTRL_RX_EXTRA.
inline constexpr std::uint8_t kRxPromisc = 0;
inline constexpr std::uint8_t kRxAllMulti = 1;
inline constexpr std::uint8_t kRxAllUni = 2;
inline constexpr std::uint8_t kRxNoMulti = 3;
inline constexpr std::uint8_t kRxNoUni = 4;
inline constexpr std::uint8_t kRxNoBroadcast = 5;
inline constexpr std::uint8_t kRxCommands = 6;
// 5.1.6.5.2, 5.1.6.5.4, 5.1.6.5.5, 5.1.6.5.6.
inline constexpr std::uint8_t kMacTableSet = 0;
inline constexpr std::uint8_t kMacAddressSet = 1;
inline constexpr std::uint8_t kAnnounceAck = 0;
inline constexpr std::uint8_t kMqPairsSet = 0;
inline constexpr std::uint8_t kGuestOffloadsSet = 0;

}  // namespace common::net
