#include "worker/packed_inflight.h"

#include <algorithm>
#include <cstring>

#include "worker/inflight_fields.h"

namespace worker {
namespace {

using common::PackedBase;
using common::WirePackedDesc;
using common::inflight::PackedDescState;
using common::inflight::PackedHeader;
using common::inflight::PackedHeads;
using common::inflight::PackedUsed;

using Field = InflightField;

// As load(), of a word of several fields: nobody who dies leaves half of them.
template <typename T>
T load_word(const T& word) noexcept {
  static_assert(sizeof(T) == sizeof(std::uint64_t));
  const std::uint64_t bits =
      __atomic_load_n(reinterpret_cast<const std::uint64_t*>(&word), __ATOMIC_RELAXED);
  T out;
  std::memcpy(&out, &bits, sizeof(out));
  return out;
}
template <typename T>
void store_word(T& word, const T& value) noexcept {
  static_assert(sizeof(T) == sizeof(std::uint64_t));
  std::uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof(bits));
  __atomic_store_n(reinterpret_cast<std::uint64_t*>(&word), bits, __ATOMIC_RELAXED);
}

}  // namespace

PackedInflight::PackedInflight(std::span<std::byte> region, std::uint16_t entries,
                               std::uint16_t queue_size, bool resume)
    : entries_(entries), queue_size_(queue_size) {
  if (region.empty()) return;
  chains_ = std::make_unique<Entry[]>(entries);
  batch_ = std::make_unique_for_overwrite<std::uint16_t[]>(queue_size);
  replays_ = std::make_unique_for_overwrite<Found[]>(queue_size);
  copies_ = std::make_unique_for_overwrite<WirePackedDesc[]>(queue_size);
  common::verify(queue_size > 0 && entries >= queue_size &&
                 region.size() >= common::inflight::packed_queue_bytes(entries) &&
                 reinterpret_cast<std::uintptr_t>(region.data()) % common::inflight::kAlignment ==
                     0);
  header_ = reinterpret_cast<PackedHeader*>(region.data());
  states_ = reinterpret_cast<PackedDescState*>(region.data() + sizeof(PackedHeader));
  if (!resume) store_heads(0);
}

common::Result<bool, RingFault> PackedInflight::begin(const common::GuestWindow& ring,
                                                      const PackedBase& base) noexcept {
  base_ = base;
  if (states_ == nullptr) return false;
  const PackedHeads heads = load_word(header_->heads);
  if (heads.version == 0) {
    start_anew(base);
    return false;
  }
  if (heads.version != common::inflight::kVersion) return broken(Field::kVersion, heads.version);
  if (const auto features = load(header_->features); features != 0) {
    return broken(Field::kFeatures, features);
  }
  if (heads.desc_num != entries_) return broken(Field::kEntries, heads.desc_num);
  TRY(read_heads(heads, ring));
  TRY(read_free_list());
  TRY(find_in_flight());
  free_the_rest();
  std::sort(&replays_[0], &replays_[replay_end_],
            [](const Found& left, const Found& right) { return left.counter < right.counter; });
  // Wraps with a counter that only a hostile front-end can have written: then the order is its own.
  if (replay_end_ != 0) counter_ = replays_[replay_end_ - 1U].counter + 1;
  base_ = {common::packed_ahead(used_, copied_, queue_size_), used_};
  return true;
}

// Nobody looks at anything in the region before its version says so.
void PackedInflight::start_anew(const PackedBase& base) noexcept {
  for (std::uint16_t entry = 0; entry < entries_; ++entry) {
    const auto next = static_cast<std::uint16_t>(entry + 1);
    states_[entry].in_flight = 0;
    states_[entry].next = chains_[entry].next = next;
  }
  header_->features = 0;
  free_head_ = old_free_head_ = 0;
  free_count_ = entries_;
  used_ = old_used_ = base.used;
  store_used();
  barrier();
  store_heads(common::inflight::kVersion);
}

// "If used_idx does not match old_used_idx": its last batch was about to be shown, or was.
common::Result<void, RingFault> PackedInflight::read_heads(
    const PackedHeads& heads, const common::GuestWindow& ring) noexcept {
  const PackedUsed used = load_word(header_->used);
  if (used.used_wrap_counter > 1) return broken(Field::kWrapCounter, used.used_wrap_counter);
  if (used.old_used_wrap_counter > 1) {
    return broken(Field::kWrapCounter, used.old_used_wrap_counter);
  }
  used_ = {used.used_idx, used.used_wrap_counter == 1};
  old_used_ = {used.old_used_idx, used.old_used_wrap_counter == 1};
  if (used_.index >= queue_size_) return broken(Field::kUsedIndex, used_.index);
  if (old_used_.index >= queue_size_) return broken(Field::kUsedIndex, old_used_.index);
  free_head_ = heads.free_head;
  old_free_head_ = heads.old_free_head;
  bool shown = false;
  if (used_ != old_used_) {
    const std::uint64_t place = std::uint64_t{old_used_.index} * sizeof(WirePackedDesc);
    const std::uint16_t flags = ring.load16(place + common::kPackedDescFlagsOffset);
    shown = !common::packed_is_available(flags, old_used_.wrap);
  }
  if (shown) {
    old_free_head_ = free_head_;
  } else {
    free_head_ = old_free_head_;
    used_ = old_used_;
  }
  // The head of the list first: it is right only for who sees the batch that it belongs to.
  store_heads(heads.version);
  barrier();
  old_used_ = used_;
  store_used();
  return {};
}

// "Set the inflight field of each DescStatePacked entry in free list to 0": of a batch that was
// answered, and of a chain that was about to be taken. The list ends outside of the entries.
common::Result<void, RingFault> PackedInflight::read_free_list() noexcept {
  free_tail_ = entries_;
  for (std::uint16_t entry = free_head_; entry < entries_;) {
    if (chains_[entry].found) return broken(Field::kFreeList, entry);  // It loops.
    chains_[entry].found = chains_[entry].free = true;
    ++free_count_;
    if (load(states_[entry].in_flight) != 0) states_[entry].in_flight = 0;
    if (free_tail_ != entries_) chains_[free_tail_].next = entry;
    free_tail_ = entry;
    entry = load(states_[entry].next);
  }
  if (free_tail_ != entries_) chains_[free_tail_].next = entries_;
  return {};
}

// What is marked is a head; no free entry is any more, whatever a front-end does meanwhile.
common::Result<void, RingFault> PackedInflight::find_in_flight() noexcept {
  for (std::uint16_t entry = 0; entry < entries_; ++entry) {
    if (chains_[entry].free) continue;
    const std::uint8_t flag = load(states_[entry].in_flight);
    if (flag == 0) continue;
    if (flag != 1) return broken(Field::kFlag, flag);
    TRY(read_chain(entry));
  }
  return {};
}

// One pass, which copies what it checks.
common::Result<void, RingFault> PackedInflight::read_chain(std::uint16_t head) noexcept {
  const std::uint16_t count = load(states_[head].num);
  if (count == 0 || count > queue_size_ - copied_) return broken(Field::kChainLength, count);
  replays_[replay_end_++] = {load(states_[head].counter), head, copied_};
  std::uint16_t entry = head;
  for (std::uint16_t left = count; left > 0; --left) {
    // In two chains, twice in one, or free.
    if (entry >= entries_ || chains_[entry].found) return broken(Field::kChain, entry);
    chains_[entry].found = true;
    const PackedDescState& state = states_[entry];
    const std::uint16_t flags = load(state.flags);
    // 2.8.6: a chain goes on as long as NEXT is set.
    if (((flags & common::kDescNext) != 0) != (left > 1)) {
      return broken(Field::kChainLength, count);
    }
    copies_[copied_++] = {common::Le64(load(state.addr)), common::Le32(load(state.len)),
                          common::Le16(load(state.id)), common::Le16(flags)};
    chains_[head].last = entry;
    if (left > 1) entry = chains_[entry].next = load(state.next);
  }
  if (const auto last = load(states_[head].last); last != entry) return broken(Field::kLast, last);
  chains_[head].count = count;
  return {};
}

// Another back-end may have linked fewer entries than there are: they go to the end of the list.
// One store shows each, and until then nobody misses it.
void PackedInflight::free_the_rest() noexcept {
  for (std::uint16_t entry = 0; entry < entries_; ++entry) {
    if (chains_[entry].found) continue;
    states_[entry].next = chains_[entry].next = entries_;
    barrier();
    if (free_tail_ == entries_) {
      free_head_ = old_free_head_ = entry;
      store_heads(common::inflight::kVersion);
    } else {
      states_[free_tail_].next = chains_[free_tail_].next = entry;
    }
    barrier();
    free_tail_ = entry;
    ++free_count_;
  }
}

std::uint16_t PackedInflight::keep(std::span<const WirePackedDesc> descriptors) noexcept {
  const auto count = static_cast<std::uint16_t>(descriptors.size());
  common::verify(count != 0 && descriptors.size() <= free_count_);
  const std::uint16_t head = free_head_;
  std::uint16_t last = head;
  std::uint16_t next = head;
  for (const WirePackedDesc& descriptor : descriptors) {
    PackedDescState& state = states_[next];
    state.id = descriptor.id.get();
    state.flags = descriptor.flags.get();
    state.len = descriptor.len.get();
    state.addr = descriptor.addr.get();
    last = next;
    next = chains_[next].next;
  }
  chains_[head].last = states_[head].last = last;
  chains_[head].count = states_[head].num = count;
  states_[head].counter = counter_++;
  states_[head].in_flight = 1;
  barrier();
  // Until now all of it was free, mark or no mark.
  free_head_ = old_free_head_ = next;
  free_count_ = static_cast<std::uint16_t>(free_count_ - count);
  store_heads(common::inflight::kVersion);
  return head;
}

void PackedInflight::list_batch() noexcept {
  for (const std::uint16_t entry : batch()) {
    const Entry& chain = chains_[entry];
    states_[chain.last].next = chains_[chain.last].next = free_head_;
    free_head_ = entry;
    used_ = common::packed_ahead(used_, chain.count, queue_size_);
    free_count_ = static_cast<std::uint16_t>(free_count_ + chain.count);
  }
  barrier();
  store_heads(common::inflight::kVersion);
  barrier();
  store_used();
  barrier();
}

void PackedInflight::finish_batch() noexcept {
  barrier();
  for (const std::uint16_t entry : batch()) states_[entry].in_flight = 0;
  batch_count_ = 0;
  barrier();
  // The list first: where it is newer than the index, whoever comes takes it back (or, here, on).
  old_free_head_ = free_head_;
  store_heads(common::inflight::kVersion);
  barrier();
  old_used_ = used_;
  store_used();
}

void PackedInflight::store_heads(std::uint16_t version) noexcept {
  store_word(header_->heads, PackedHeads{version, entries_, free_head_, old_free_head_});
}

void PackedInflight::store_used() noexcept {
  store_word(header_->used, PackedUsed{used_.index,
                                       old_used_.index,
                                       static_cast<std::uint8_t>(used_.wrap ? 1 : 0),
                                       static_cast<std::uint8_t>(old_used_.wrap ? 1 : 0),
                                       {}});
}

}  // namespace worker
