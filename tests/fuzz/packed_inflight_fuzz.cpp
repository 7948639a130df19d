// tests/fuzz/packed_inflight_fuzz.cpp: an in-flight region of a packed ring that a front-end wrote:
// whatever it says, a worker refuses it or replays chains that fit into its ring, each once, and
// leaves a region that the next worker takes.
//
// Input: size of the queue, entries beyond that, flags of all the ring's descriptors (2 bytes),
// then the region.
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <set>
#include <vector>

#include "common/packed_inflight_wire.h"
#include "tests/fuzz/fuzz_input.h"
#include "worker/packed_inflight.h"

namespace {

using common::Le16;
using common::WirePackedDesc;
using fuzz::require;
using worker::PackedInflight;

// All that is in flight; how many descriptors that is.
std::size_t answer_replays(PackedInflight& inflight) {
  std::set<std::uint16_t> entries;
  std::size_t descriptors = 0;
  for (; inflight.replays_left() != 0; inflight.replayed()) {
    const PackedInflight::Replay replay = inflight.replay();
    require(!replay.descriptors.empty() && entries.insert(replay.entry).second);
    for (std::size_t i = 0; i < replay.descriptors.size(); ++i) {
      const bool goes_on = (replay.descriptors[i].flags.get() & common::kDescNext) != 0;
      require(goes_on == (i + 1 < replay.descriptors.size()));
    }
    descriptors += replay.descriptors.size();
    inflight.answer(replay.entry);
  }
  inflight.before_publish();
  inflight.after_publish();
  return descriptors;
}

void resume(fuzz::Input& input) {
  const auto size = static_cast<std::uint16_t>(1U + input.byte() % 96U);
  const auto entries = static_cast<std::uint16_t>(size + input.byte() % 8U);
  const Le16 flags(input.word());
  const std::size_t bytes = common::inflight::packed_queue_bytes(entries);
  // Exactly as large as it says, so that a sanitizer sees a step beyond it.
  std::vector<std::uint64_t> storage(bytes / sizeof(std::uint64_t));
  const auto region = std::as_writable_bytes(std::span(storage));
  const auto written = input.bytes(bytes);
  if (!written.empty()) std::memcpy(region.data(), written.data(), written.size());
  std::vector<WirePackedDesc> descriptors(size, WirePackedDesc{{}, {}, {}, flags});
  const common::GuestWindow ring(reinterpret_cast<std::byte*>(descriptors.data()),
                                 descriptors.size() * sizeof(WirePackedDesc));

  PackedInflight inflight(region, entries, size, true);
  const auto begun = inflight.begin(ring, {});
  if (!begun) {
    require(begun.error().code == common::ipc::WorkerFault::kInflightBroken);
    return;
  }
  const common::PackedBase base = inflight.base();
  require(common::packed_base_is_sane(base, size));
  const std::size_t replayed = answer_replays(inflight);
  require(replayed % size == common::packed_distance(base.used, base.avail, size) % size);
  // All of the ring, in chains of one, and one more worker that finds them.
  for (std::uint16_t i = 0; i < size; ++i) (void)inflight.take({&descriptors[i], 1});
  for (WirePackedDesc& descriptor : descriptors) require(descriptor.flags == flags);
  PackedInflight next(region, entries, size, true);
  const auto again = next.begin(ring, {});
  const bool goes_on = (flags.get() & common::kDescNext) != 0;
  require(again.has_value() != goes_on);
  if (again) require(answer_replays(next) == size);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  fuzz::Input input(data, size);
  resume(input);
  return 0;
}
