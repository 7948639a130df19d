#include "tests/fakes/vm_memory.h"

#include <sys/mman.h>
#include <unistd.h>

#include <string>
#include <utility>

#include "tests/fakes/failure.h"

namespace fakes {

VmMemory::VmMemory(std::span<const Piece> pieces) {
  for (const Piece& piece : pieces) add(piece);
}

VmMemory::~VmMemory() {
  for (const Mapping& mapping : mappings_) ::munmap(mapping.host, mapping.bytes);
}

std::size_t VmMemory::add(const Piece& piece) {
  const unsigned flags = MFD_CLOEXEC | MFD_ALLOW_SEALING | (piece.huge_pages ? MFD_HUGETLB : 0U);
  common::Fd file(::memfd_create(piece.name, flags));
  require_call(file.valid(), "memfd_create");
  const std::uint64_t total = piece.file_offset + piece.bytes;
  require_call(::ftruncate(file.ref().number, static_cast<off_t>(total)) == 0, "ftruncate memfd");
  void* const host = ::mmap(nullptr, total, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE,
                            file.ref().number, 0);
  require_call(host != MAP_FAILED, "map guest memory");
  const auto host_start = reinterpret_cast<std::uint64_t>(host) + piece.file_offset;
  regions_.push_back({.guest_addr = piece.guest_addr,
                      .bytes = piece.bytes,
                      .vmm_addr = piece.gpa_as_vmm_addr ? piece.guest_addr : host_start,
                      .file_offset = piece.file_offset});
  mappings_.push_back({std::move(file), static_cast<std::byte*>(host), total});
  return regions_.size() - 1;
}

common::FdRef VmMemory::file(std::size_t region) const { return mappings_.at(region).file.ref(); }

std::vector<common::FdRef> VmMemory::files() const {
  std::vector<common::FdRef> files;
  for (const Mapping& mapping : mappings_) files.push_back(mapping.file.ref());
  return files;
}

std::size_t VmMemory::find(std::uint64_t guest_addr, std::uint64_t bytes) const {
  for (std::size_t i = 0; i < regions_.size(); ++i) {
    const VmRegion& region = regions_[i];
    if (guest_addr < region.guest_addr) continue;
    const std::uint64_t inside = guest_addr - region.guest_addr;
    if (inside < region.bytes && bytes <= region.bytes - inside) return i;
  }
  throw Failure("the test used guest memory that it has not made: " + std::to_string(guest_addr));
}

std::byte* VmMemory::at(std::uint64_t guest_addr, std::uint64_t bytes) const {
  const std::size_t i = find(guest_addr, bytes);
  return mappings_[i].host + regions_[i].file_offset + (guest_addr - regions_[i].guest_addr);
}

std::uint64_t VmMemory::vmm_addr(std::uint64_t guest_addr) const {
  const std::size_t i = find(guest_addr, 1);
  return regions_[i].vmm_addr + (guest_addr - regions_[i].guest_addr);
}

}  // namespace fakes
