#include "tests/fakes/chain_ring.h"

#include <cstddef>
#include <cstring>
#include <string>

#include "tests/fakes/failure.h"

namespace fakes {
namespace {

PackedParts parts_of(const RingPlace& place, const VmMemory& memory) {
  return {.ring = memory.at(place.desc, common::packed_ring_bytes(place.size)),
          .driver_area = memory.at(place.avail, common::kPackedEventBytes),
          .device_area = memory.at(place.used, common::kPackedEventBytes)};
}

}  // namespace

void write_table(std::byte* to, std::span<const common::WireDesc> parts, bool packed) {
  for (std::size_t i = 0; i < parts.size(); ++i, to += sizeof(common::WireDesc)) {
    common::WireDesc desc = parts[i];
    if (packed) {
      // 2.8.7: there are neither links nor ids.
      const common::WirePackedDesc entry{desc.addr, desc.len, common::Le16(0), desc.flags};
      std::memcpy(to, &entry, sizeof(entry));
      continue;
    }
    if (i + 1 < parts.size()) {
      desc.flags = common::Le16(desc.flags.get() | common::kDescNext);
      desc.next = common::Le16(static_cast<std::uint16_t>(i + 1));
    }
    std::memcpy(to, &desc, sizeof(desc));
  }
}

ChainRing::ChainRing(const RingPlace& place, const VmMemory& memory, bool packed, bool event_idx)
    : packed_(packed) {
  if (packed) {
    // Ids that are no indices: a device may think nothing of them (virtio 1.2, 2.8.13).
    two_ = PackedDriver(place.size, parts_of(place, memory), event_idx, 0xfff0);
    return;
  }
  one_ = SplitDriver(place, memory, event_idx);
  taken_.resize(place.size);
  for (std::uint16_t i = place.size; i > 0; --i) free_.push_back(static_cast<std::uint16_t>(i - 1));
}

std::uint16_t ChainRing::add(std::span<const common::WireDesc> parts) {
  if (!packed_) return add_split(parts);
  const auto token = two_.add(parts);
  require(token.has_value(), "the test's chain does not fit into its ring");
  return *token;
}

std::uint16_t ChainRing::add_split(std::span<const common::WireDesc> parts) {
  require(!parts.empty() && parts.size() <= free_.size(),
          "the test's chain does not fit into its ring");
  const std::uint16_t head = free_.back();
  std::vector<std::uint16_t>& at = taken_[head];
  at.clear();
  for (std::size_t i = 0; i < parts.size(); ++i) {
    at.push_back(free_.back());
    free_.pop_back();
  }
  for (std::size_t i = 0; i < parts.size(); ++i) {
    const bool last = i + 1 == parts.size();
    const auto flags =
        static_cast<std::uint16_t>(parts[i].flags.get() | (last ? 0 : common::kDescNext));
    one_.set_desc(at[i], parts[i].addr.get(), parts[i].len.get(), flags,
                  last ? std::uint16_t{0} : at[i + 1]);
  }
  one_.offer(head);
  return head;
}

std::optional<ChainRing::Done> ChainRing::take() {
  if (packed_) {
    const auto used = two_.take();
    if (!used) return std::nullopt;
    return Done{used->token, used->len};
  }
  const auto used = one_.take();
  if (!used) return std::nullopt;
  const std::uint32_t head = used->id.get();
  require(head < taken_.size() && !taken_[head].empty(),
          "the device returned a chain that is not out: " + std::to_string(head));
  free_.insert(free_.end(), taken_[head].begin(), taken_[head].end());
  taken_[head].clear();
  return Done{static_cast<std::uint16_t>(head), used->len.get()};
}

}  // namespace fakes
