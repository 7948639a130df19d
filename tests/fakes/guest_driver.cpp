#include "tests/fakes/guest_driver.h"

#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "common/checked.h"
#include "common/sys.h"

namespace fakes {
namespace {

using common::GuestAddr;
using common::Le16;
using common::Le32;
using common::Le64;
using common::WireDesc;

[[noreturn]] void give_up(const char* what) {
  std::perror(what);
  std::abort();
}

constexpr std::uint64_t kGuardBytes = 4096;

std::uint64_t round_up(std::uint64_t value, std::uint64_t alignment) {
  return common::round_down(value + alignment - 1, alignment);
}

}  // namespace

GuestRam::GuestRam(std::uint64_t bytes, Backing backing, GuestAddr start) : backing_(backing) {
  add_region(start, bytes);
}

GuestRam::~GuestRam() {
  for (const common::GuestRegion& region : regions_) {
    ::munmap(region.host - kGuardBytes, round_up(region.bytes, kGuardBytes) + 2 * kGuardBytes);
  }
}

void GuestRam::add_region(GuestAddr start, std::uint64_t bytes) {
  const std::uint64_t whole = round_up(bytes, kGuardBytes);
  void* const fence = ::mmap(nullptr, whole + 2 * kGuardBytes, PROT_NONE,
                             MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (fence == MAP_FAILED) give_up("mmap guest memory");
  std::byte* const host = static_cast<std::byte*>(fence) + kGuardBytes;

  common::Fd file;
  int flags = MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
  if (backing_ == Backing::kShared) {
    file = common::Fd(::memfd_create("guest-ram", MFD_CLOEXEC));
    if (!file.valid() || ::ftruncate(file.ref().number, static_cast<off_t>(whole)) != 0) {
      give_up("memfd for guest memory");
    }
    flags = MAP_FIXED | MAP_SHARED;
  }
  if (::mmap(host, whole, PROT_READ | PROT_WRITE, flags, file.ref().number, 0) == MAP_FAILED) {
    give_up("mmap guest memory");
  }
  regions_.push_back({start, bytes, host});
  files_.push_back(std::move(file));
  used_.push_back(0);
}

GuestAddr GuestRam::alloc(std::uint64_t bytes, std::uint64_t alignment) {
  for (std::size_t i = 0; i < regions_.size(); ++i) {
    const std::uint64_t at = round_up(used_[i], alignment);
    if (!common::range_within(at, bytes, regions_[i].bytes)) continue;
    used_[i] = at + bytes;
    return GuestAddr{regions_[i].start.value + at};
  }
  errno = ENOMEM;
  give_up("GuestRam::alloc");
}

std::span<std::byte> GuestRam::bytes(GuestAddr addr, std::uint64_t bytes) {
  for (const common::GuestRegion& region : regions_) {
    const std::uint64_t offset = addr.value - region.start.value;
    if (addr >= region.start && common::range_within(offset, bytes, region.bytes)) {
      return {region.host + offset, bytes};
    }
  }
  errno = EFAULT;
  give_up("GuestRam::bytes");
}

void GuestRam::fill(GuestAddr addr, std::uint64_t count, std::uint8_t value) {
  std::memset(bytes(addr, count).data(), value, count);
}

WireDesc make_desc(GuestAddr addr, std::uint32_t bytes, std::uint16_t flags, std::uint16_t next) {
  return {Le64(addr.value), Le32(bytes), Le16(flags), Le16(next)};
}

GuestDriver::GuestDriver(GuestRam& ram, const Options& options)
    : ram_(ram),
      options_(options),
      desc_(ram.alloc(common::desc_table_bytes(options.queue_size), 4096)),
      avail_(ram.alloc(common::avail_bytes(options.queue_size, true), 64)),
      used_(ram.alloc(common::used_bytes(options.queue_size, true), 4096)),
      chains_(options.queue_size),
      next_avail_(options.first_index),
      shown_avail_(options.first_index),
      next_used_(options.first_index) {
  ram.fill(desc_, common::desc_table_bytes(options.queue_size), 0);
  ram.fill(avail_, common::avail_bytes(options.queue_size, true), 0);
  ram.fill(used_, common::used_bytes(options.queue_size, true), 0);
  if (options.packed) {
    const PackedParts parts{
        .ring = ram.bytes(desc_, common::packed_ring_bytes(options.queue_size)).data(),
        .driver_area = ram.bytes(avail_, common::kPackedEventBytes).data(),
        .device_area = ram.bytes(used_, common::kPackedEventBytes).data()};
    packed_ = PackedDriver(options.queue_size, parts, options.event_idx, options.first_id);
    if (options.first_place != common::PackedPlace{}) packed_.start_at(options.first_place);
    return;
  }
  for (std::uint16_t i = options.queue_size; i > 0; --i)
    free_.push_back(static_cast<std::uint16_t>(i - 1));
  store_avail_idx(options.first_index);
  store_used_idx(options.first_index);
  store_used_event(options.first_index);
}

std::uint64_t GuestDriver::ring_features() const {
  return common::kFeatureVersion1 | (options_.event_idx ? common::kFeatureEventIdx : 0) |
         (options_.indirect ? common::kFeatureIndirectDesc : 0) |
         (options_.packed ? common::kFeatureRingPacked : 0);
}

common::ipc::RingStart GuestDriver::ring_start(std::uint64_t device_features) const {
  common::ipc::RingStart start{};
  start.kind = common::ipc::RingStart::kKind;
  start.queue_size = options_.queue_size;
  start.desc_addr = desc_.value;
  start.avail_addr = avail_.value;
  start.used_addr = used_.value;
  start.features = ring_features() | device_features;
  // Where a device goes on that has answered all that it took.
  start.next_avail = options_.packed ? packed_.base() : used_idx();
  start.has_kick = 1;
  start.has_call = 1;
  return start;
}

std::uint16_t* GuestDriver::word(GuestAddr part, std::uint64_t offset) const {
  return reinterpret_cast<std::uint16_t*>(
      ram_.bytes(GuestAddr{part.value + offset}, sizeof(std::uint16_t)).data());
}

std::uint16_t GuestDriver::take_desc() {
  const std::uint16_t index = free_.back();
  free_.pop_back();
  return index;
}

std::uint32_t GuestDriver::free_descriptors() const {
  return options_.packed ? packed_.free_descriptors() : static_cast<std::uint32_t>(free_.size());
}

std::optional<std::uint16_t> GuestDriver::add(std::span<const Buffer> buffers, Layout layout) {
  if (options_.packed) return add_packed(buffers, layout);
  const std::size_t direct = layout == Layout::kDirect  ? buffers.size()
                             : layout == Layout::kMixed ? 2
                                                        : 1;
  if (direct > free_.size()) return std::nullopt;
  const std::uint16_t head = free_.back();
  InRing& chain = chains_[head];
  chain.descriptors.clear();
  for (std::size_t i = 0; i < direct; ++i) chain.descriptors.push_back(take_desc());

  if (layout == Layout::kDirect) {
    write_chain(buffers, head);
  } else if (layout == Layout::kIndirect) {
    write_desc(head, indirect_desc(buffers, head));
  } else {
    const std::uint16_t holder = chain.descriptors[1];
    const Buffer& first = buffers.front();
    const auto flags =
        static_cast<std::uint16_t>(common::kDescNext | (first.writable ? common::kDescWrite : 0));
    write_desc(head, make_desc(first.addr, first.bytes, flags, holder));
    write_desc(holder, indirect_desc(buffers.subspan(1), head));
  }
  offer(head);
  return head;
}

std::optional<std::uint16_t> GuestDriver::add_packed(std::span<const Buffer> buffers,
                                                     Layout layout) {
  std::vector<WireDesc> parts;
  for (const Buffer& buffer : buffers) {
    parts.push_back(make_desc(buffer.addr, buffer.bytes, buffer.writable ? common::kDescWrite : 0));
  }
  if (layout == Layout::kDirect) return packed_.add(parts);
  // 2.8.7: neither links nor ids.
  const GuestAddr table = ram_.alloc(parts.size() * sizeof(common::WirePackedDesc));
  for (std::size_t i = 0; i < parts.size(); ++i) {
    ram_.put(GuestAddr{table.value + i * sizeof(common::WirePackedDesc)},
             common::WirePackedDesc{parts[i].addr, parts[i].len, Le16(0), parts[i].flags});
  }
  const auto bytes = static_cast<std::uint32_t>(parts.size() * sizeof(common::WirePackedDesc));
  const WireDesc holder = make_desc(table, bytes, common::kDescIndirect);
  return packed_.add({&holder, 1});
}

void GuestDriver::write_chain(std::span<const Buffer> buffers, std::uint16_t head) {
  const std::vector<std::uint16_t>& at = chains_[head].descriptors;
  for (std::size_t i = 0; i < buffers.size(); ++i) {
    const bool last = i + 1 == buffers.size();
    const auto flags = static_cast<std::uint16_t>((buffers[i].writable ? common::kDescWrite : 0) |
                                                  (last ? 0 : common::kDescNext));
    write_desc(at[i], make_desc(buffers[i].addr, buffers[i].bytes, flags,
                                last ? std::uint16_t{0} : at[i + 1]));
  }
}

WireDesc GuestDriver::indirect_desc(std::span<const Buffer> buffers, std::uint16_t head) {
  InRing& chain = chains_[head];
  const auto entries = static_cast<std::uint32_t>(buffers.size());
  if (chain.table_entries < entries) {
    chain.table = ram_.alloc(std::uint64_t{entries} * sizeof(WireDesc));
    chain.table_entries = entries;
  }
  for (std::uint32_t i = 0; i < entries; ++i) {
    const bool last = i + 1 == entries;
    const auto flags = static_cast<std::uint16_t>((buffers[i].writable ? common::kDescWrite : 0) |
                                                  (last ? 0 : common::kDescNext));
    write_desc_at(chain.table, i,
                  make_desc(buffers[i].addr, buffers[i].bytes, flags,
                            static_cast<std::uint16_t>(last ? 0 : i + 1)));
  }
  return make_desc(chain.table, entries * static_cast<std::uint32_t>(sizeof(WireDesc)),
                   common::kDescIndirect);
}

void GuestDriver::write_desc(std::uint32_t index, const WireDesc& desc) {
  write_desc_at(desc_, index, desc);
}

void GuestDriver::write_desc_at(GuestAddr table, std::uint32_t index, const WireDesc& desc) {
  ram_.put(GuestAddr{table.value + std::uint64_t{index} * sizeof(WireDesc)}, desc);
}

void GuestDriver::offer(std::uint16_t head) {
  const std::uint64_t slot = next_avail_ % options_.queue_size;
  __atomic_store_n(word(avail_, common::kAvailRingOffset + slot * 2), head, __ATOMIC_RELAXED);
  ++next_avail_;
}

void GuestDriver::store_avail_idx(std::uint16_t value) {
  __atomic_store_n(word(avail_, common::kAvailIdxOffset), value, __ATOMIC_RELEASE);
}

void GuestDriver::store_used_event(std::uint16_t value) {
  const std::uint64_t offset = common::kAvailRingOffset + std::uint64_t{options_.queue_size} * 2;
  __atomic_store_n(word(avail_, offset), value, __ATOMIC_RELEASE);
}

void GuestDriver::store_used_idx(std::uint16_t value) {
  __atomic_store_n(word(used_, common::kUsedIdxOffset), value, __ATOMIC_RELEASE);
}

bool GuestDriver::publish() {
  if (options_.packed) return packed_.publish();
  const std::uint16_t before = shown_avail_;
  shown_avail_ = next_avail_;
  store_avail_idx(shown_avail_);
  __sync_synchronize();  // avail.idx before avail_event (2.7.13.4.1).
  if (!options_.event_idx) return (used_flags() & common::kUsedNoNotify) == 0;
  const std::uint16_t event = avail_event();
  return static_cast<std::uint16_t>(shown_avail_ - event - 1) <
         static_cast<std::uint16_t>(shown_avail_ - before);
}

std::optional<Used> GuestDriver::next_used() {
  if (options_.packed) {
    const auto used = packed_.take();
    return used ? std::optional(Used{used->token, used->len}) : std::nullopt;
  }
  if (used_idx() == next_used_) return std::nullopt;
  const std::uint64_t slot = next_used_ % options_.queue_size;
  const auto elem = ram_.get<common::WireUsedElem>(
      GuestAddr{used_.value + common::kUsedRingOffset + slot * sizeof(common::WireUsedElem)});
  ++next_used_;
  const auto head = static_cast<std::uint16_t>(elem.id.get());
  if (head < chains_.size()) {
    std::vector<std::uint16_t>& taken = chains_[head].descriptors;
    for (auto at = taken.rbegin(); at != taken.rend(); ++at) free_.push_back(*at);
    taken.clear();
  }
  return Used{head, elem.len.get()};
}

bool GuestDriver::enable_calls() {
  if (options_.packed) return !packed_.enable_interrupts();
  if (options_.event_idx) {
    store_used_event(next_used_);
  } else {
    __atomic_store_n(word(avail_, common::kAvailFlagsOffset), std::uint16_t{0}, __ATOMIC_RELEASE);
  }
  __sync_synchronize();  // used_event before used.idx (2.7.14).
  return used_idx() != next_used_;
}

void GuestDriver::disable_calls() {
  if (options_.packed) return packed_.disable_interrupts();
  if (options_.event_idx) {
    store_used_event(static_cast<std::uint16_t>(next_used_ - 1));
  } else {
    __atomic_store_n(word(avail_, common::kAvailFlagsOffset), common::kAvailNoInterrupt,
                     __ATOMIC_RELEASE);
  }
}

void GuestDriver::call_after(std::uint16_t answers) {
  if (options_.packed) return packed_.interrupt_after(answers - 1U);
  store_used_event(static_cast<std::uint16_t>(next_used_ + answers - 1));
}

std::uint16_t GuestDriver::used_idx() const {
  return __atomic_load_n(word(used_, common::kUsedIdxOffset), __ATOMIC_ACQUIRE);
}

std::uint16_t GuestDriver::used_flags() const {
  return __atomic_load_n(word(used_, common::kUsedFlagsOffset), __ATOMIC_ACQUIRE);
}

std::uint16_t GuestDriver::avail_event() const {
  const std::uint64_t offset =
      common::kUsedRingOffset + std::uint64_t{options_.queue_size} * sizeof(common::WireUsedElem);
  return __atomic_load_n(word(used_, offset), __ATOMIC_ACQUIRE);
}

}  // namespace fakes
