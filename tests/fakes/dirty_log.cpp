#include "tests/fakes/dirty_log.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cstring>

#include "common/virtqueue_wire.h"
#include "tests/fakes/failure.h"

namespace fakes {
namespace {

constexpr std::byte kGuard{0xa5};

}  // namespace

void add_pages(Pages& to, std::uint64_t addr, std::uint64_t bytes) {
  if (bytes == 0) return;
  for (std::uint64_t page = addr / kLogPageBytes; page <= (addr + bytes - 1) / kLogPageBytes;
       ++page) {
    to.insert(page);
  }
}

Pages pages_of_offers(const RingPlace& place) {
  Pages pages;
  add_pages(pages, place.avail, common::avail_bytes(place.size, true));
  return pages;
}

std::string missing(const Pages& left, const Pages& right) {
  std::string text;
  for (const std::uint64_t page : left) {
    if (!right.contains(page)) text += std::to_string(page * kLogPageBytes) + " ";
  }
  return text;
}

std::uint64_t DirtyLog::bytes_needed(const VmMemory& memory) {
  std::uint64_t end = 0;
  for (const VmRegion& region : memory.regions()) {
    end = std::max(end, region.guest_addr + region.bytes);
  }
  return (end / kLogPageBytes + 7) / 8;
}

DirtyLog::DirtyLog(std::uint64_t bytes, std::uint64_t offset)
    : bytes_(bytes),
      offset_(offset),
      file_(::memfd_create("bulkhead-dirty-log", MFD_CLOEXEC | MFD_ALLOW_SEALING)) {
  require_call(file_.valid(), "memfd_create");
  const std::uint64_t all = offset + bytes + kLogPageBytes;
  require_call(::ftruncate(file_.ref().number, static_cast<off_t>(all)) == 0, "ftruncate");
  void* const host =
      ::mmap(nullptr, all, PROT_READ | PROT_WRITE, MAP_SHARED, file_.ref().number, 0);
  require_call(host != MAP_FAILED, "map a log");
  whole_ = {static_cast<std::byte*>(host), all};
  std::ranges::fill(whole_.first(offset), kGuard);
  std::ranges::fill(whole_.subspan(offset + bytes), kGuard);
}

DirtyLog::~DirtyLog() { ::munmap(whole_.data(), whole_.size()); }

Pages DirtyLog::take() {
  Pages pages;
  const std::span<std::byte> log = bits();
  for (std::uint64_t at = 0; at < log.size(); ++at) {
    auto* const byte = reinterpret_cast<std::uint8_t*>(&log[at]);
    if (__atomic_load_n(byte, __ATOMIC_RELAXED) == 0) continue;
    std::uint8_t taken = __atomic_exchange_n(byte, std::uint8_t{0}, __ATOMIC_SEQ_CST);
    while (taken != 0) {
      const int bit = std::countr_zero(taken);
      pages.insert(at * 8 + static_cast<std::uint64_t>(bit));
      taken = static_cast<std::uint8_t>(taken & (taken - 1));
    }
  }
  return pages;
}

bool DirtyLog::nothing_outside_changed() const {
  const auto is_guard = [](std::byte byte) { return byte == kGuard; };
  return std::ranges::all_of(whole_.first(offset_), is_guard) &&
         std::ranges::all_of(whole_.subspan(offset_ + bytes_), is_guard);
}

void DirtyLog::shrink_to(std::uint64_t file_bytes) {
  require_call(::ftruncate(file_.ref().number, static_cast<off_t>(file_bytes)) == 0, "ftruncate");
}

MemorySnapshot::MemorySnapshot(const VmMemory& memory) : memory_(memory) {
  for (const VmRegion& region : memory.regions()) {
    const auto now = memory.span(region.guest_addr, region.bytes);
    regions_.emplace_back(now.begin(), now.end());
  }
}

Pages MemorySnapshot::changed() const {
  Pages pages;
  for (std::size_t i = 0; i < regions_.size(); ++i) {
    const VmRegion& region = memory_.regions()[i];
    const auto now = memory_.span(region.guest_addr, region.bytes);
    for (std::uint64_t at = 0; at < region.bytes; at += kLogPageBytes) {
      const std::uint64_t bytes = std::min(kLogPageBytes, region.bytes - at);
      if (std::memcmp(&now[at], &regions_[i][at], bytes) != 0) {
        pages.insert((region.guest_addr + at) / kLogPageBytes);
      }
    }
  }
  return pages;
}

}  // namespace fakes
