#include "tests/bench/net_card.h"

#include <arpa/inet.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <vector>

#include "common/virtio_net_wire.h"
#include "common/virtqueue_wire.h"
#include "tests/bench/queue_load.h"
#include "tests/bench/tap_side.h"
#include "tests/fakes/failure.h"

namespace bench {
namespace {

namespace net = common::net;
using fakes::VhostRequest;

constexpr std::uint64_t kGuestStart = 0x100000;
constexpr std::uint64_t kNsPerSecond = 1'000'000'000;
constexpr std::uint64_t kPatienceNs = 10 * kNsPerSecond;
// After this long without a packet, those that have not come are lost.
constexpr std::uint64_t kQuietNs = kNsPerSecond / 5;
constexpr std::uint32_t kSegmentsFillMost = 1500;  // 100 MB in the tap.

std::uint64_t after(double seconds) {
  return now_ns() + static_cast<std::uint64_t>(seconds * static_cast<double>(kNsPerSecond));
}
double seconds_since(std::uint64_t start) {
  return static_cast<double>(now_ns() - start) / static_cast<double>(kNsPerSecond);
}

// --- ICMP echo (RFC 792) -------------------------------------------------------------------------

constexpr std::size_t kIpAt = 14;
constexpr std::size_t kIcmpAt = 34;
constexpr std::size_t kSequenceAt = kIcmpAt + 6;
constexpr std::byte kEchoRequest{8};
constexpr std::byte kEchoReply{0};

void put_checksum(std::span<std::byte> bytes, std::size_t at) {
  bytes[at] = bytes[at + 1] = std::byte{0};
  std::uint32_t sum = 0;
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    sum += std::to_integer<std::uint32_t>(bytes[i]) << (i % 2 == 0 ? 8 : 0);
  }
  sum = (sum & 0xffff) + (sum >> 16);
  sum = ~(sum + (sum >> 16)) & 0xffff;
  bytes[at] = static_cast<std::byte>(sum >> 8);
  bytes[at + 1] = static_cast<std::byte>(sum);
}

std::vector<std::byte> echo_request(const NetOptions& options) {
  std::vector<std::byte> frame(options.bytes);
  const std::vector<std::byte> to = mac_of(options.tap);
  std::copy(to.begin(), to.end(), frame.begin());
  std::memcpy(frame.data() + net::kMacBytes, fakes::kGuestMac.data(), net::kMacBytes);
  frame[12] = std::byte{0x08};
  const std::size_t ip_bytes = frame.size() - kIpAt;
  const std::array<std::uint8_t, 20> ip = {0x45,
                                           0,
                                           static_cast<std::uint8_t>(ip_bytes >> 8),
                                           static_cast<std::uint8_t>(ip_bytes),
                                           0,
                                           0,
                                           0x40,
                                           0,
                                           64,
                                           1,
                                           0,
                                           0,
                                           192,
                                           0,
                                           2,
                                           2};
  std::memcpy(frame.data() + kIpAt, ip.data(), ip.size());
  in_addr address{};
  fakes::require(::inet_pton(AF_INET, options.address.c_str(), &address) == 1,
                 "--address is no IPv4 address");
  std::memcpy(frame.data() + kIpAt + 16, &address, sizeof(address));
  put_checksum(std::span(frame).subspan(kIpAt, ip.size()), 10);
  frame[kIcmpAt] = kEchoRequest;
  return frame;
}

void number_echo(std::span<std::byte> frame, std::uint16_t sequence) {
  frame[kSequenceAt] = static_cast<std::byte>(sequence >> 8);
  frame[kSequenceAt + 1] = static_cast<std::byte>(sequence);
  put_checksum(frame.subspan(kIcmpAt), 2);
}

bool is_echo(std::span<const std::byte> frame, std::uint16_t sequence) {
  return frame.size() > kSequenceAt + 1 && frame[12] == std::byte{0x08} &&
         frame[kIpAt + 9] == std::byte{1} && frame[kIcmpAt] == kEchoReply &&
         frame[kSequenceAt] == static_cast<std::byte>(sequence >> 8) &&
         frame[kSequenceAt + 1] == static_cast<std::byte>(sequence);
}

}  // namespace

NetCard::NetCard(const NetOptions& options) : options_(options), vhost_(options.socket) {
  negotiate();
  make_queues();
  start();
}

void NetCard::negotiate() {
  std::uint64_t wanted = common::kFeatureVersion1 | common::kFeatureEventIdx |
                         common::kFeatureIndirectDesc | fakes::kVhostFeatureProtocol |
                         net::kFeatureMergeableBuffers | net::kFeatureMac;
  if (options_.segments) {
    wanted |=
        net::kFeatureCsum | net::kFeatureHostTso4 | net::kFeatureGuestCsum | net::kFeatureGuestTso4;
  }
  features_ = vhost_.get_features() & wanted;
  fakes::require((features_ & net::kFeatureMergeableBuffers) != 0,
                 "the back-end does not offer mergeable receive buffers");
  const std::uint64_t protocol =
      vhost_.get_protocol_features() & (fakes::kProtocolMq | fakes::kProtocolReplyAck);
  vhost_.set_protocol_features(protocol);
  vhost_.ask_for_acks((protocol & fakes::kProtocolReplyAck) != 0);
  vhost_.set_owner();
  vhost_.set_features(features_);
}

void NetCard::make_queues() {
  const bool event_idx = (features_ & common::kFeatureEventIdx) != 0;
  const auto size = static_cast<std::uint16_t>(options_.queue_size);
  const NetShape receive{
      .size = size, .buffer_bytes = options_.buffer_bytes, .receive = true, .event_idx = event_idx};
  const NetShape transmit{.size = size,
                          .buffer_bytes = options_.bytes + net::kHeaderBytes,
                          .receive = false,
                          .event_idx = event_idx};
  const std::uint64_t first = NetQueue::bytes_needed(receive);
  memory_.add({.guest_addr = kGuestStart,
               .bytes = first + NetQueue::bytes_needed(transmit),
               .name = "bulkhead-bench-ram"});
  receive_ = std::make_unique<NetQueue>(receive, memory_, kGuestStart);
  transmit_ = std::make_unique<NetQueue>(transmit, memory_, kGuestStart + first);
}

void NetCard::start() {
  vhost_.set_mem_table(memory_);
  std::uint32_t index = 0;
  for (const NetQueue* const queue : {receive_.get(), transmit_.get()}) {
    vhost_.set_vring_num(index, queue->place().size);
    vhost_.set_vring_base(index, 0);
    vhost_.set_vring_addr(queue->place().vring_addr(index, memory_));
    vhost_.set_vring_fd(VhostRequest::kSetVringKick, index, queue->kick_fd());
    vhost_.set_vring_fd(VhostRequest::kSetVringCall, index, queue->call_fd());
    ++index;
  }
  for (const std::uint32_t each : {0U, 1U}) vhost_.set_vring_enable(each, true);
  vhost_.barrier();  // The start of the queues is not what is measured.
}

void NetCard::pause(NetQueue& queue, std::uint64_t deadline) const {
  if (options_.poll) {
    __builtin_ia32_pause();
  } else {
    queue.sleep_until(deadline);
  }
}

// --- guest to tap --------------------------------------------------------------------------------

NetResult NetCard::transmit() {
  const std::vector<std::byte> frame =
      with_header(bench_packet(options_.bytes, options_.segments, true));
  std::vector<std::uint16_t> idle;
  for (std::uint16_t i = 0; i < options_.depth; ++i) {
    std::copy(frame.begin(), frame.end(), transmit_->buffer(i).begin());
    idle.push_back(i);
  }
  if (options_.poll) transmit_->never_interrupt();
  const double interval = options_.rate == 0 ? 0
                                             : static_cast<double>(kNsPerSecond) * options_.burst /
                                                   static_cast<double>(options_.rate);
  NetResult result;
  const std::uint64_t start = now_ns();
  const std::uint64_t end = after(options_.seconds);
  auto due = static_cast<double>(start);
  for (std::uint64_t now = start; now < end; now = now_ns()) {
    std::size_t ready = idle.size();
    if (interval != 0) {
      ready = 0;
      for (; due <= static_cast<double>(now) && ready + options_.burst <= idle.size();
           due += interval) {
        ready += options_.burst;
      }
    }
    for (; ready > 0; --ready) {
      transmit_->offer(idle.back());
      idle.pop_back();
    }
    transmit_->publish();
    bool some = false;
    while (const auto used = transmit_->take()) {
      idle.push_back(used->index);
      ++result.packets;
      some = true;
    }
    if (!some) pause(*transmit_, interval != 0 ? static_cast<std::uint64_t>(due) : end);
  }
  result.seconds = seconds_since(start);
  result.kicks = transmit_->kicks();
  result.interrupts = transmit_->interrupts();
  return result;
}

// --- tap to guest --------------------------------------------------------------------------------

void NetCard::offer_all_receive_buffers() {
  for (std::uint16_t i = 0; i < options_.queue_size; ++i) receive_->offer(i);
  receive_->publish();
}

std::uint32_t NetCard::harvest_packets() {
  std::uint32_t packets = 0;
  while (const auto used = receive_->take()) {
    if (buffers_left_ == 0) {
      common::Le16 count;
      std::memcpy(&count, receive_->buffer(used->index).data() + net::kNumBuffersOffset,
                  sizeof(count));
      buffers_left_ = count.get();
      fakes::require(buffers_left_ != 0, "a received packet takes no buffer");
    }
    if (--buffers_left_ == 0) ++packets;
    receive_->offer(used->index);
  }
  if (packets != 0) receive_->publish();
  return packets;
}

void NetCard::drain(std::uint32_t frames, NetResult& result) {
  const std::uint64_t start = now_ns();
  std::uint64_t last = start;
  std::uint32_t got = 0;
  offer_all_receive_buffers();
  while (got < frames && now_ns() - last < kQuietNs) {
    const std::uint32_t now = harvest_packets();
    got += now;
    if (now != 0) {
      last = now_ns();
    } else {
      pause(*receive_, last + kQuietNs);
    }
  }
  result.seconds += static_cast<double>(last - start) / static_cast<double>(kNsPerSecond);
  result.packets += got;
  result.lost += frames - std::min(got, frames);
}

// Each round has a fresh connection, whose guest has no buffers: the tap fills up behind it.
NetResult NetCard::receive() {
  const std::uint32_t fill =
      options_.segments ? std::min(options_.fill, kSegmentsFillMost) : options_.fill;
  TapFiller filler(options_.tap, bench_packet(options_.bytes, options_.segments, false));
  if (options_.poll) receive_->never_interrupt();
  NetResult result;
  filler.fill(fill);
  drain(fill, result);
  result.kicks = receive_->kicks();
  result.interrupts = receive_->interrupts();
  return result;
}

// --- there and back ------------------------------------------------------------------------------

bool NetCard::wait_for_echo(std::uint16_t sequence, std::uint64_t deadline) {
  while (now_ns() < deadline) {
    bool found = false;
    bool some = false;
    while (const auto used = receive_->take()) {
      const auto frame = receive_->buffer(used->index).first(used->bytes);
      found = found || is_echo(frame.subspan(net::kHeaderBytes), sequence);
      receive_->offer(used->index);
      some = true;
    }
    if (some) receive_->publish();
    if (found) return true;
    pause(*receive_, deadline);
  }
  return false;
}

NetResult NetCard::echo() {
  std::vector<std::byte> frame = echo_request(options_);
  if (options_.poll) receive_->never_interrupt();
  transmit_->never_interrupt();
  offer_all_receive_buffers();
  NetResult result;
  const std::uint64_t start = now_ns();
  const std::uint64_t end = after(options_.seconds);
  std::uint16_t sequence = 0;
  while (now_ns() < end) {
    number_echo(frame, ++sequence);
    std::copy(frame.begin(), frame.end(), transmit_->buffer(0).begin() + net::kHeaderBytes);
    const std::uint64_t sent = now_ns();
    transmit_->offer(0);
    transmit_->publish();
    if (!wait_for_echo(sequence, sent + kPatienceNs)) {
      fakes::require(false, "no echo within 10 s: is 192.0.2.2 a neighbour on the tap?");
    }
    result.latency_ns.add(now_ns() - sent);
    ++result.packets;
    while (!transmit_->take()) __builtin_ia32_pause();
  }
  result.seconds = seconds_since(start);
  result.kicks = transmit_->kicks() + receive_->kicks();
  result.interrupts = receive_->interrupts();
  return result;
}

}  // namespace bench
