#include "tests/fakes/net_client.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "common/virtqueue_wire.h"
#include "tests/fakes/failure.h"

namespace fakes {
namespace {

namespace net = common::net;

constexpr std::uint64_t kMemoryAddr = 0x100000000;
constexpr std::uint64_t kMemoryFileOffset = 0x3000;

constexpr std::uint64_t kUnderstood =
    common::kFeatureVersion1 | common::kFeatureEventIdx | common::kFeatureIndirectDesc |
    common::kFeatureRingPacked | common::kFeatureInOrder | kVhostFeatureProtocol |
    net::kFeatureCsum | net::kGuestOffloads | net::kFeatureCtrlGuestOffloads | net::kFeatureMtu |
    net::kFeatureMac | net::kFeatureHostTso4 | net::kFeatureHostTso6 | net::kFeatureHostEcn |
    net::kFeatureHostUfo | net::kFeatureHostUso | net::kFeatureMergeableBuffers |
    net::kFeatureStatus | net::kFeatureCtrlVq | net::kFeatureCtrlRx | net::kFeatureCtrlMacAddr |
    net::kFeatureGuestAnnounce | net::kFeatureMq;

constexpr std::uint64_t kProtocolRarp = 1ULL << 2;
constexpr std::uint64_t kProtocolMtu = 1ULL << 4;
constexpr std::uint64_t kProtocolUnderstood = kProtocolMq | kProtocolLogShmfd | kProtocolReplyAck |
                                              kProtocolConfig | kProtocolMemSlots |
                                              kProtocolResetDevice | kProtocolRarp | kProtocolMtu;

}  // namespace

NetClient::NetClient(const std::string& socket_path, const Options& options)
    : options_(options), vhost_(socket_path) {
  if (!options_.handshake) return;
  negotiate_protocol();
  choose_features();
  start_all();
}

NetQueueDriver::Shape NetClient::shape_of(std::uint32_t index) const {
  NetQueueDriver::Shape shape = index % 2 == 0 ? options_.receive : options_.transmit;
  if (index == 2U * options_.pairs) shape = {.size = 64, .slots = 4, .slot_bytes = 4096};
  shape.event_idx = (features_ & common::kFeatureEventIdx) != 0;
  shape.indirect = (features_ & common::kFeatureIndirectDesc) != 0;
  shape.packed = options_.packed;
  const bool legacy = (features_ & (common::kFeatureVersion1 | net::kFeatureMergeableBuffers)) == 0;
  shape.header_bytes = legacy ? net::kLegacyHeaderBytes : net::kHeaderBytes;
  return shape;
}

void NetClient::make_memory() {
  const std::uint32_t count = 2U * options_.pairs + (options_.control ? 1 : 0);
  std::uint64_t bytes = 0;
  for (std::uint32_t i = 0; i < count; ++i) bytes += NetQueueDriver::bytes_needed(shape_of(i));
  memory_.add({.guest_addr = kMemoryAddr, .bytes = bytes, .file_offset = kMemoryFileOffset});
  std::uint64_t next = kMemoryAddr;
  for (std::uint32_t i = 0; i < count; ++i) {
    queues_.push_back(std::make_unique<NetQueueDriver>(memory_, next, shape_of(i)));
    next += NetQueueDriver::bytes_needed(shape_of(i));
  }
}

void NetClient::negotiate_protocol() {
  offered_ = vhost_.get_features();
  require((offered_ & kVhostFeatureProtocol) != 0, "no protocol features are offered");
  const std::uint64_t understood = kProtocolUnderstood | (options_.tracked ? kProtocolInflight : 0);
  protocol_ = vhost_.get_protocol_features() & understood & options_.protocol_features;
  vhost_.set_protocol_features(protocol_);
  vhost_.ask_for_acks(options_.acks && (protocol_ & kProtocolReplyAck) != 0);
  if ((protocol_ & kProtocolMq) != 0) {
    require(vhost_.get_queue_num() >= options_.pairs, "the back-end has too few queues");
  }
  vhost_.set_owner();
}

void NetClient::choose_features() {
  features_ = offered_ & kUnderstood & options_.features;
  if (!options_.control) features_ &= ~net::kFeatureCtrlVq;
  if (!options_.packed) features_ &= ~common::kFeatureRingPacked;
  const bool packed = (features_ & common::kFeatureRingPacked) != 0;
  require(packed == options_.packed, "the back-end does not offer packed rings");
  if (queues_.empty()) make_memory();
  vhost_.set_features(features_);
}

std::uint32_t NetClient::number_of(std::uint32_t index) {
  if (index != 2U * options_.pairs) return index;
  const bool multiqueue = (features_ & net::kFeatureMq) != 0;
  return multiqueue ? 2U * config().max_virtqueue_pairs.get() : 2;
}

void NetClient::start_queue(std::uint32_t index, std::uint32_t base) {
  NetQueueDriver& queue = *queues_.at(index);
  const std::uint32_t number = number_of(index);
  vhost_.set_vring_num(number, queue.place().size);
  vhost_.set_vring_base(number, base);
  vhost_.set_vring_addr(queue.place().vring_addr(number, memory_, logs_));
  vhost_.set_vring_fd(VhostRequest::kSetVringErr, number, queue.err_fd());
  vhost_.set_vring_fd(VhostRequest::kSetVringKick, number, queue.kick_fd());
  vhost_.set_vring_fd(VhostRequest::kSetVringCall, number, queue.doorbell().current());
}

void NetClient::give_inflight() {
  if ((protocol_ & kProtocolInflight) == 0) return;
  if (!inflight_.file.valid()) {
    const auto count = static_cast<std::uint16_t>(queues());
    const std::uint16_t entries = std::max(options_.receive.size, options_.transmit.size);
    inflight_ = vhost_.get_inflight_fd(count, entries);
    require(inflight_.file.valid(), "the back-end has no in-flight region");
  }
  vhost_.set_inflight_fd(inflight_.description, inflight_.file.ref());
}

bool NetClient::reconnect(const std::string& socket_path, bool anew) {
  try {
    vhost_ = VhostFrontend(socket_path);
    negotiate_protocol();
    vhost_.set_features(features_ | (logs_ ? kVhostFeatureLogAll : 0));
    // Whoever served before is gone once we are let in.
    if (anew) {
      for (const auto& queue : queues_) queue->reset();
    }
    start_all();
    return true;
  } catch (const Failure&) {
    return false;
  }
}

void NetClient::start_all() {
  give_inflight();
  vhost_.set_mem_table(memory_);
  for (std::uint32_t i = 0; i < queues(); ++i) start_queue(i, queues_.at(i)->ring().base_of_used());
  if ((features_ & kVhostFeatureProtocol) != 0) {
    for (std::uint32_t i = 0; i < queues(); ++i) enable(number_of(i), true);
  }
  if (!options_.offer_buffers) return;
  for (std::uint32_t i = 0; i < options_.pairs; ++i) receive_queue(i).offer_buffers();
}

void NetClient::log_writes(bool on) {
  logs_ = on;
  vhost_.set_features(features_ | (on ? kVhostFeatureLogAll : 0));
  for (std::uint32_t i = 0; i < queues(); ++i) {
    const std::uint32_t number = number_of(i);
    vhost_.set_vring_addr(queues_.at(i)->place().vring_addr(number, memory_, on));
  }
}

void NetClient::enable_pair(std::uint32_t pair, bool on) {
  enable(2 * pair, on);
  enable(2 * pair + 1, on);
}

std::uint32_t NetClient::stop_queue(std::uint32_t index) {
  enable(number_of(index), false);
  return vhost_.get_vring_base(number_of(index));
}

void NetClient::restart_all() {
  for (std::uint32_t i = 0; i < queues(); ++i) (void)stop_queue(i);
  for (const auto& queue : queues_) queue->reset();
  vhost_.set_features(features_);
  start_all();
}

net::WireConfig NetClient::config() {
  const std::vector<std::byte> bytes = vhost_.get_config(0, sizeof(net::WireConfig));
  net::WireConfig config;
  std::memcpy(&config, bytes.data(), sizeof(config));
  return config;
}

}  // namespace fakes
