// tests/integration/packet_flow.h: a guest and its network that do not stop talking while the test
// turns screws: every packet has to arrive, once, in order, and whole.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <string>
#include <thread>

#include "tests/fakes/host_port.h"
#include "tests/fakes/net_client.h"

namespace integration {

// By the card's first pair, on a thread of its own: nobody else touches that or the port meanwhile.
class PacketFlow {
 public:
  struct Plan {
    bool may_lose = false;  // What a worker had read when it was killed is gone, as on any network.
    std::uint32_t burst = 8;
  };
  PacketFlow(fakes::NetClient& client, fakes::HostPort& port) : PacketFlow(client, port, Plan()) {}
  PacketFlow(fakes::NetClient& client, fakes::HostPort& port, const Plan& plan);
  PacketFlow(const PacketFlow&) = delete;
  PacketFlow& operator=(const PacketFlow&) = delete;
  ~PacketFlow();

  // Blocks until so many more bursts have gone each way; fails if something was lost.
  void expect_progress(std::uint64_t bursts = 20);
  void stop();

 private:
  void run();
  [[nodiscard]] std::string exchange(std::uint32_t first);
  [[nodiscard]] std::string try_exchange(std::uint32_t seed);
  void send(std::uint32_t seed);
  [[nodiscard]] bool arrives(std::uint32_t seed, bool from_guest);

  fakes::NetClient& client_;
  fakes::HostPort& port_;
  const Plan plan_;
  std::mutex mutex_;
  std::condition_variable moved_;
  std::uint64_t bursts_ = 0;
  std::string problem_;
  bool ended_ = false;
  std::atomic<bool> stop_ = false;
  std::thread thread_;
};

}  // namespace integration
