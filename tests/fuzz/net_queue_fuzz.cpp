// tests/fuzz/net_queue_fuzz.cpp: a whole network queue, one of the three, over a guest's memory and
// a tap that behaves as the input says, while the guest goes on writing: nothing reaches the tap or
// the broker that was not negotiated, no byte outside the guest is touched, buffers are used in the
// order in which they were offered, and it ends.
//
// Input: log2 of the queue size, role and ring flags, features (2 bytes), MTU (2 bytes), image
// length (2 bytes), image, script. The script says what becomes of each packet, and what the guest
// writes each turn.
#include <algorithm>
#include <array>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

#include "common/status_page.h"
#include "common/virtio_net_wire.h"
#include "tests/fuzz/fuzz_guest.h"
#include "tests/fuzz/fuzz_input.h"
#include "worker/net_control.h"
#include "worker/net_receive.h"
#include "worker/net_transmit.h"
#include "worker/tap_engine.h"

namespace {

namespace net = common::net;
using common::ipc::WorkerExit;
using fuzz::require;

constexpr std::uint32_t kTurnsMax = 200;
constexpr std::uint32_t kPairs = 4;

enum Flag : std::uint8_t {
  kRoleMask = 3,
  kEventIdx = 4,
  kIndirect = 8,
  kLegacy = 16,
  kPacked = 32
};

// The low half of the features as they are; the rest of those that matter in the input's high bits.
std::uint64_t features_of(std::uint16_t low, std::uint8_t flags) {
  std::uint64_t features = low;
  // Bits 4 and 6 are nothing of ours: USO, and the control queue with all that it can do.
  if ((low & (1U << 4)) != 0) features |= net::kFeatureHostUso | net::kFeatureGuestUso4;
  if ((low & (1U << 6)) != 0) {
    features |= net::kFeatureCtrlVq | net::kFeatureCtrlRx | net::kFeatureCtrlRxExtra |
                net::kFeatureMq | net::kFeatureCtrlMacAddr | net::kFeatureGuestAnnounce;
  }
  if ((flags & kLegacy) == 0) features |= common::kFeatureVersion1;
  if ((flags & kEventIdx) != 0) features |= common::kFeatureEventIdx;
  if ((flags & kIndirect) != 0) features |= common::kFeatureIndirectDesc;
  if ((flags & kPacked) != 0) features |= common::kFeatureRingPacked;
  return features;
}

class FuzzTap final : public worker::TapEngine {
 public:
  FuzzTap(fuzz::Guest& guest, std::uint64_t features, bool receives, fuzz::Input& script)
      : guest_(guest), features_(features), receives_(receives), script_(script) {}

  [[nodiscard]] worker::TapWakeup transfer(std::span<worker::TapPacket> packets) noexcept override {
    scribble();
    require(packets.size() <= worker::kTapBatchMax);
    for (worker::TapPacket& packet : packets) {
      require(packet.count >= 1 && packet.count <= 1024);
      packet.result = receives_ ? receive(packet) : transmit(packet);
    }
    return news(false);
  }
  void ring_call() noexcept override {}
  [[nodiscard]] worker::TapWakeup wait(Until) noexcept override {
    scribble();
    return news(true);
  }
  void watch_tap() noexcept override {}
  [[nodiscard]] bool ready() noexcept override { return true; }
  [[nodiscard]] std::uint64_t system_calls() const noexcept override { return turns_; }
  [[nodiscard]] bool gone() const { return gone_; }

 private:
  // What cannot go on by itself ends, and so does what never would.
  worker::TapWakeup news(bool sleeps) {
    worker::TapWakeup wakeup;
    wakeup.stop = (sleeps && script_.empty()) || ++turns_ > kTurnsMax;
    wakeup.tap_ready = wakeup.kicked = true;
    return wakeup;
  }

  // What the guest's other CPUs do meanwhile.
  void scribble() {
    for (std::uint8_t count = script_.byte() & 3; count > 0; --count) {
      const std::uint64_t offset = script_.word() % (fuzz::Guest::kFirstBytes - 1);
      const std::uint16_t value = script_.word();
      std::memcpy(guest_.ram.regions()[0].host + offset, &value, sizeof(value));
    }
  }

  std::int32_t failure(std::uint8_t how) {
    constexpr std::array kErrors = {EAGAIN, EAGAIN, EINTR, EIO, EFAULT, EINVAL, ENOBUFS, EBADFD};
    const int error = kErrors[how & 7];
    gone_ = gone_ || error == EBADFD;
    return -error;
  }

  std::int32_t receive(const worker::TapPacket& packet) {
    const std::uint8_t how = script_.byte();
    if (how >= 0xe0 || script_.empty()) return failure(script_.empty() ? 0 : how);
    // Short ones, whole pages, and up to more than there can be.
    std::size_t left = how < 0x80 ? 26U + how : how < 0xc0 ? how * 16U : (how - 0xc0U) * 2200U;
    std::size_t moved = 0;
    for (const iovec& segment : std::span(packet.segments, packet.count)) {
      const std::size_t here = std::min(segment.iov_len, left - moved);
      std::memset(segment.iov_base, how, here);
      moved += here;
    }
    return static_cast<std::int32_t>(moved);
  }

  std::int32_t transmit(const worker::TapPacket& packet) {
    std::vector<std::byte> frame;
    for (const iovec& segment : std::span(packet.segments, packet.count)) {
      const auto* const start = static_cast<const std::byte*>(segment.iov_base);
      frame.insert(frame.end(), start, start + segment.iov_len);
    }
    require(frame.size() >= net::kHeaderBytes + net::kEthernetBytes);
    require(frame.size() <= net::kFrameBytesMax);
    net::WireHeader header;
    std::memcpy(&header, frame.data(), sizeof(header));
    check(header, frame.size() - sizeof(header));
    const std::uint8_t how = script_.byte();
    return how >= 0xe0 ? failure(how) : static_cast<std::int32_t>(frame.size());
  }

  void check(const net::WireHeader& header, std::size_t bytes) const {
    const auto allowed = [this](std::uint64_t feature) { return (features_ & feature) != 0; };
    require((header.flags & ~net::kHeaderNeedsCsum) == 0);
    require(header.num_buffers.get() == 0 && header.hdr_len.get() <= bytes);
    if (header.flags != 0) {
      require(allowed(net::kFeatureCsum));
      require(std::size_t{header.csum_start.get()} + header.csum_offset.get() + 2 <= bytes);
    }
    if (header.gso_type == 0) return;
    require(header.gso_size.get() != 0);
    if ((header.gso_type & net::kGsoEcn) != 0) require(allowed(net::kFeatureHostEcn));
    switch (header.gso_type & ~net::kGsoEcn) {
      case 1:
        return require(allowed(net::kFeatureHostTso4));
      case 3:
        return require(allowed(net::kFeatureHostUfo));
      case 4:
        return require(allowed(net::kFeatureHostTso6));
      case 5:
        return require(allowed(net::kFeatureHostUso));
      default:
        require(false);
    }
  }

  fuzz::Guest& guest_;
  std::uint64_t features_;
  bool receives_;
  fuzz::Input& script_;
  std::uint32_t turns_ = 0;
  bool gone_ = false;
};

// The broker: what it is asked for was negotiated.
class FuzzLink final : public worker::ControlLink {
 public:
  FuzzLink(std::uint64_t features, fuzz::Input& script) : features_(features), script_(script) {}
  [[nodiscard]] bool ask(const common::ipc::NetControl& order) noexcept override {
    using common::ipc::NetCommand;
    switch (static_cast<NetCommand>(order.command)) {
      case NetCommand::kPairs:
        require((features_ & net::kFeatureMq) != 0 && order.value >= 1 && order.value <= kPairs);
        break;
      case NetCommand::kOffloads:
        require((order.value & ~(features_ & net::kGuestOffloads)) == 0);
        break;
      case NetCommand::kReceiveFilter:
        require(order.value < 1U << net::kRxCommands);
        require(order.unicasts + order.multicasts <= common::ipc::kNetFilterMacsMax);
        break;
      default:
        require(false);
    }
    return (script_.byte() & 1) != 0;
  }

 private:
  std::uint64_t features_;
  fuzz::Input& script_;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static fuzz::Guest guest;
  fuzz::Input input(data, size);
  const std::uint8_t size_log2 = input.byte();
  const std::uint8_t flags = input.byte();
  const std::uint64_t features = features_of(input.word(), flags);
  common::ipc::NetStart device{};
  device.kind = common::ipc::NetStart::kKind;
  device.role = (flags & kRoleMask) % 3;
  device.pairs = kPairs;
  device.mtu = input.word();
  const std::uint16_t image_bytes = input.word();
  guest.load(input.bytes(std::min<std::size_t>(image_bytes, fuzz::Guest::kImageBytes)));

  const auto role = static_cast<common::ipc::NetRole>(device.role);
  FuzzTap tap(guest, features, role == common::ipc::NetRole::kReceive, input);
  common::StatusPage status{};
  const worker::NetQueueParts parts{guest.ram.memory(), device,
                                    fuzz::Guest::ring(size_log2, features), &tap, &status};
  WorkerExit exit = WorkerExit::kStopped;
  if (role == common::ipc::NetRole::kReceive) {
    exit = worker::NetReceive::create(parts)->run();
  } else if (role == common::ipc::NetRole::kTransmit) {
    exit = worker::NetTransmit::create(parts)->run();
  } else {
    FuzzLink link(features, input);
    exit = worker::NetControl::create(parts, link)->run();
  }
  require(exit == WorkerExit::kStopped || exit == WorkerExit::kGuestFault ||
          (exit == WorkerExit::kHostFault && tap.gone()));
  require((exit == WorkerExit::kStopped) == (status.fault.load() == 0));
  return 0;
}
