// tests/fakes/logged_ram.h: a guest's memory with a migration's log beside it, for tests that run a
// queue in their own thread: what the queue has changed, and what it has marked.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <iterator>
#include <set>
#include <span>
#include <vector>

#include "common/dirty_log_wire.h"
#include "common/ipc/worker_messages.h"
#include "tests/fakes/guest_driver.h"

namespace fakes {

class LoggedRam {
 public:
  using Pages = std::set<std::uint64_t>;

  explicit LoggedRam(GuestRam& ram, std::uint64_t spare_bytes = 0) : ram_(ram) {
    const common::GuestRegion& last = ram.regions().back();
    bytes_ = common::dirty_log::bytes_for(last.start.value + last.bytes) + spare_bytes;
    store_.assign(kGuard + bytes_ + kGuard, kGuardByte);
    std::ranges::fill(bits(), std::byte{0});
  }

  [[nodiscard]] std::span<std::byte> bits() { return std::span(store_).subspan(kGuard, bytes_); }
  // Tells a ring that there is a log.
  void describe(common::ipc::RingStart& start) const {
    start.has_log = 1;
    start.log_bytes = bytes_;
    start.log_used_addr = start.used_addr;
  }

  void remember() {
    then_.clear();
    for (const common::GuestRegion& region : ram_.regions()) {
      then_.emplace_back(region.host, region.host + region.bytes);
    }
  }
  // Since remember().
  [[nodiscard]] Pages changed() const {
    constexpr std::uint64_t kPage = common::dirty_log::kPageBytes;
    Pages pages;
    for (std::size_t i = 0; i < then_.size(); ++i) {
      const common::GuestRegion& region = ram_.regions()[i];
      for (std::uint64_t at = 0; at < region.bytes; at += kPage) {
        const std::uint64_t here = std::min(kPage, region.bytes - at);
        if (std::memcmp(region.host + at, &then_[i][at], here) == 0) continue;
        pages.insert((region.start.value + at) / kPage);
      }
    }
    return pages;
  }
  [[nodiscard]] Pages marked() {
    Pages pages;
    for (std::uint64_t bit = 0; bit < bytes_ * 8; ++bit) {
      if ((bits()[bit / 8] >> (bit % 8) & std::byte{1}) != std::byte{0}) pages.insert(bit);
    }
    return pages;
  }
  void clear() { std::ranges::fill(bits(), std::byte{0}); }
  // Changed, and not marked.
  [[nodiscard]] Pages lost() {
    const Pages seen = marked();
    Pages pages;
    std::ranges::set_difference(changed(), seen, std::inserter(pages, pages.end()));
    return pages;
  }
  [[nodiscard]] bool guards_are_intact() const {
    const auto is_guard = [](std::byte byte) { return byte == kGuardByte; };
    return std::all_of(store_.begin(), store_.begin() + kGuard, is_guard) &&
           std::all_of(store_.end() - kGuard, store_.end(), is_guard);
  }

 private:
  static constexpr std::ptrdiff_t kGuard = 64;
  static constexpr std::byte kGuardByte{0x5a};

  GuestRam& ram_;
  std::uint64_t bytes_ = 0;
  std::vector<std::byte> store_;
  std::vector<std::vector<std::byte>> then_;
};

}  // namespace fakes
