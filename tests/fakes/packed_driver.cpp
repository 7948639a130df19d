#include "tests/fakes/packed_driver.h"

#include <cstring>
#include <string>
#include <utility>

#include "tests/fakes/failure.h"

namespace fakes {

using common::kPackedAvail;
using common::kPackedUsed;
using common::PackedPlace;
using common::WirePackedDesc;

PackedDriver::PackedDriver(std::uint16_t size, const PackedParts& parts, bool event_idx,
                           std::uint16_t first_id)
    : size_(size),
      event_idx_(event_idx),
      first_id_(first_id),
      parts_(parts),
      free_(size),
      descriptors_(size, 0) {
  std::memset(parts.ring, 0, common::packed_ring_bytes(size));
  std::memset(parts.driver_area, 0, common::kPackedEventBytes);
  std::memset(parts.device_area, 0, common::kPackedEventBytes);
  for (std::uint16_t i = size; i > 0; --i) tokens_.push_back(static_cast<std::uint16_t>(i - 1));
}

void PackedDriver::step(PackedPlace& at, std::uint32_t count) const noexcept {
  const std::uint32_t index = at.index + count;
  if (index >= size_) at.wrap = !at.wrap;
  at.index = static_cast<std::uint16_t>(index >= size_ ? index - size_ : index);
}

std::uint16_t* PackedDriver::half(std::byte* area, std::uint64_t offset) noexcept {
  return reinterpret_cast<std::uint16_t*>(area + offset);
}

std::uint16_t* PackedDriver::flags_at(std::uint16_t index) const noexcept {
  return half(parts_.ring, index * sizeof(WirePackedDesc) + common::kPackedDescFlagsOffset);
}

std::optional<std::uint16_t> PackedDriver::add(std::span<const common::WireDesc> parts) {
  if (parts.empty() || parts.size() > free_) return std::nullopt;
  const std::uint16_t token = tokens_.back();
  tokens_.pop_back();
  for (std::size_t i = 0; i < parts.size(); ++i) {
    const bool last = i + 1 == parts.size();
    WirePackedDesc desc{.addr = parts[i].addr,
                        .len = parts[i].len,
                        .id = common::Le16(static_cast<std::uint16_t>(first_id_ + token)),
                        .flags = common::Le16(*flags_at(next_avail_.index))};
    const auto flags = static_cast<std::uint16_t>(
        (parts[i].flags.get() & (common::kDescWrite | common::kDescIndirect)) |
        (last ? 0 : common::kDescNext) | available(next_avail_.wrap));
    // 2.8.21.1: the first descriptor's flags are stored once all else is in place.
    if (unpublished_ == 0) {
      first_ = next_avail_;
      first_flags_ = flags;
    } else {
      desc.flags = common::Le16(flags);
    }
    write_desc(next_avail_.index, desc);
    step(next_avail_);
    ++unpublished_;
  }
  free_ = static_cast<std::uint16_t>(free_ - parts.size());
  descriptors_[token] = static_cast<std::uint16_t>(parts.size());
  ++outstanding_;
  return token;
}

bool PackedDriver::publish() noexcept {
  if (unpublished_ == 0) return false;
  __atomic_store_n(flags_at(first_.index), first_flags_, __ATOMIC_RELEASE);
  // Orders the store of the flags before the load of the device's wish: one of the two sides sees
  // the other's.
  __sync_synchronize();  // Not atomic_thread_fence(): GCC refuses it with ThreadSanitizer.
  const bool wanted = wants_kick();
  unpublished_ = 0;
  return wanted;
}

// 2.8.10: literally, descriptor by descriptor.
bool PackedDriver::wants_kick() const noexcept {
  const std::uint16_t flags = device_flags() & common::kPackedEventFlagsMask;
  if (flags != common::kPackedEventDesc) return flags != common::kPackedEventDisable;
  const PackedPlace event = PackedPlace::from(device_off_wrap());
  PackedPlace at = first_;
  for (std::uint32_t i = 0; i < unpublished_; ++i, step(at)) {
    if (at == event) return true;
  }
  return false;
}

bool PackedDriver::is_used(PackedPlace at) const noexcept {
  const std::uint16_t flags = __atomic_load_n(flags_at(at.index), __ATOMIC_ACQUIRE);
  const bool avail = (flags & kPackedAvail) != 0;
  const bool used = (flags & kPackedUsed) != 0;
  return avail == at.wrap && used == at.wrap;
}

// Where nothing is out, what looks used was so before.
bool PackedDriver::has_used() const noexcept { return outstanding_ != 0 && is_used(next_used_); }

std::uint32_t PackedDriver::base() const noexcept {
  PackedPlace at = next_used_;
  for (std::uint16_t left = outstanding_; left > 0 && is_used(at); --left) {
    const auto token = static_cast<std::uint16_t>(desc(at.index).id.get() - first_id_);
    if (token >= size_) break;
    step(at, descriptors_[token]);
  }
  return common::pack_vring_base({at, at});
}

std::optional<PackedDriver::Used> PackedDriver::take() {
  if (!has_used()) return std::nullopt;
  const WirePackedDesc done = desc(next_used_.index);
  const auto token = static_cast<std::uint16_t>(done.id.get() - first_id_);
  require(token < size_ && descriptors_[token] != 0,
          "the device returned a buffer that is not out: " + std::to_string(done.id.get()));
  const std::uint16_t count = std::exchange(descriptors_[token], std::uint16_t{0});
  step(next_used_, count);
  free_ = static_cast<std::uint16_t>(free_ + count);
  --outstanding_;
  tokens_.push_back(token);
  // 2.8.4: without WRITE the length says nothing.
  const bool written = (done.flags.get() & common::kDescWrite) != 0;
  return Used{token, written ? done.len.get() : 0, done.flags.get()};
}

bool PackedDriver::enable_interrupts() noexcept {
  if (event_idx_) {
    interrupt_after(0);
  } else {
    store_driver_area(0, common::kPackedEventEnable);
  }
  // Orders our wish before the last look at the flags.
  __sync_synchronize();
  return !has_used();
}

void PackedDriver::disable_interrupts() noexcept {
  store_driver_area(*half(parts_.driver_area, 0), common::kPackedEventDisable);
}

void PackedDriver::interrupt_after(std::uint32_t descriptors) noexcept {
  PackedPlace at = next_used_;
  step(at, descriptors);
  store_driver_area(at.word(), common::kPackedEventDesc);
}

void PackedDriver::start_at(PackedPlace place) noexcept {
  next_avail_ = next_used_ = place;
  // As they are left by whoever went round before: used, and each with its round's counter.
  for (std::uint16_t i = 0; i < size_; ++i) {
    const bool wrap = i < place.index ? place.wrap : !place.wrap;
    store_flags(i, wrap ? kPackedAvail | kPackedUsed : std::uint16_t{0});
  }
}

WirePackedDesc PackedDriver::desc(std::uint16_t index) const noexcept {
  WirePackedDesc copy;
  std::memcpy(&copy, parts_.ring + index * sizeof(copy), sizeof(copy));
  return copy;
}

std::uint16_t PackedDriver::device_flags() const noexcept {
  return __atomic_load_n(half(parts_.device_area, common::kPackedEventFlagsOffset),
                         __ATOMIC_ACQUIRE);
}

std::uint16_t PackedDriver::device_off_wrap() const noexcept {
  return __atomic_load_n(half(parts_.device_area, common::kPackedEventOffWrapOffset),
                         __ATOMIC_ACQUIRE);
}

void PackedDriver::write_desc(std::uint16_t index, const WirePackedDesc& desc) noexcept {
  std::byte* const at = parts_.ring + index * sizeof(desc);
  std::memcpy(at, &desc, common::kPackedDescFlagsOffset);
  store_flags(index, desc.flags.get());
}

void PackedDriver::store_flags(std::uint16_t index, std::uint16_t flags) noexcept {
  __atomic_store_n(flags_at(index), flags, __ATOMIC_RELEASE);
}

void PackedDriver::store_driver_area(std::uint16_t off_wrap, std::uint16_t flags) noexcept {
  __atomic_store_n(half(parts_.driver_area, common::kPackedEventOffWrapOffset), off_wrap,
                   __ATOMIC_RELAXED);
  __atomic_store_n(half(parts_.driver_area, common::kPackedEventFlagsOffset), flags,
                   __ATOMIC_RELEASE);
}

}  // namespace fakes
