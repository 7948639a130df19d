// tests/fuzz/chain_fuzz.cpp: a guest's memory in, one chain read from it: whatever the guest wrote,
// the result lies in its memory and within our limits.
//
// Input: log2 of the queue size, flags (1: indirect tables allowed, 2: a packed ring), head (2
// bytes; of a packed ring: where it stands), image.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>

#include "tests/fuzz/fuzz_guest.h"
#include "tests/fuzz/fuzz_input.h"
#include "worker/chain.h"
#include "worker/packed_chain.h"

namespace {

using fuzz::require;

std::uint64_t check(const fuzz::Guest& guest, std::span<const iovec> segments) {
  std::uint64_t bytes = 0;
  for (const iovec& segment : segments) {
    require(segment.iov_len > 0 && guest.holds(segment));
    bytes += segment.iov_len;
  }
  return bytes;
}

void check(const fuzz::Guest& guest, const worker::Chain& chain) {
  require(check(guest, chain.readable) == chain.readable_bytes);
  require(check(guest, chain.writable) == chain.writable_bytes);
  require(chain.readable.size() + chain.writable.size() <= worker::kSegmentsMax);
}

// All chains that there are, answered in turns from the first and from the last.
void read_packed(fuzz::Guest& guest, worker::SegmentScratch& scratch, std::uint8_t size,
                 std::uint8_t flags, common::PackedPlace place) {
  const common::GuestMemory memory = guest.ram.memory();
  common::ipc::RingStart start = fuzz::Guest::ring(size, common::kFeatureRingPacked);
  place.index = static_cast<std::uint16_t>(place.index % start.queue_size);
  start.next_avail = common::pack_vring_base({place, place});
  auto ring = worker::PackedRing::create(memory, start);
  require(ring.has_value() && ring->begin() != worker::PackedRing::Begin::kFault);
  worker::PackedChainReader reader(memory, *ring, (flags & 1) != 0, scratch);
  std::deque<std::uint16_t> taken;
  for (std::uint32_t most = 4 * start.queue_size; most > 0; --most) {
    const auto peeked = ring->peek();
    if (peeked == worker::PackedRing::Peek::kFault) {
      require(ring->fault().code != common::ipc::WorkerFault::kNone);
      return;
    }
    if (peeked == worker::PackedRing::Peek::kEmpty) {
      if (taken.empty()) return;
      const bool first = most % 2 == 0;
      ring->add_used(first ? taken.front() : taken.back(), most);
      first ? taken.pop_front() : taken.pop_back();
      if (most % 3 == 0) (void)ring->publish();
      continue;
    }
    require(ring->chain().size() <= start.queue_size && ring->head() < start.queue_size);
    require(std::find(taken.begin(), taken.end(), ring->head()) == taken.end());
    worker::Chain chain;
    if (const auto done = reader.read(ring->head(), chain); !done) {
      require(done.error().code != common::ipc::WorkerFault::kNone);
      return;
    }
    check(guest, chain);
    taken.push_back(ring->head());
    ring->take();
    require(ring->waiting() <= start.queue_size && ring->offered() <= start.queue_size);
  }
}

void read_chain(fuzz::Guest& guest, worker::SegmentScratch& scratch, fuzz::Input& input) {
  const std::uint8_t size_byte = input.byte();
  const auto size = static_cast<std::uint16_t>(1U << (size_byte % 11));
  const std::uint8_t flags = input.byte();
  const bool indirect = (flags & 1) != 0;
  const std::uint16_t word = input.word();
  const auto head = static_cast<std::uint16_t>(word % size);
  guest.load(input.bytes(fuzz::Guest::kImageBytes));
  if ((flags & 2) != 0) {
    return read_packed(guest, scratch, size_byte, flags, common::PackedPlace::from(word));
  }

  const common::GuestMemory memory = guest.ram.memory();
  const auto table = memory.window({fuzz::Guest::kDesc}, std::uint64_t{size} * 16, 16);
  require(table.has_value());
  worker::ChainReader reader(memory, *table, size, indirect, scratch);
  worker::Chain chain;
  const auto done = reader.read(head, chain);
  if (!done) {
    require(done.error().code != common::ipc::WorkerFault::kNone);
    return;
  }
  check(guest, chain);
  require(chain.head == head);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static fuzz::Guest guest;
  static const auto scratch = std::make_unique<worker::SegmentScratch>();
  fuzz::Input input(data, size);
  read_chain(guest, *scratch, input);
  return 0;
}
