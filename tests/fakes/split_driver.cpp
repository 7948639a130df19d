#include "tests/fakes/split_driver.h"

#include <cstring>

#include "tests/fakes/failure.h"

namespace fakes {
namespace {

constexpr std::size_t kIdx = 1;   // In halves from the start of either ring: flags, idx,
constexpr std::size_t kRing = 2;  // then the entries.
constexpr std::size_t kElemHalves = sizeof(common::WireUsedElem) / sizeof(std::uint16_t);

std::uint16_t load_acquire(const std::uint16_t* from) noexcept {
  return __atomic_load_n(from, __ATOMIC_ACQUIRE);
}

std::uint16_t* halves_at(const VmMemory& memory, std::uint64_t addr, std::uint64_t bytes) {
  std::byte* const host = memory.at(addr, bytes);
  std::memset(host, 0, bytes);
  return reinterpret_cast<std::uint16_t*>(host);
}

// virtio 1.2, 2.7.10.1: the event index lies within what has just been published.
bool crossed(std::uint16_t event, std::uint16_t now, std::uint16_t before) noexcept {
  return static_cast<std::uint16_t>(now - event - 1) < static_cast<std::uint16_t>(now - before);
}

}  // namespace

RingPlace RingPlace::packed_from(std::uint64_t start, std::uint16_t size) noexcept {
  const std::uint64_t avail = start + common::desc_table_bytes(size);
  const std::uint64_t after = avail + common::avail_bytes(size, true);
  return {.size = size, .desc = start, .avail = avail, .used = (after + 4095) / 4096 * 4096};
}

std::uint64_t RingPlace::end() const noexcept { return used + common::used_bytes(size, true); }

VringAddr RingPlace::vring_addr(std::uint32_t index, const VmMemory& memory, bool logged) const {
  return {.index = index,
          .flags = logged ? kVringFlagLog : 0,
          .desc = memory.vmm_addr(desc),
          .used = memory.vmm_addr(used),
          .avail = memory.vmm_addr(avail),
          .log = logged ? used : 0};
}

SplitDriver::SplitDriver(const RingPlace& place, const VmMemory& memory, bool event_idx)
    : size_(place.size),
      event_idx_(event_idx),
      desc_(reinterpret_cast<common::WireDesc*>(
          halves_at(memory, place.desc, common::desc_table_bytes(place.size)))),
      avail_(halves_at(memory, place.avail, common::avail_bytes(place.size, true))),
      used_(halves_at(memory, place.used, common::used_bytes(place.size, true))) {}

void SplitDriver::set_desc(std::uint16_t index, std::uint64_t addr, std::uint32_t len,
                           std::uint16_t flags, std::uint16_t next) noexcept {
  desc_[index] = {.addr = common::Le64(addr),
                  .len = common::Le32(len),
                  .flags = common::Le16(flags),
                  .next = common::Le16(next)};
}

void SplitDriver::offer(std::uint16_t head) noexcept {
  avail_[kRing + avail_next_ % size_] = head;
  ++avail_next_;
}

bool SplitDriver::publish() noexcept {
  if (avail_next_ == avail_published_) return false;
  const std::uint16_t before = avail_published_;
  avail_published_ = avail_next_;
  __atomic_store_n(avail_ + kIdx, avail_next_, __ATOMIC_RELEASE);
  // Orders the store of avail.idx before the load of the device's wish: one of the two sides sees
  // the other's.
  __sync_synchronize();  // Not atomic_thread_fence(): GCC refuses it with ThreadSanitizer.
  if (event_idx_) {
    const std::uint16_t event = load_acquire(used_ + kRing + size_ * kElemHalves);
    return crossed(event, avail_next_, before);
  }
  return (load_acquire(used_) & common::kUsedNoNotify) == 0;
}

bool SplitDriver::has_used() const noexcept { return used_idx() != used_next_; }

std::uint16_t SplitDriver::used_idx() const noexcept { return load_acquire(used_ + kIdx); }

std::optional<common::WireUsedElem> SplitDriver::take() noexcept {
  if (!has_used()) return std::nullopt;
  common::WireUsedElem elem;
  std::memcpy(&elem, used_ + kRing + (used_next_ % size_) * kElemHalves, sizeof(elem));
  ++used_next_;
  return elem;
}

bool SplitDriver::enable_interrupts() noexcept {
  if (event_idx_) {
    __atomic_store_n(avail_ + kRing + size_, used_next_, __ATOMIC_RELAXED);
  } else {
    __atomic_store_n(avail_, std::uint16_t{0}, __ATOMIC_RELAXED);
  }
  // Orders our wish before the last look at used.idx.
  __sync_synchronize();  // Not atomic_thread_fence(): GCC refuses it with ThreadSanitizer.
  return !has_used();
}

void SplitDriver::disable_interrupts() noexcept {
  // With EVENT_IDX an event index that lies behind us is silence enough.
  if (!event_idx_) __atomic_store_n(avail_, common::kAvailNoInterrupt, __ATOMIC_RELAXED);
}

void SplitDriver::start_at(std::uint16_t index) noexcept {
  avail_next_ = avail_published_ = used_next_ = index;
  __atomic_store_n(avail_ + kIdx, index, __ATOMIC_RELAXED);
  __atomic_store_n(used_ + kIdx, index, __ATOMIC_RELEASE);
}

void SplitDriver::store_avail_idx(std::uint16_t value) noexcept {
  __atomic_store_n(avail_ + kIdx, value, __ATOMIC_RELEASE);
}

void SplitDriver::store_avail_entry(std::uint16_t slot, std::uint16_t head) noexcept {
  avail_[kRing + slot % size_] = head;
}

}  // namespace fakes
