#include "worker/net_header.h"

#include <algorithm>

namespace worker {
namespace {

using common::Le16;
using common::net::Gso;

}  // namespace

HeaderRules::HeaderRules(std::uint64_t features, std::uint32_t mtu) noexcept
    : features_(features),
      plain_bytes_max_(common::net::kPacketBytesMax + common::net::kVlanBytes) {
  // 5.1.4.2: a driver that was given an MTU sends nothing longer. The tag of a VLAN is not counted.
  if (mtu != 0 && (features & common::net::kFeatureMtu) != 0) {
    plain_bytes_max_ = mtu + common::net::kEthernetBytes + common::net::kVlanBytes;
  }
}

HeaderVerdict HeaderRules::check(common::net::WireHeader& header,
                                 std::uint32_t packet_bytes) const noexcept {
  const auto type = static_cast<std::uint8_t>(header.gso_type & ~common::net::kGsoEcn);
  const bool whole = type == static_cast<std::uint8_t>(Gso::kNone);
  const std::uint32_t longest =
      whole ? plain_bytes_max_ : common::net::kPacketBytesMax + common::net::kVlanBytes;
  if (packet_bytes < common::net::kEthernetBytes || packet_bytes > longest) {
    return HeaderVerdict::kBadLength;
  }

  // 5.1.6.2.1: checksums only where CSUM was negotiated, and where the packet has them. The other
  // flags are the device's to set, and 5.1.6.2.2 has us ignore them.
  header.flags &= common::net::kHeaderNeedsCsum;
  if (header.flags != 0) {
    const std::uint32_t end =
        std::uint32_t{header.csum_start.get()} + header.csum_offset.get() + sizeof(std::uint16_t);
    if ((features_ & common::net::kFeatureCsum) == 0 || end > packet_bytes) {
      return HeaderVerdict::kBadHeader;
    }
  } else {
    header.csum_start = header.csum_offset = Le16(0);
  }

  if (whole) {
    // ECN says how to cut a packet into pieces; alone it means nothing.
    header.gso_type = type;
    header.gso_size = header.hdr_len = Le16(0);
  } else if (!gso_is_negotiated(header.gso_type) || header.gso_size.get() == 0) {
    return HeaderVerdict::kBadHeader;
  }
  // 5.1.6.2.2: a hint that a device "MUST NOT rely on". Where it lies, it is brought back to the
  // truth that we know.
  header.hdr_len =
      Le16(static_cast<std::uint16_t>(std::min<std::uint32_t>(header.hdr_len.get(), packet_bytes)));
  header.num_buffers = Le16(0);  // 5.1.6.2.1: unused when sending.
  return HeaderVerdict::kGood;
}

bool HeaderRules::gso_is_negotiated(std::uint8_t gso_type) const noexcept {
  namespace net = common::net;
  std::uint64_t needed = (gso_type & net::kGsoEcn) != 0 ? net::kFeatureHostEcn : 0;
  switch (static_cast<Gso>(gso_type & ~net::kGsoEcn)) {
    case Gso::kNone:
      break;
    case Gso::kTcp4:
      needed |= net::kFeatureHostTso4;
      break;
    case Gso::kTcp6:
      needed |= net::kFeatureHostTso6;
      break;
    case Gso::kUdp:
      needed |= net::kFeatureHostUfo;
      break;
    case Gso::kUdpL4:
      needed |= net::kFeatureHostUso;
      break;
    default:  // A guest can write any number.
      return false;
  }
  return (features_ & needed) == needed;
}

}  // namespace worker
