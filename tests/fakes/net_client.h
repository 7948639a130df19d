// tests/fakes/net_client.h: a whole virtual machine with one virtio-net card: memory, connection,
// pairs of queues, and the handshake in the order of QEMU or in any other.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "common/virtio_net_wire.h"
#include "tests/fakes/dirty_log.h"
#include "tests/fakes/net_queue_driver.h"
#include "tests/fakes/vhost_frontend.h"
#include "tests/fakes/vm_memory.h"

namespace fakes {

class NetClient {
 public:
  struct Options {
    std::uint16_t pairs = 1;
    bool packed = false;   // All rings; fails where that is not offered.
    bool tracked = false;  // Keeps an in-flight region, as crosvm and QEMU do for disks.
    bool control = false;  // The control virtqueue is ours to serve, as with crosvm.
    NetQueueDriver::Shape receive = {};
    NetQueueDriver::Shape transmit = {.slot_bytes = 70000};
    std::uint64_t features = ~0ULL;           // Acknowledged where offered and understood.
    std::uint64_t protocol_features = ~0ULL;  // Likewise.
    bool acks = true;
    bool handshake = true;  // False: only connects; the test plays the rest.
    bool offer_buffers = true;
  };

  // Connects, negotiates and starts every queue.
  explicit NetClient(const std::string& socket_path) : NetClient(socket_path, Options()) {}
  NetClient(const std::string& socket_path, const Options& options);

  [[nodiscard]] VhostFrontend& vhost() noexcept { return vhost_; }
  [[nodiscard]] VmMemory& memory() noexcept { return memory_; }
  [[nodiscard]] NetQueueDriver& receive_queue(std::size_t pair = 0) {
    return *queues_.at(2 * pair);
  }
  [[nodiscard]] NetQueueDriver& transmit_queue(std::size_t pair = 0) {
    return *queues_.at(2 * pair + 1);
  }
  [[nodiscard]] NetQueueDriver& queue(std::size_t index) { return *queues_.at(index); }
  [[nodiscard]] NetQueueDriver& control_queue() { return *queues_.back(); }
  [[nodiscard]] std::uint64_t offered() const noexcept { return offered_; }
  [[nodiscard]] std::uint64_t features() const noexcept { return features_; }
  [[nodiscard]] std::uint64_t protocol_features() const noexcept { return protocol_; }
  [[nodiscard]] common::net::WireConfig config();

  // The handshake's parts, for tests that need another order.
  void negotiate_protocol();
  void choose_features();
  void start_all();
  void start_queue(std::uint32_t index, std::uint32_t base);
  void enable(std::uint32_t index, bool on) { vhost_.set_vring_enable(index, on); }
  void enable_pair(std::uint32_t pair, bool on);
  [[nodiscard]] std::uint32_t queues() const noexcept {
    return static_cast<std::uint32_t>(queues_.size());
  }
  // The number under which the back-end knows queue `index` of ours: the control virtqueue follows
  // the last pair that the device has.
  [[nodiscard]] std::uint32_t number_of(std::uint32_t index);
  // ENABLE 0 and GET_VRING_BASE, as QEMU stops a ring.
  [[nodiscard]] std::uint32_t stop_queue(std::uint32_t index);
  // As QEMU begins and ends a migration: SET_LOG_BASE first, then what makes use of it.
  void set_log(const DirtyLog& log) { vhost_.set_log_base(log.description(), log.file()); }
  void log_writes(bool on);
  // The back-end's end of the connection is gone: connects again and goes on where the used rings
  // stand, with the same in-flight region. One try; false where that connection ends, too.
  // `anew`: the guest has reset its card, and its rings are empty.
  [[nodiscard]] bool reconnect(const std::string& socket_path, bool anew = false);
  // A guest's reset: every ring stopped, emptied, and started again.
  void restart_all();

 private:
  void make_memory();
  void give_inflight();
  [[nodiscard]] NetQueueDriver::Shape shape_of(std::uint32_t index) const;

  Options options_;
  bool logs_ = false;
  VhostFrontend::InflightFile inflight_;  // Without a file where it was not negotiated.
  VhostFrontend vhost_;
  VmMemory memory_;
  std::vector<std::unique_ptr<NetQueueDriver>> queues_;
  std::uint64_t offered_ = 0;
  std::uint64_t features_ = 0;
  std::uint64_t protocol_ = 0;
};

}  // namespace fakes
