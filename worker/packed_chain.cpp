#include "worker/packed_chain.h"

#include "common/checked.h"

namespace worker {
namespace {

using common::GuestAddr;
using common::WirePackedDesc;
using common::ipc::WorkerFault;

constexpr std::uint16_t kKnownFlags = common::kDescNext | common::kDescWrite |
                                      common::kDescIndirect | common::kPackedAvail |
                                      common::kPackedUsed;

}  // namespace

PackedChainReader::Done PackedChainReader::read(std::uint16_t head, Chain& out) noexcept {
  begin(ring_.place());
  const WirePackedDesc& first = ring_.chain().front();
  const bool indirect = (first.flags.get() & common::kDescIndirect) != 0;
  if (!(indirect ? read_indirect(first) : read_listed())) return common::fail(fault_);
  finish(out);
  out.head = head;
  return {};
}

// 2.8.6: descriptors of the ring, one after the other.
bool PackedChainReader::read_listed() noexcept {
  for (const WirePackedDesc& desc : ring_.chain()) {
    const std::uint16_t flags = desc.flags.get();
    if ((flags & ~kKnownFlags) != 0) return refuse(WorkerFault::kUnknownDescFlags, flags, head_);
    // 2.8.19: none in a list that is linked by NEXT.
    if ((flags & common::kDescIndirect) != 0) return refuse(WorkerFault::kIndirectAndNext, head_);
    if (!append(desc.addr.get(), desc.len.get(), (flags & common::kDescWrite) != 0)) return false;
  }
  return true;
}

// 2.8.7: all of the table's entries, one after the other. Of their flags only WRITE means
// something, and of the holder's flags WRITE means nothing.
bool PackedChainReader::read_indirect(const WirePackedDesc& holder) noexcept {
  const std::uint16_t flags = holder.flags.get();
  if ((flags & ~kKnownFlags) != 0) return refuse(WorkerFault::kUnknownDescFlags, flags, head_);
  if (!indirect_allowed_) return refuse(WorkerFault::kIndirectNotNegotiated, head_);
  if ((flags & common::kDescNext) != 0) return refuse(WorkerFault::kIndirectAndNext, head_);
  const std::uint32_t bytes = holder.len.get();
  if (bytes == 0 || bytes % sizeof(WirePackedDesc) != 0) {
    return refuse(WorkerFault::kIndirectTableSize, bytes, head_);
  }
  const auto entries = bytes / static_cast<std::uint32_t>(sizeof(WirePackedDesc));
  if (entries > kIndirectChainMax) {
    return refuse(WorkerFault::kChainTooLong, head_, kIndirectChainMax);
  }
  // Most tables lie in one piece, and then there is one look-up for all of their descriptors.
  const std::uint64_t start = holder.addr.get();
  const auto whole = memory_.window(GuestAddr{start}, bytes, 1);
  for (std::uint32_t i = 0; i < entries; ++i) {
    WirePackedDesc desc;
    if (whole) [[likely]] {
      desc = whole->load<WirePackedDesc>(std::uint64_t{i} * sizeof(WirePackedDesc));
    } else if (!fetch_by_address(start, i, desc)) {
      return false;
    }
    const bool writable = (desc.flags.get() & common::kDescWrite) != 0;
    if (!append(desc.addr.get(), desc.len.get(), writable)) return false;
  }
  return true;
}

bool PackedChainReader::fetch_by_address(std::uint64_t table, std::uint32_t index,
                                         WirePackedDesc& desc) noexcept {
  const std::uint64_t offset = std::uint64_t{index} * sizeof(WirePackedDesc);
  const auto at = common::checked_add(table, offset);
  if (!at) return refuse(WorkerFault::kUnmappedBuffer, table, offset);
  const auto copy = memory_.copy_in<WirePackedDesc>(GuestAddr{*at});
  if (!copy) return refuse(WorkerFault::kUnmappedBuffer, *at, sizeof(WirePackedDesc));
  desc = *copy;
  return true;
}

}  // namespace worker
