// tests/fuzz/blk_request_fuzz.cpp: a whole block queue over a guest's memory and a disk that fails
// as the input says, while the guest goes on writing: nothing reaches the disk that was not
// allowed, no byte outside the guest is touched, all that is taken is answered, and it ends.
//
// Input: log2 of the queue size, device flags, feature flags, alignment, image length (2 bytes),
// image, script. The script says how each piece of I/O ends, and what the guest writes each turn.
#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <deque>
#include <vector>

#include "common/status_page.h"
#include "common/virtio_blk_wire.h"
#include "tests/fuzz/fuzz_guest.h"
#include "tests/fuzz/fuzz_input.h"
#include "worker/blk_queue.h"

namespace {

using common::ipc::WorkerExit;
using fuzz::require;
using worker::IoRequest;

constexpr std::uint64_t kSectors = 64;
constexpr std::uint64_t kDiskBytes = kSectors * 512;
constexpr std::uint32_t kTurnsMax = 200;

enum DeviceFlag : std::uint8_t { kReadOnly = 1, kDirect = 2, kBuffered = 4, kBlockDevice = 8 };
enum FeatureFlag : std::uint8_t {
  kEventIdx = 1,
  kIndirect = 2,
  kFlush = 4,
  kConfigWce = 8,
  kWriteBack = 16,
  kRanges = 32,
  kPacked = 64,
};

class FuzzEngine final : public worker::Engine {
 public:
  FuzzEngine(fuzz::Guest& guest, const common::ipc::BlkStart& device, fuzz::Input& script)
      : guest_(guest), device_(device), script_(script), disk_(kDiskBytes, 0x5a) {}

  void start(const IoRequest& request) noexcept override {
    check(request);
    require(std::find(tags_.begin(), tags_.end(), request.tag) == tags_.end());
    tags_.push_back(request.tag);
    require(tags_.size() <= worker::kRequestsMax);
    started_.push_back(request);
  }
  void ring_call() noexcept override {}

  [[nodiscard]] worker::Wakeup turn(bool may_sleep) noexcept override {
    scribble();
    for (const IoRequest& request : started_) done_.push_back({request.tag, perform(request)});
    started_.clear();
    if ((script_.byte() & 1) != 0) std::reverse(done_.begin(), done_.end());
    worker::Wakeup wakeup;
    // What cannot go on by itself ends, and so does what never would.
    wakeup.stop = (may_sleep && done_.empty() && script_.empty()) || ++turns_ > kTurnsMax;
    return wakeup;
  }
  [[nodiscard]] bool ready() const noexcept override { return true; }
  [[nodiscard]] bool next_completion(worker::Completion& completion) noexcept override {
    if (done_.empty()) return false;
    completion = done_.front();
    done_.pop_front();
    tags_.erase(std::find(tags_.begin(), tags_.end(), completion.tag));
    return true;
  }
  [[nodiscard]] std::uint64_t system_calls() const noexcept override { return turns_; }
  [[nodiscard]] bool idle() const { return tags_.empty(); }

 private:
  void check(const IoRequest& request) const {
    std::uint64_t bytes = request.length;
    require(request.segments.size() <= 1024);
    const bool transfer =
        request.kind == IoRequest::Kind::kRead || request.kind == IoRequest::Kind::kWrite;
    require(transfer != request.segments.empty());
    for (const iovec& segment : request.segments) {
      require(segment.iov_len > 0);
      bytes += segment.iov_len;
    }
    require(request.offset <= kDiskBytes && bytes <= kDiskBytes - request.offset);
    if (device_.read_only != 0) {
      require(request.kind == IoRequest::Kind::kRead || request.kind == IoRequest::Kind::kSync);
    }
    if (device_.direct == 0) require(!request.buffered);
    if (device_.direct != 0 && transfer && !request.buffered) check_direct(request);
    if (request.kind == IoRequest::Kind::kRead && device_.direct == 0) {
      for (const iovec& segment : request.segments) require(guest_.holds(segment));
    }
  }
  void check_direct(const IoRequest& request) const {
    require(request.offset % device_.offset_alignment == 0);
    for (const iovec& segment : request.segments) {
      require(segment.iov_len % device_.offset_alignment == 0);
      // After an EINVAL everything is aligned to pages anyway.
      require(reinterpret_cast<std::uintptr_t>(segment.iov_base) % device_.memory_alignment == 0);
    }
  }

  // What the guest's other CPUs do meanwhile.
  void scribble() {
    for (std::uint8_t count = script_.byte() & 3; count > 0; --count) {
      const std::uint64_t offset = script_.word() % (fuzz::Guest::kFirstBytes - 1);
      const std::uint16_t value = script_.word();
      std::memcpy(guest_.ram.regions()[0].host + offset, &value, sizeof(value));
    }
  }

  std::int32_t perform(const IoRequest& request) {
    const std::uint8_t how = script_.byte();
    constexpr int kErrors[] = {EIO, ENOSPC, EINTR, EAGAIN, EOPNOTSUPP, EINVAL, ENOSYS, EFBIG};
    if (how >= 0xe0) return -kErrors[how & 7];
    std::size_t limit = how >= 0xc0 ? std::size_t{how & 31U} * 100 : SIZE_MAX;
    std::uint64_t at = request.offset;
    for (const iovec& segment : request.segments) {
      const std::size_t bytes = std::min(segment.iov_len, limit);
      if (request.kind == IoRequest::Kind::kRead) {
        std::memcpy(segment.iov_base, disk_.data() + at, bytes);
      } else {
        std::memcpy(disk_.data() + at, segment.iov_base, bytes);
      }
      at += bytes;
      limit -= bytes;
    }
    return static_cast<std::int32_t>(at - request.offset);
  }

  fuzz::Guest& guest_;
  const common::ipc::BlkStart& device_;
  fuzz::Input& script_;
  std::vector<std::uint8_t> disk_;
  std::vector<std::uint32_t> tags_;
  std::vector<IoRequest> started_;
  std::deque<worker::Completion> done_;
  std::uint32_t turns_ = 0;
};

common::ipc::BlkStart make_device(std::uint8_t flags, std::uint8_t alignment) {
  common::ipc::BlkStart device{};
  device.kind = common::ipc::BlkStart::kKind;
  device.capacity_sectors = kSectors;
  device.read_only = (flags & kReadOnly) != 0;
  device.direct = (flags & kDirect) != 0;
  device.has_buffered = (flags & kBuffered) != 0;
  device.block_device = (flags & kBlockDevice) != 0;
  device.memory_alignment = 1U << (alignment & 15U) % 13;
  device.offset_alignment = 512U << (alignment >> 4U) % 4;
  device.discard = device.write_zeroes = 1;
  device.tsc_per_us = 1;
  return device;
}

common::ipc::RingStart make_ring(std::uint8_t size_log2, std::uint8_t flags) {
  std::uint64_t features = common::kFeatureVersion1;
  if ((flags & kEventIdx) != 0) features |= common::kFeatureEventIdx;
  if ((flags & kIndirect) != 0) features |= common::kFeatureIndirectDesc;
  if ((flags & kPacked) != 0) features |= common::kFeatureRingPacked;
  if ((flags & kFlush) != 0) features |= common::blk::kFeatureFlush;
  if ((flags & kConfigWce) != 0) features |= common::blk::kFeatureConfigWce;
  if ((flags & kRanges) != 0) {
    features |= common::blk::kFeatureDiscard | common::blk::kFeatureWriteZeroes;
  }
  common::ipc::RingStart ring = fuzz::Guest::ring(size_log2, features);
  ring.writable_config[0] = (flags & kWriteBack) != 0;
  return ring;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static fuzz::Guest guest;
  fuzz::Input input(data, size);
  const std::uint8_t size_log2 = input.byte();
  const std::uint8_t device_flags = input.byte();
  const std::uint8_t feature_flags = input.byte();
  const common::ipc::BlkStart device = make_device(device_flags, input.byte());
  const common::ipc::RingStart ring = make_ring(size_log2, feature_flags);
  const std::uint16_t image_bytes = input.word();
  guest.load(input.bytes(std::min<std::size_t>(image_bytes, fuzz::Guest::kImageBytes)));

  FuzzEngine engine(guest, device, input);
  common::StatusPage status{};
  const auto queue = worker::BlkQueue::create({guest.ram.memory(), device, ring, &engine, &status});
  require(queue != nullptr);
  const WorkerExit exit = queue->run();
  require(exit == WorkerExit::kStopped || exit == WorkerExit::kGuestFault);
  require((exit == WorkerExit::kGuestFault) == (status.fault.load() != 0));
  require(engine.idle() && status.in_flight.load() == 0);
  return 0;
}
