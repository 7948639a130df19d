// tests/fuzz/racing_guest_fuzz.cpp: a ring, its chains and their requests, read while another CPU
// of the guest writes the very words that are being read: whatever mixture of old and new is seen,
// what comes out lies in the guest's memory, within the disk, and within our limits.
//
// The other CPU is a thread, so an input does not always do the same: the replay of the corpus
// plays each one many times.
//
// Input: log2 of the queue size, flags, image length (2 bytes), image, then the words to write,
// each an offset and a value (2 bytes each), in turn and for as long as the reading lasts.
#include <algorithm>
#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <thread>

#include "common/virtio_blk_wire.h"
#include "tests/fuzz/fuzz_guest.h"
#include "tests/fuzz/fuzz_input.h"
#include "worker/blk_request.h"
#include "worker/ring_kind.h"

namespace {

using fuzz::require;

constexpr std::uint64_t kSectors = 64;
constexpr int kRounds = 20;

// Writes into the guest's memory until told to rest. One for the life of the program.
class OtherCpu {
 public:
  struct Store {
    std::uint16_t offset = 0;
    std::uint16_t value = 0;
  };
  static constexpr std::size_t kStoresMax = 16;

  explicit OtherCpu(std::byte* memory) : memory_(memory), thread_([this] { run(); }) {
    thread_.detach();
  }

  void start(std::span<const Store> stores) {
    std::copy(stores.begin(), stores.end(), stores_.begin());
    count_ = stores.size();
    busy_.store(true, std::memory_order_release);
    busy_.notify_one();
  }
  void rest() {
    stop_.store(true, std::memory_order_release);
    busy_.wait(true, std::memory_order_acquire);
  }

 private:
  [[noreturn]] void run() {
    for (;;) {
      busy_.wait(false, std::memory_order_acquire);
      while (!stop_.load(std::memory_order_acquire)) write_all();
      stop_.store(false, std::memory_order_relaxed);
      busy_.store(false, std::memory_order_release);
      busy_.notify_one();
    }
  }

  // ThreadSanitizer is not to look: racing is the point, and a guest is no thread of ours.
  __attribute__((no_sanitize("thread"))) void write_all() {
    for (std::size_t i = 0; i < count_; ++i) {
      auto* const word = reinterpret_cast<volatile std::uint16_t*>(memory_ + stores_[i].offset);
      const std::uint16_t before = *word;
      *word = stores_[i].value;
      *word = before;
    }
  }

  std::byte* memory_;
  std::array<Store, kStoresMax> stores_{};
  std::size_t count_ = 0;
  std::atomic<bool> busy_ = false;
  std::atomic<bool> stop_ = false;
  std::thread thread_;
};

common::ipc::RingStart make_ring(std::uint8_t size_log2, std::uint8_t flags) {
  std::uint64_t features = common::kFeatureVersion1 | common::blk::kFeatureFlush |
                           common::blk::kFeatureDiscard | common::blk::kFeatureWriteZeroes;
  if ((flags & 1U) != 0) features |= common::kFeatureEventIdx;
  if ((flags & 2U) != 0) features |= common::kFeatureIndirectDesc;
  if ((flags & 8U) != 0) features |= common::kFeatureRingPacked;
  return fuzz::Guest::ring(size_log2, features);
}

common::ipc::BlkStart make_device(std::uint8_t flags) {
  common::ipc::BlkStart device{};
  device.kind = common::ipc::BlkStart::kKind;
  device.capacity_sectors = kSectors;
  device.read_only = (flags & 4U) != 0;
  device.memory_alignment = 1;
  device.offset_alignment = 512;
  device.discard = device.write_zeroes = 1;
  device.tsc_per_us = 1;
  return device;
}

class Reader {
 public:
  Reader(fuzz::Guest& guest, const common::ipc::RingStart& ring, std::uint8_t flags)
      : guest_(guest),
        memory_(guest.ram.memory()),
        ring_(ring),
        device_(worker::BlkDevice::from(make_device(flags), ring)) {}

  void read_all() {
    if (worker::is_packed(ring_)) return read_ring<worker::PackedRing>();
    read_ring<worker::SplitRing>();
  }

 private:
  template <typename Ring>
  void read_ring() {
    auto ring = Ring::create(memory_, ring_);
    require(ring.has_value());
    if (ring->begin() == worker::SplitRing::Begin::kFault) return;
    auto reader = worker::make_reader(memory_, *ring, ring_.features, *scratch_);
    for (std::uint32_t i = 0; i < ring_.queue_size; ++i) {
      if (ring->peek() != worker::SplitRing::Peek::kHead) return;
      const std::uint16_t head = ring->head();
      require(head < ring_.queue_size);
      worker::Chain chain;
      if (!reader.read(head, chain)) return;
      check(chain);
      worker::ParsedRequest parsed;
      if (!worker::parse_request(chain, device_, parsed, *ranges_)) return;
      check(parsed);
      ring->take();
      ring->add_used(head, 1);
      (void)ring->publish();
      (void)ring->enable_kicks();
      ring->disable_kicks();
    }
  }

  void check(const worker::Chain& chain) const {
    require(bytes_of(chain.readable) == chain.readable_bytes);
    require(bytes_of(chain.writable) == chain.writable_bytes);
  }
  std::uint64_t bytes_of(std::span<const iovec> segments) const {
    std::uint64_t bytes = 0;
    for (const iovec& segment : segments) {
      require(segment.iov_len > 0 && guest_.holds(segment));
      bytes += segment.iov_len;
    }
    return bytes;
  }
  void check(const worker::ParsedRequest& parsed) const {
    require(guest_.holds(parsed.status_byte) && parsed.status_byte.iov_len == 1);
    require(parsed.bytes <= kSectors * 512);
  }

  fuzz::Guest& guest_;
  common::GuestMemory memory_;
  const common::ipc::RingStart& ring_;
  worker::BlkDevice device_;
  std::unique_ptr<worker::SegmentScratch> scratch_ = std::make_unique<worker::SegmentScratch>();
  std::unique_ptr<worker::RangeList> ranges_ = std::make_unique<worker::RangeList>();
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static fuzz::Guest guest;
  static auto* const other = new OtherCpu(guest.ram.regions()[0].host);  // Lives as long as we do.
  fuzz::Input input(data, size);
  const std::uint8_t size_log2 = input.byte();
  const std::uint8_t flags = input.byte();
  const common::ipc::RingStart ring = make_ring(size_log2, flags);
  const auto image = input.bytes(std::min<std::size_t>(input.word(), fuzz::Guest::kImageBytes));

  std::array<OtherCpu::Store, OtherCpu::kStoresMax> stores;
  std::size_t count = 0;
  while (!input.empty() && count < stores.size()) {
    const auto offset =
        static_cast<std::uint16_t>(input.word() % (fuzz::Guest::kFirstBytes - 2) & ~1U);
    stores.at(count++) = {offset, input.word()};
  }
  guest.load(image);
  Reader reader(guest, ring, flags);
  other->start(std::span(stores).first(count));
  for (int i = 0; i < kRounds; ++i) reader.read_all();
  other->rest();
  return 0;
}
