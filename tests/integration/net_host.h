// tests/integration/net_host.h: one broker with network cards in a network namespace of its own.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "tests/fakes/broker_process.h"
#include "tests/fakes/host_port.h"
#include "tests/fakes/net_client.h"
#include "tests/fakes/net_namespace.h"
#include "tests/fakes/temp_dir.h"
#include "tests/integration/host.h"

namespace integration {

struct Card {
  std::string tap = "tap0";
  std::vector<std::string> options = {};  // As on the command line of `bulkhead net`.
};

class NetHost {
 public:
  explicit NetHost(const char* engine) : engine_(engine) {}

  // `bulkhead net` on a tap that is there; returns once it listens.
  void serve(const Card& card = {});
  // `bulkhead serve` with one card for each tap.
  void serve_all(const std::vector<std::string>& taps);
  // `bulkhead` with these arguments and descriptors, whatever they are; not awaited.
  void run(const std::vector<std::string>& arguments,
           const std::vector<common::FdRef>& inherit = {});
  // The arguments of serve(), for tests that serve it again.
  [[nodiscard]] std::vector<std::string> net_arguments(const Card& card) const;
  // `bulkhead takeover` of what is served; returns once the broker before it has left.
  void take_over_by(std::vector<std::string> arguments);
  // Runs it to its end, which must come by itself; what it has printed.
  [[nodiscard]] std::string run_to_failure(const std::vector<std::string>& arguments,
                                           const std::vector<common::FdRef>& inherit = {});

  [[nodiscard]] fakes::BrokerProcess& broker() { return *broker_; }
  [[nodiscard]] std::string socket(const std::string& name = "tap0") const {
    return sockets_.file(name + ".sock");
  }
  [[nodiscard]] std::string socket_option(const std::string& name = "tap0") const {
    return "--socket-path=" + socket(name);
  }
  [[nodiscard]] std::string engine_option() const { return std::string("--engine=") + engine_; }
  [[nodiscard]] std::unique_ptr<fakes::NetClient> connect(
      const fakes::NetClient::Options& options = {}, const std::string& name = "tap0") const {
    return std::make_unique<fakes::NetClient>(socket(name), options);
  }
  [[nodiscard]] std::vector<pid_t> workers() { return broker().children_named("worker"); }

 private:
  const char* engine_;
  fakes::TempDir sockets_ = fakes::TempDir::for_sockets();
  std::unique_ptr<fakes::BrokerProcess> broker_;
};

// Runs once for each engine, each time in an empty network. Without the right to make one there is
// nothing to test.
class NetTest : public testing::TestWithParam<Setting> {
 protected:
  void SetUp() override;

  [[nodiscard]] NetHost& host() { return *host_; }
  void add_tap(const fakes::TapShape& shape = {}, const std::string& name = "tap0") {
    fakes::make_tap(name, shape);
  }
  // A tap, a broker on it, the host's end, and a front-end with all queues started.
  void start(const fakes::NetClient::Options& options = {}, const Card& card = {},
             const fakes::TapShape& shape = {});
  [[nodiscard]] fakes::NetClient& client() { return *client_; }
  [[nodiscard]] fakes::HostPort& port() { return *port_; }

  // A packet each way, byte by byte.
  void expect_sends(std::size_t pair = 0, std::uint32_t seed = 1);
  void expect_receives(std::size_t pair = 0, std::uint32_t seed = 2);
  void expect_works() {
    expect_sends();
    expect_receives();
  }

  std::unique_ptr<fakes::NetNamespace> network_;
  std::unique_ptr<NetHost> host_;
  std::unique_ptr<fakes::HostPort> port_;
  std::unique_ptr<fakes::NetClient> client_;
};

inline constexpr int kPacketPatienceMs = 10'000;

}  // namespace integration
