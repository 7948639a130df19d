#include "tests/integration/net_host.h"

#include <fstream>
#include <utility>

#include "tests/fakes/failure.h"

namespace integration {

void NetHost::run(const std::vector<std::string>& arguments,
                  const std::vector<common::FdRef>& inherit) {
  broker_ = std::make_unique<fakes::BrokerProcess>(fakes::BrokerProcess::Setup{
      .program = BULKHEAD_PROGRAM, .arguments = arguments, .inherit = inherit});
}

std::string NetHost::run_to_failure(const std::vector<std::string>& arguments,
                                    const std::vector<common::FdRef>& inherit) {
  run(arguments, inherit);
  EXPECT_NE(broker_->wait_exit(), 0);
  return broker_->log();
}

std::vector<std::string> NetHost::net_arguments(const Card& card) const {
  std::vector<std::string> arguments = {"net", socket_option(card.tap), "--tap-name=" + card.tap,
                                        engine_option()};
  arguments.insert(arguments.end(), card.options.begin(), card.options.end());
  return arguments;
}

void NetHost::serve(const Card& card) {
  run(net_arguments(card));
  broker_->wait_ready();
}

void NetHost::take_over_by(std::vector<std::string> arguments) {
  arguments.insert(arguments.begin(), "takeover");
  auto next = std::make_unique<fakes::BrokerProcess>(
      fakes::BrokerProcess::Setup{.program = BULKHEAD_PROGRAM, .arguments = std::move(arguments)});
  next->wait_ready();
  fakes::require(broker_->wait_exit() == 0, "the broker did not leave well: " + broker_->log());
  broker_ = std::move(next);
}

void NetHost::serve_all(const std::vector<std::string>& taps) {
  const std::string path = sockets_.file("bulkhead.toml");
  std::ofstream config(path);
  for (const std::string& tap : taps) {
    config << "[[device]]\ntype = \"net\"\nsocket_path = \"" << socket(tap) << "\"\ntap_name = \""
           << tap << "\"\nnum_queues = 2\nengine = \"" << engine_ << "\"\n";
  }
  config.close();
  run({"serve", "--config=" + path});
  broker_->wait_ready();
}

void NetTest::SetUp() {
  if (!fakes::NetNamespace::possible()) GTEST_SKIP() << "making a network needs root";
  network_ = std::make_unique<fakes::NetNamespace>();
  host_ = std::make_unique<NetHost>(GetParam().engine);
}

void NetTest::start(const fakes::NetClient::Options& options, const Card& card,
                    const fakes::TapShape& shape) {
  add_tap(shape, card.tap);
  host_->serve(card);
  client_ = host_->connect(options, card.tap);
  port_ = std::make_unique<fakes::HostPort>(card.tap);
}

void NetTest::expect_sends(std::size_t pair, std::uint32_t seed) {
  const auto frame = fakes::make_frame(600 + seed % 400, seed, true);
  client_->transmit_queue(pair).send({.header = {}, .frame = frame});
  const auto got = port_->receive(kPacketPatienceMs);
  ASSERT_TRUE(got.has_value()) << host_->broker().log();
  EXPECT_EQ(got->frame, frame);
}

void NetTest::expect_receives(std::size_t pair, std::uint32_t seed) {
  const auto frame = fakes::make_frame(600 + seed % 400, seed);
  port_->send(frame);
  const auto got = client_->receive_queue(pair).receive(kPacketPatienceMs);
  ASSERT_TRUE(got.has_value()) << host_->broker().log();
  EXPECT_EQ(got->frame, frame);
}

}  // namespace integration
