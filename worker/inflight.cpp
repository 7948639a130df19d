#include "worker/inflight.h"

#include <algorithm>

#include "worker/inflight_fields.h"

namespace worker {
namespace {

using common::inflight::DescState;
using common::inflight::Header;

using Field = InflightField;

}  // namespace

Inflight::Inflight(std::span<std::byte> region, std::uint16_t entries, std::uint16_t queue_size,
                   bool resume)
    : entries_(entries), queue_size_(queue_size) {
  if (region.empty()) return;
  batch_ = std::make_unique_for_overwrite<std::uint16_t[]>(kRequestsMax);
  replays_ = std::make_unique_for_overwrite<Replay[]>(queue_size);
  common::verify(entries >= queue_size && region.size() >= common::inflight::queue_bytes(entries) &&
                 reinterpret_cast<std::uintptr_t>(region.data()) % common::inflight::kAlignment ==
                     0);
  header_ = reinterpret_cast<Header*>(region.data());
  states_ = reinterpret_cast<DescState*>(region.data() + sizeof(Header));
  if (!resume) forget();
}

common::Result<bool, RingFault> Inflight::begin(std::uint16_t used_idx) noexcept {
  if (states_ == nullptr) return false;
  const std::uint16_t version = load(header_->version);
  if (version == 0) {
    forget();
    header_->used_idx = used_idx;
    barrier();
    header_->version = common::inflight::kVersion;
    return false;
  }
  if (version != common::inflight::kVersion) return broken(Field::kVersion, version);
  if (const auto features = load(header_->features); features != 0) {
    return broken(Field::kFeatures, features);
  }
  if (const auto entries = load(header_->desc_num); entries != entries_) {
    return broken(Field::kEntries, entries);
  }
  last_batch_head_ = load(header_->last_batch_head);
  TRY(find_in_flight());
  // Died between the store of used.idx and that of used_idx: what was answered then may still be
  // marked. With nothing marked there is nothing to set right, and a used ring that was made anew
  // since then is none of our business.
  const auto answered = static_cast<std::uint16_t>(used_idx - load(header_->used_idx));
  if (answered != 0 && replay_end_ != 0) TRY(finish_last_batch(last_batch_head_, answered));
  header_->used_idx = used_idx;
  std::sort(&replays_[0], &replays_[replay_end_],
            [](const Replay& left, const Replay& right) { return left.counter < right.counter; });
  // Wraps with a counter that only a hostile front-end can have written: then the order is its own.
  if (replay_end_ != 0) counter_ = replays_[replay_end_ - 1U].counter + 1;
  return true;
}

// Leaves the region as if nobody had used it. Where there is nothing to forget, nothing is written.
void Inflight::forget() noexcept {
  if (load(header_->version) != 0) header_->version = 0;
  barrier();
  for (std::uint16_t head = 0; head < entries_; ++head) {
    if (load(states_[head].in_flight) != 0) states_[head].in_flight = 0;
  }
  header_->features = 0;
  header_->desc_num = entries_;
  header_->last_batch_head = 0;
}

// Each flag is fetched once, and what counts them is what lists them.
common::Result<void, RingFault> Inflight::find_in_flight() noexcept {
  for (std::uint16_t head = 0; head < entries_; ++head) {
    const std::uint8_t flag = load(states_[head].in_flight);
    if (flag == 0) continue;
    if (flag != 1) return broken(Field::kFlag, flag);
    if (head >= queue_size_) return broken(Field::kHead, head);
    replays_[replay_end_++] = {load(states_[head].counter), head};
  }
  return {};
}

// "Set the inflight field of each DescStateSplit entry to 0 in last batch list".
common::Result<void, RingFault> Inflight::finish_last_batch(std::uint16_t first,
                                                            std::uint16_t count) noexcept {
  if (count > queue_size_) return broken(Field::kUsedIndex, count);
  std::array<bool, kRequestsMax> answered{};
  for (std::uint16_t head = first; count > 0; --count) {
    // A head that comes twice: the list loops, and its length is not what used_idx says.
    if (head >= queue_size_ || answered[head]) return broken(Field::kBatchList, head);
    answered[head] = true;
    states_[head].in_flight = 0;
    head = load(states_[head].next);
  }
  const Replay* const end =
      std::remove_if(&replays_[0], &replays_[replay_end_],
                     [&](const Replay& replay) { return answered[replay.head]; });
  replay_end_ = static_cast<std::uint16_t>(end - &replays_[0]);
  return {};
}

}  // namespace worker
