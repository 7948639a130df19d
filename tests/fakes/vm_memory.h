// tests/fakes/vm_memory.h: a virtual machine's memory as its VMM holds it: shared files, mapped, at
// guest-physical addresses with holes between them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "common/fd.h"

namespace fakes {

// One entry of the memory table, as SET_MEM_TABLE and ADD_MEM_REG carry it.
struct VmRegion {
  std::uint64_t guest_addr = 0;
  std::uint64_t bytes = 0;
  std::uint64_t vmm_addr = 0;  // "User address": what SET_VRING_ADDR counts in.
  std::uint64_t file_offset = 0;
};

class VmMemory {
 public:
  struct Piece {
    std::uint64_t guest_addr = 0;
    std::uint64_t bytes = 0;
    std::uint64_t file_offset = 0;  // The region starts this far into its file.
    bool huge_pages = false;
    bool gpa_as_vmm_addr = false;  // As libblkio and SPDK: user address == guest address.
    const char* name = "bulkhead-guest-ram";
  };

  VmMemory() = default;
  explicit VmMemory(std::span<const Piece> pieces);
  VmMemory(const VmMemory&) = delete;
  VmMemory& operator=(const VmMemory&) = delete;
  ~VmMemory();

  // A new memfd, mapped and zeroed. Returns its number in regions().
  std::size_t add(const Piece& piece);

  [[nodiscard]] const std::vector<VmRegion>& regions() const noexcept { return regions_; }
  [[nodiscard]] common::FdRef file(std::size_t region) const;
  [[nodiscard]] std::vector<common::FdRef> files() const;

  // Where [guest_addr, guest_addr + bytes) is for us; fails unless it lies in one region.
  [[nodiscard]] std::byte* at(std::uint64_t guest_addr, std::uint64_t bytes = 1) const;
  [[nodiscard]] std::span<std::byte> span(std::uint64_t guest_addr, std::uint64_t bytes) const {
    return {at(guest_addr, bytes), bytes};
  }
  [[nodiscard]] std::uint64_t vmm_addr(std::uint64_t guest_addr) const;

 private:
  struct Mapping {
    common::Fd file;
    std::byte* host = nullptr;
    std::uint64_t bytes = 0;  // Of the whole file.
  };
  [[nodiscard]] std::size_t find(std::uint64_t guest_addr, std::uint64_t bytes) const;

  std::vector<VmRegion> regions_;
  std::vector<Mapping> mappings_;
};

}  // namespace fakes
