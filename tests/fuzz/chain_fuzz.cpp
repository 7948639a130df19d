// tests/fuzz/chain_fuzz.cpp: a guest's memory in, one chain read from it: whatever the guest wrote,
// the result lies in its memory and within our limits.
//
// Input: log2 of the queue size, flags (1: indirect tables allowed), head (2 bytes), image.
#include <cstddef>
#include <cstdint>
#include <memory>

#include "tests/fuzz/fuzz_guest.h"
#include "tests/fuzz/fuzz_input.h"
#include "worker/chain.h"

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

void read_chain(fuzz::Guest& guest, worker::SegmentScratch& scratch, fuzz::Input& input) {
  const auto size = static_cast<std::uint16_t>(1U << (input.byte() % 11));
  const bool indirect = (input.byte() & 1) != 0;
  const auto head = static_cast<std::uint16_t>(input.word() % size);
  guest.load(input.bytes(fuzz::Guest::kImageBytes));

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
  require(check(guest, chain.readable) == chain.readable_bytes);
  require(check(guest, chain.writable) == chain.writable_bytes);
  require(chain.readable.size() + chain.writable.size() <= worker::kSegmentsMax);
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
