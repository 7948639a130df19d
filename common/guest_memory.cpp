#include "common/guest_memory.h"

#include <algorithm>

namespace common {

const GuestRegion* GuestMemory::search(GuestAddr addr) const noexcept {
  const auto after = std::upper_bound(
      regions_.begin(), regions_.end(), addr,
      [](GuestAddr wanted, const GuestRegion& region) { return wanted < region.start; });
  if (after == regions_.begin()) return nullptr;
  const auto candidate = after - 1;
  if (addr.value - candidate->start.value >= candidate->bytes) return nullptr;
  last_hit_ = static_cast<std::size_t>(candidate - regions_.begin());
  return &*candidate;
}

std::optional<GuestMemory::Place> GuestMemory::place_of(const std::byte* host,
                                                        std::uint64_t bytes) const noexcept {
  const auto at = reinterpret_cast<std::uintptr_t>(host);
  const auto holds = [at](const GuestRegion& region) {
    return at - reinterpret_cast<std::uintptr_t>(region.host) < region.bytes;
  };
  const GuestRegion* region = last_hit_ < regions_.size() ? &regions_[last_hit_] : nullptr;
  if (region == nullptr || !holds(*region)) {
    const auto found = std::find_if(regions_.begin(), regions_.end(), holds);
    if (found == regions_.end()) return std::nullopt;
    region = &*found;
  }
  const std::uint64_t offset = at - reinterpret_cast<std::uintptr_t>(region->host);
  return Place{GuestAddr{region->start.value + offset}, std::min(bytes, region->bytes - offset)};
}

std::optional<GuestWindow> GuestMemory::window(GuestAddr addr, std::uint64_t bytes,
                                               std::uint64_t alignment) const noexcept {
  const iovec whole = translate(addr, bytes);
  if (bytes == 0 || whole.iov_len != bytes) return std::nullopt;
  const auto host = reinterpret_cast<std::uintptr_t>(whole.iov_base);
  if (addr.value % alignment != 0 || host % alignment != 0) return std::nullopt;
  return GuestWindow(static_cast<std::byte*>(whole.iov_base), bytes);
}

bool GuestMemory::copy_bytes(GuestAddr from, std::span<std::byte> to) const noexcept {
  std::uint64_t at = from.value;
  while (!to.empty()) {
    const iovec part = translate(GuestAddr{at}, to.size());
    if (part.iov_len == 0) return false;
    std::memcpy(to.data(), part.iov_base, part.iov_len);
    to = to.subspan(part.iov_len);
    at += part.iov_len;  // Wraps only if a region ends at 2^64, and then nothing is mapped at 0.
  }
  return true;
}

std::size_t GuestMemory::gather(std::span<const iovec> from, std::span<std::byte> to) noexcept {
  std::size_t copied = 0;
  for (const iovec& part : from) {
    const std::size_t bytes = std::min(part.iov_len, to.size() - copied);
    std::memcpy(to.data() + copied, part.iov_base, bytes);
    copied += bytes;
    if (copied == to.size()) break;
  }
  asm volatile("" ::: "memory");
  return copied;
}

std::size_t GuestMemory::scatter(std::span<const std::byte> from,
                                 std::span<const iovec> to) noexcept {
  std::size_t copied = 0;
  for (const iovec& part : to) {
    const std::size_t bytes = std::min(part.iov_len, from.size() - copied);
    std::memcpy(part.iov_base, from.data() + copied, bytes);
    copied += bytes;
    if (copied == from.size()) break;
  }
  return copied;
}

}  // namespace common
