// broker/session/memory_table.h: the guest's memory as the front-end describes it: checked, kept as
// descriptors, and never mapped here.
//
// Not trusted: the VMM. Every address, size and offset is its own, and so is the file behind each
// descriptor (which it may still shrink later: then the worker that maps it is killed by SIGBUS,
// and nobody else).
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "broker/session/end.h"
#include "broker/session/vhost_wire.h"
#include "common/addresses.h"
#include "common/fd.h"
#include "common/guest_map.h"
#include "common/ipc/channel.h"

namespace session {

class MemoryTable {
 public:
  struct Region {
    MemoryRegion place{};
    std::uint64_t device = 0;  // Which file: for telling a repeated table from a new one.
    std::uint64_t inode = 0;
    common::Fd file;
    std::uint32_t uses = 1;  // How often it was added: so often it has to be removed.

    [[nodiscard]] bool same_as(const Region& other) const noexcept;
  };

  // SET_MEM_TABLE. Nothing changes, and generation() stays, where the table is what is there
  // already: the same places in the same files (SPDK and crosvm repeat theirs).
  [[nodiscard]] Outcome<void> set(std::span<const MemoryRegion> places,
                                  common::ipc::FdList& files) noexcept;
  // ADD_MEM_REG. One that is there already is only counted: QEMU before 8.0 adds each region once
  // for each pair of queues of a network card, and removes it as often.
  [[nodiscard]] Outcome<void> add(const MemoryRegion& place, common::Fd file) noexcept;
  // REM_MEM_REG: "identified by its guest address, user address and size".
  [[nodiscard]] Outcome<void> remove(const MemoryRegion& place) noexcept;

  // Where a ring part of `bytes` bytes lies for the guest, if it lies in one region.
  [[nodiscard]] std::optional<common::GuestAddr> translate(common::VmmAddr addr,
                                                           std::uint64_t bytes) const noexcept;

  [[nodiscard]] bool empty() const noexcept { return count_ == 0; }
  // Sorted by guest address.
  [[nodiscard]] std::span<const Region> regions() const noexcept {
    return {regions_.data(), count_};
  }
  // Goes up whenever the table changes: workers that mapped an older one are replaced.
  [[nodiscard]] std::uint32_t generation() const noexcept { return generation_; }

 private:
  std::array<Region, common::kMemoryRegionsMax> regions_;
  std::size_t count_ = 0;
  std::uint32_t generation_ = 0;
};

}  // namespace session
