// tests/fakes/blk_client.h: a whole virtual machine with one virtio-blk disk: memory, connection,
// queues, and the handshake in the order of QEMU or in any other.
//
// One thread may drive one queue while another sends vhost-user messages.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "common/virtio_blk_wire.h"
#include "tests/fakes/blk_queue_driver.h"
#include "tests/fakes/dirty_log.h"
#include "tests/fakes/vhost_frontend.h"
#include "tests/fakes/vm_memory.h"

namespace fakes {

class BlkClient {
 public:
  struct Options {
    std::uint16_t queues = 1;
    BlkQueueDriver::Shape shape = {};         // With `packed`, fails where that is not offered.
    std::uint64_t features = ~0ULL;           // Acknowledged where offered and understood.
    std::uint64_t protocol_features = ~0ULL;  // Likewise.
    bool acks = true;
    // Packed rings: knows no place after it has lost the back-end but the one where rings begin, as
    // QEMU does.
    bool forgets_places = false;
    bool handshake = true;  // False: only connects; the test plays the rest.
    bool gpa_as_vmm_addr = false;
  };

  // Connects, negotiates and starts every queue, as QEMU does.
  explicit BlkClient(const std::string& socket_path) : BlkClient(socket_path, Options()) {}
  BlkClient(const std::string& socket_path, const Options& options)
      : BlkClient(VhostFrontend(socket_path), options) {}
  BlkClient(VhostFrontend vhost, const Options& options);

  [[nodiscard]] VhostFrontend& vhost() noexcept { return vhost_; }
  [[nodiscard]] VmMemory& memory() noexcept { return memory_; }
  [[nodiscard]] BlkQueueDriver& queue(std::size_t index = 0) { return *queues_.at(index); }
  [[nodiscard]] std::uint32_t queues() const noexcept {
    return static_cast<std::uint32_t>(queues_.size());
  }
  [[nodiscard]] std::uint64_t offered() const noexcept { return offered_; }
  [[nodiscard]] std::uint64_t features() const noexcept { return features_; }
  [[nodiscard]] std::uint64_t protocol_features() const noexcept { return protocol_; }
  [[nodiscard]] common::blk::WireConfig config();
  [[nodiscard]] std::uint64_t capacity_sectors();

  // The handshake's parts, for tests that need another order.
  void negotiate_protocol();
  void choose_features();
  void describe_ring(std::uint32_t index, std::uint32_t base);  // NUM, BASE, ADDR
  void give_kick(std::uint32_t index);
  void give_call(std::uint32_t index);
  void give_err(std::uint32_t index);
  void enable(std::uint32_t index, bool on) { vhost_.set_vring_enable(index, on); }
  void start_all();
  // The back-end's end of the connection is gone: connects again and goes on where the used rings
  // stand, with the same in-flight region, as QEMU does. One try; false where that connection ends,
  // too.
  [[nodiscard]] bool reconnect(const std::string& socket_path);
  // As a migration does that carries the in-flight region along: another file, the same bytes.
  void copy_inflight();
  // Tells the back-end about the memory once more: rings are served by new workers then.
  void send_memory() { vhost_.set_mem_table(memory_); }

  // As QEMU begins and ends a migration: SET_LOG_BASE first, then what makes use of it.
  void set_log(const DirtyLog& log) { vhost_.set_log_base(log.description(), log.file()); }
  void log_writes(bool on);

  // ENABLE 0 and GET_VRING_BASE, as QEMU stops a ring. What the device has taken is answered then.
  [[nodiscard]] std::uint32_t stop_ring(std::uint32_t index);
  // Stopped before: BASE, ADDR, KICK, CALL, ENABLE again.
  void restart_ring(std::uint32_t index, std::uint32_t base);

  // Guest memory that no queue uses, in a region of its own.
  static constexpr std::uint64_t kSpareAddr = 0xa0000000;
  static constexpr std::uint64_t kSpareBytes = 8 << 20;

 private:
  void make_memory();
  void give_inflight();

  Options options_;
  bool logs_ = false;
  VhostFrontend::InflightFile inflight_;  // Without a file where it was not negotiated.
  VhostFrontend vhost_;
  VmMemory memory_;
  std::vector<std::unique_ptr<BlkQueueDriver>> queues_;
  std::uint64_t offered_ = 0;
  std::uint64_t features_ = 0;
  std::uint64_t protocol_ = 0;
};

}  // namespace fakes
