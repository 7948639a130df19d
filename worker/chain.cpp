#include "worker/chain.h"

#include "common/checked.h"

namespace worker {
namespace {

using common::GuestAddr;
using common::WireDesc;
using common::ipc::WorkerFault;

constexpr std::uint16_t kKnownFlags =
    common::kDescNext | common::kDescWrite | common::kDescIndirect;

}  // namespace

ChainReader::Done ChainReader::read(std::uint16_t head, Chain& out) noexcept {
  begin(head);
  indirect_found_ = false;

  // 2.7.5.3.1: no chain is longer than the queue.
  Table table{table_, {}, queue_size_, queue_size_, false};
  if (!walk(table, head)) return common::fail(fault_);
  // 2.7.5.3.2: any number of plain descriptors may come before an indirect one, which is the last.
  if (indirect_found_ && !(enter_indirect(table) && walk(table, 0))) return common::fail(fault_);

  finish(out);
  out.head = head;
  return {};
}

// The limit is also what ends a chain that loops.
bool ChainReader::walk(const Table& table, std::uint32_t index) noexcept {
  for (std::uint32_t step = 0; step < table.chain_max; ++step) {
    WireDesc desc;
    if (!fetch(table, index, desc)) return false;
    const std::uint16_t flags = desc.flags.get();
    if ((flags & ~kKnownFlags) != 0) return refuse(WorkerFault::kUnknownDescFlags, flags, head_);
    if ((flags & common::kDescIndirect) != 0) {
      // 2.7.5.3.1: one table for a chain.
      if (table.indirect) return refuse(WorkerFault::kNestedIndirect, head_);
      holder_ = desc;
      indirect_found_ = true;
      return true;
    }
    if (!append(desc.addr.get(), desc.len.get(), (flags & common::kDescWrite) != 0)) return false;
    if ((flags & common::kDescNext) == 0) return true;
    index = desc.next.get();
  }
  return refuse(WorkerFault::kChainTooLong, head_, table.chain_max);
}

// The only fetch of a descriptor.
inline bool ChainReader::fetch(const Table& table, std::uint32_t index, WireDesc& desc) noexcept {
  if (index >= table.entries) return refuse(WorkerFault::kIndexOutsideTable, index, table.entries);
  if (table.whole.bytes() == 0) [[unlikely]]
    return fetch_by_address(table, index, desc);
  desc = table.whole.load<WireDesc>(std::uint64_t{index} * sizeof(WireDesc));
  return true;
}

bool ChainReader::fetch_by_address(const Table& table, std::uint32_t index,
                                   WireDesc& desc) noexcept {
  const std::uint64_t offset = std::uint64_t{index} * sizeof(WireDesc);
  const auto at = common::checked_add(table.start.value, offset);
  if (!at) return refuse(WorkerFault::kUnmappedBuffer, table.start.value, offset);
  const auto copy = memory_.copy_in<WireDesc>(GuestAddr{*at});
  if (!copy) return refuse(WorkerFault::kUnmappedBuffer, *at, sizeof(WireDesc));
  desc = *copy;
  return true;
}

bool ChainReader::enter_indirect(Table& table) noexcept {
  // 2.7.5.3.1, in this order. The WRITE flag of the holder means nothing (2.7.5.3.2).
  if (!indirect_allowed_) return refuse(WorkerFault::kIndirectNotNegotiated, head_);
  if ((holder_.flags.get() & common::kDescNext) != 0) {
    return refuse(WorkerFault::kIndirectAndNext, head_);
  }
  const std::uint32_t bytes = holder_.len.get();
  if (bytes == 0 || bytes % sizeof(WireDesc) != 0) {
    return refuse(WorkerFault::kIndirectTableSize, bytes, head_);
  }
  table.start = GuestAddr{holder_.addr.get()};
  table.entries = bytes / static_cast<std::uint32_t>(sizeof(WireDesc));
  table.chain_max = kIndirectChainMax;
  table.indirect = true;
  // Most tables lie in one piece, and then there is one look-up for all of their descriptors.
  table.whole = memory_.window(table.start, bytes, 1).value_or(common::GuestWindow{});
  return true;
}

}  // namespace worker
