#include "tests/fakes/blk_client.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cstring>
#include <utility>
#include <vector>

#include "common/virtqueue_wire.h"
#include "tests/fakes/failure.h"

namespace fakes {
namespace {

namespace blk = common::blk;

// Even queues live below the hole, odd ones above, in two files; and the spare piece in a third.
constexpr std::uint64_t kLowAddr = 0x100000;
constexpr std::uint64_t kHighAddr = 0x100000000;
constexpr std::uint64_t kHighFileOffset =
    0x3000;  // Not where a file begins, as above 4 GiB in QEMU.

constexpr std::uint64_t kUnderstood =
    common::kFeatureVersion1 | common::kFeatureEventIdx | common::kFeatureIndirectDesc |
    common::kFeatureRingPacked | kVhostFeatureProtocol | blk::kFeatureSizeMax |
    blk::kFeatureSegMax | blk::kFeatureReadOnly | blk::kFeatureBlkSize | blk::kFeatureFlush |
    blk::kFeatureTopology | blk::kFeatureConfigWce | blk::kFeatureMq | blk::kFeatureDiscard |
    blk::kFeatureWriteZeroes;

constexpr std::uint64_t kProtocolUnderstood =
    kProtocolMq | kProtocolLogShmfd | kProtocolReplyAck | kProtocolConfig | kProtocolMemSlots |
    kProtocolResetDevice | kProtocolBackendReq | kProtocolBackendSendFd | kProtocolInflight |
    kProtocolGetVringBaseInflight;

}  // namespace

BlkClient::BlkClient(VhostFrontend vhost, const Options& options)
    : options_(options), vhost_(std::move(vhost)) {
  if (!options_.shape.event_idx) options_.features &= ~common::kFeatureEventIdx;
  if (!options_.shape.indirect) options_.features &= ~common::kFeatureIndirectDesc;
  if (!options_.shape.packed) options_.features &= ~common::kFeatureRingPacked;
  if (!options_.handshake) {
    make_memory();
    return;
  }
  negotiate_protocol();
  choose_features();
  start_all();
}

void BlkClient::make_memory() {
  const BlkQueueDriver::Shape& shape = options_.shape;
  const std::uint64_t each = BlkQueueDriver::bytes_needed(shape);
  const std::uint64_t half = (options_.queues + 1U) / 2U * each;
  const bool same = options_.gpa_as_vmm_addr;
  memory_.add({.guest_addr = kLowAddr, .bytes = half, .gpa_as_vmm_addr = same});
  memory_.add({.guest_addr = kHighAddr,
               .bytes = half,
               .file_offset = kHighFileOffset,
               .gpa_as_vmm_addr = same});
  memory_.add({.guest_addr = kSpareAddr, .bytes = kSpareBytes, .gpa_as_vmm_addr = same});
  for (std::uint32_t i = 0; i < options_.queues; ++i) {
    const std::uint64_t start = (i % 2 == 0 ? kLowAddr : kHighAddr) + i / 2 * each;
    queues_.push_back(std::make_unique<BlkQueueDriver>(memory_, start, shape));
  }
}

void BlkClient::negotiate_protocol() {
  offered_ = vhost_.get_features();
  require((offered_ & kVhostFeatureProtocol) != 0, "no protocol features are offered");
  protocol_ = vhost_.get_protocol_features() & kProtocolUnderstood & options_.protocol_features;
  vhost_.set_protocol_features(protocol_);
  vhost_.ask_for_acks(options_.acks && (protocol_ & kProtocolReplyAck) != 0);
  if ((protocol_ & kProtocolMq) != 0) {
    require(vhost_.get_queue_num() >= options_.queues, "the back-end has too few queues");
  }
  if ((protocol_ & kProtocolMemSlots) != 0) {
    require(vhost_.get_max_mem_slots() >= 3, "the back-end has too few memory slots");
  }
  vhost_.set_owner();
  offered_ = vhost_.get_features();
}

void BlkClient::choose_features() {
  features_ = offered_ & kUnderstood & options_.features;
  options_.shape.event_idx = (features_ & common::kFeatureEventIdx) != 0;
  options_.shape.indirect = (features_ & common::kFeatureIndirectDesc) != 0;
  const bool packed = (features_ & common::kFeatureRingPacked) != 0;
  require(packed == options_.shape.packed, "the back-end does not offer packed rings");
  if (queues_.empty()) make_memory();
  vhost_.set_features(features_);
}

void BlkClient::describe_ring(std::uint32_t index, std::uint32_t base) {
  const RingPlace& place = queue(index).place();
  vhost_.set_vring_num(index, place.size);
  vhost_.set_vring_base(index, base);
  vhost_.set_vring_addr(place.vring_addr(index, memory_, logs_));
}

void BlkClient::log_writes(bool on) {
  logs_ = on;
  vhost_.set_features(features_ | (on ? kVhostFeatureLogAll : 0));
  for (std::uint32_t i = 0; i < queues(); ++i) {
    vhost_.set_vring_addr(queue(i).place().vring_addr(i, memory_, on));
  }
}

void BlkClient::give_kick(std::uint32_t index) {
  vhost_.set_vring_fd(VhostRequest::kSetVringKick, index, queue(index).kick_fd());
}

void BlkClient::give_call(std::uint32_t index) {
  vhost_.set_vring_fd(VhostRequest::kSetVringCall, index, queue(index).doorbell().current());
}

void BlkClient::give_err(std::uint32_t index) {
  vhost_.set_vring_fd(VhostRequest::kSetVringErr, index, queue(index).err_fd());
}

void BlkClient::give_inflight() {
  if ((protocol_ & kProtocolInflight) == 0) return;
  if (!inflight_.file.valid()) {
    inflight_ = vhost_.get_inflight_fd(options_.queues, options_.shape.size);
    require(inflight_.file.valid(), "the back-end has no in-flight region");
  }
  vhost_.set_inflight_fd(inflight_.description, inflight_.file.ref());
}

void BlkClient::copy_inflight() {
  const auto bytes = static_cast<std::size_t>(inflight_.description.mmap_bytes);
  std::vector<std::byte> copy(bytes);
  const int from = inflight_.file.ref().number;
  const auto at = static_cast<off_t>(inflight_.description.mmap_offset);
  require(::pread(from, copy.data(), bytes, at) == static_cast<ssize_t>(bytes),
          "the in-flight region cannot be read");
  common::Fd file(::memfd_create("inflight-copy", MFD_CLOEXEC));
  require(
      file.valid() && ::write(file.ref().number, copy.data(), bytes) == static_cast<ssize_t>(bytes),
      "the in-flight region cannot be copied");
  inflight_.file = std::move(file);
  inflight_.description.mmap_offset = 0;
}

bool BlkClient::reconnect(const std::string& socket_path) {
  try {
    vhost_ = VhostFrontend(socket_path);
    negotiate_protocol();
    vhost_.set_features(features_ | (logs_ ? kVhostFeatureLogAll : 0));
    start_all();
    return true;
  } catch (const Failure&) {
    return false;
  }
}

void BlkClient::start_all() {
  give_inflight();
  vhost_.set_mem_table(memory_);
  for (std::uint32_t i = 0; i < queues(); ++i) {
    give_err(i);
    const bool forgets = options_.shape.packed && options_.forgets_places;
    describe_ring(i, forgets ? common::kPackedBaseFresh : queue(i).ring().base_of_used());
    give_kick(i);
    give_call(i);
  }
  // Without the bit the rings are enabled as they start (vhost-user, "Ring states").
  if ((features_ & kVhostFeatureProtocol) == 0) return;
  for (std::uint32_t i = 0; i < queues(); ++i) enable(i, true);
}

std::uint32_t BlkClient::stop_ring(std::uint32_t index) {
  enable(index, false);
  return vhost_.get_vring_base(index);
}

void BlkClient::restart_ring(std::uint32_t index, std::uint32_t base) {
  describe_ring(index, base);
  give_kick(index);
  give_call(index);
  enable(index, true);
}

blk::WireConfig BlkClient::config() {
  const std::vector<std::byte> bytes = vhost_.get_config(0, sizeof(blk::WireConfig));
  blk::WireConfig config;
  std::memcpy(&config, bytes.data(), sizeof(config));
  return config;
}

std::uint64_t BlkClient::capacity_sectors() {
  const blk::WireConfig now = config();
  return now.capacity_sectors_low.get() | std::uint64_t{now.capacity_sectors_high.get()} << 32;
}

}  // namespace fakes
