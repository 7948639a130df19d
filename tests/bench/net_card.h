// tests/bench/net_card.h: a guest with one pair of queues, connected and started, and the loads
// that can be put on it.
#pragma once

#include <cstdint>
#include <memory>

#include "tests/bench/histogram.h"
#include "tests/bench/net_options.h"
#include "tests/bench/net_queue.h"
#include "tests/fakes/vhost_frontend.h"
#include "tests/fakes/vm_memory.h"

namespace bench {

struct NetResult {
  std::uint64_t packets = 0;
  double seconds = 0;  // In which these packets went.
  std::uint64_t kicks = 0;
  std::uint64_t interrupts = 0;
  std::uint64_t lost = 0;  // Sent into the tap and never seen by the guest.
  Histogram latency_ns;    // kEcho.
};

class NetCard {
 public:
  explicit NetCard(const NetOptions& options);

  [[nodiscard]] NetResult transmit();
  [[nodiscard]] NetResult receive();
  [[nodiscard]] NetResult echo();

 private:
  void negotiate();
  void make_queues();
  void start();
  void offer_all_receive_buffers();
  // Takes what has come, and offers its buffers again. How many packets.
  [[nodiscard]] std::uint32_t harvest_packets();
  [[nodiscard]] bool wait_for_echo(std::uint16_t sequence, std::uint64_t deadline);
  void pause(NetQueue& queue, std::uint64_t deadline) const;
  void drain(std::uint32_t frames, NetResult& result);

  const NetOptions& options_;
  fakes::VhostFrontend vhost_;
  fakes::VmMemory memory_;
  std::uint64_t features_ = 0;
  std::unique_ptr<NetQueue> receive_;
  std::unique_ptr<NetQueue> transmit_;
  std::uint32_t buffers_left_ = 0;  // Of a packet of which some have come.
};

}  // namespace bench
