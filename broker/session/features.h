// broker/session/features.h: what is offered, and what the front-end acknowledged.
#pragma once

#include <cstdint>

#include "broker/session/end.h"
#include "broker/session/vhost_wire.h"
#include "common/dirty_log_wire.h"
#include "common/virtqueue_wire.h"

namespace session {

// Not offered: PAGEFAULT, since a descriptor for page faults is one address space's, the request
// has room for one, and ours are as many as there are queues. Never to be offered blindly:
// INBAND_NOTIFICATIONS and XEN_MMAP, because QEMU acknowledges every bit that
// it knows, and these change the layout or the meaning of messages.
//
// GET_VRING_BASE_INFLIGHT allows us to stop a ring with requests in flight, recorded in their
// region, and has the front-end carry that region to where its guest moves. We finish them all the
// same: what a worker has taken is with the kernel within the turn, which cannot take back what it
// does to a file and would write to the guest's memory after we had said that we do not. Offered
// nonetheless, since the region then travels, and with it what dead workers have left.
inline constexpr std::uint64_t kOfferedProtocol =
    kProtocolMq | kProtocolLogShmfd | kProtocolReplyAck | kProtocolBackendReq | kProtocolConfig |
    kProtocolBackendSendFd | kProtocolInflightShmfd | kProtocolResetDevice |
    kProtocolConfigureMemSlots | kProtocolStatus | kProtocolDeviceState |
    kProtocolGetVringBaseInflight;

// Those that are offered only for a device that has a use for them.
inline constexpr std::uint64_t kDeviceProtocol = kProtocolRarp | kProtocolMtu;

// virtio 1.2, 2.1: bits of the device status that we look at.
inline constexpr std::uint8_t kStatusFeaturesOk = 8;
inline constexpr std::uint8_t kStatusNeedsReset = 64;

class Features {
 public:
  Features() = default;
  // `device_features`: all virtio bits of the device; vhost-user's own is added here.
  // `device_protocol`: of kDeviceProtocol, those that this device has.
  explicit Features(std::uint64_t device_features, std::uint64_t device_protocol = 0) noexcept
      : offered_(device_features | kVhostBits),
        offered_protocol_(kOfferedProtocol | device_protocol) {}

  [[nodiscard]] std::uint64_t offered() const noexcept { return offered_; }
  [[nodiscard]] std::uint64_t offered_protocol() const noexcept { return offered_protocol_; }
  [[nodiscard]] Outcome<void> acknowledge(std::uint64_t bits) noexcept;
  [[nodiscard]] Outcome<void> acknowledge_protocol(std::uint64_t bits) noexcept;

  [[nodiscard]] bool acknowledged() const noexcept { return acknowledged_; }
  // For the worker: without what is not the driver's.
  [[nodiscard]] std::uint64_t driver_bits() const noexcept { return bits_ & ~kVhostBits; }
  // VIRTIO_F_RING_PACKED: its rings are virtio 1.2, 2.8's. Whether it will be so is not known
  // before the driver's features are.
  [[nodiscard]] bool packed() const noexcept { return (bits_ & common::kFeatureRingPacked) != 0; }
  [[nodiscard]] bool offers_packed() const noexcept {
    return (offered_ & common::kFeatureRingPacked) != 0;
  }
  [[nodiscard]] bool may_be_packed() const noexcept {
    return acknowledged_ ? packed() : offers_packed();
  }
  // A migration is under way: what is written to the guest's memory is to be logged.
  [[nodiscard]] bool log_all() const noexcept {
    return (bits_ & common::dirty_log::kFeatureLogAll) != 0;
  }
  [[nodiscard]] bool rings_start_disabled() const noexcept {
    return (bits_ & common::kFeatureProtocolFeatures) != 0;
  }
  [[nodiscard]] std::uint64_t bits() const noexcept { return bits_; }
  [[nodiscard]] std::uint64_t protocol() const noexcept { return protocol_; }
  [[nodiscard]] bool has_protocol(std::uint64_t bits) const noexcept {
    return (protocol_ & bits) == bits;
  }

  // virtio 1.2, 2.1.2 (device requirements): FEATURES_OK is only shown where we agree, and
  // NEEDS_RESET is ours alone to set.
  void set_status(std::uint8_t status) noexcept;
  [[nodiscard]] std::uint8_t status(bool needs_reset) const noexcept;

  // The driver's half starts anew; the connection's (protocol features) stays.
  void reset() noexcept;

 private:
  // vhost-user's own among the virtio bits: between the front-end and us.
  static constexpr std::uint64_t kVhostBits =
      common::kFeatureProtocolFeatures | common::dirty_log::kFeatureLogAll;

  std::uint64_t offered_ = 0;
  std::uint64_t offered_protocol_ = kOfferedProtocol;
  std::uint64_t bits_ = 0;
  std::uint64_t protocol_ = 0;
  bool acknowledged_ = false;
  std::uint8_t status_ = 0;
};

}  // namespace session
