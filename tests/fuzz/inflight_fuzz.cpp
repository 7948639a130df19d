// tests/fuzz/inflight_fuzz.cpp: an in-flight region that a front-end wrote: whatever it says, a
// worker refuses it or replays each head of its ring at most once.
//
// Input: log2 of the queue size, entries beyond that, used.idx (2 bytes), the region.
#include <array>
#include <bitset>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

#include "common/inflight_wire.h"
#include "tests/fuzz/fuzz_input.h"
#include "worker/inflight.h"

namespace {

using fuzz::require;

void resume(fuzz::Input& input) {
  const auto size = static_cast<std::uint16_t>(1U << (input.byte() % 11));
  const auto entries = static_cast<std::uint16_t>(size + input.byte());
  const std::uint16_t used_idx = input.word();
  const std::size_t bytes = common::inflight::queue_bytes(entries);
  // Exactly as large as it says, so that a sanitizer sees a step beyond it.
  std::vector<std::uint64_t> storage(bytes / sizeof(std::uint64_t));
  const auto region = std::as_writable_bytes(std::span(storage));
  const auto written = input.bytes(bytes);
  if (!written.empty()) std::memcpy(region.data(), written.data(), written.size());

  worker::Inflight inflight(region, entries, size, true);
  const auto begun = inflight.begin(used_idx);
  if (!begun) {
    require(begun.error().code == common::ipc::WorkerFault::kInflightBroken);
    return;
  }
  require(*begun || inflight.replays_left() == 0);
  std::bitset<worker::kRequestsMax> seen;
  while (inflight.replays_left() != 0) {
    const std::uint16_t head = inflight.replay_head();
    require(head < size && !seen[head]);
    seen[head] = true;
    inflight.replayed();
    inflight.answer(head);
  }
  inflight.before_publish();
  inflight.after_publish(static_cast<std::uint16_t>(used_idx + seen.count()));
  // What it leaves behind is a region that the next worker takes, with nothing in flight.
  worker::Inflight next(region, entries, size, true);
  const auto again = next.begin(static_cast<std::uint16_t>(used_idx + seen.count()));
  require(again.has_value() && next.replays_left() == 0);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  fuzz::Input input(data, size);
  resume(input);
  return 0;
}
