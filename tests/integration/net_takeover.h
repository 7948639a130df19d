// tests/integration/net_takeover.h: a network card whose broker dies, or whose place another takes.
#pragma once

#include <gtest/gtest.h>
#include <signal.h>

#include <array>
#include <chrono>
#include <cstdio>
#include <memory>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "tests/fakes/process.h"
#include "tests/integration/net_host.h"
#include "tests/integration/packet_flow.h"

namespace integration {

class NetTakeover : public NetTest {
 protected:
  void start_card(const fakes::NetClient::Options& options = {}, const Card& card = {},
                  const fakes::TapShape& shape = {}) {
    arguments_ = host().net_arguments(card);
    start(options, card, shape);
    note_children();
  }
  // What `arguments` serve, on an interface that is there.
  void start_as(const std::vector<std::string>& arguments, const std::string& interface,
                const std::vector<common::FdRef>& inherit = {}) {
    arguments_ = arguments;
    host().run(arguments_, inherit);
    host().broker().wait_ready();
    client_ = host().connect();
    port_ = std::make_unique<fakes::HostPort>(interface);
    note_children();
    expect_works();
  }
  void note_children() {
    for (const char* what : {"worker", "session", "keeper"}) {
      for (const pid_t pid : host().broker().children_named(what)) born_.insert(pid);
    }
  }
  [[nodiscard]] std::vector<pid_t> first(const std::string& what) const {
    std::vector<pid_t> found;
    for (const pid_t pid : born_) {
      if (fakes::command_line_of(pid).find(what) != std::string::npos) found.push_back(pid);
    }
    return found;
  }
  void kill_broker() {
    host().broker().signal(SIGKILL);
    EXPECT_EQ(host().broker().wait_exit(), 128 + SIGKILL);
  }
  void start_again() {
    host().run(arguments_);
    host().broker().wait_ready();
    expect_adopted();
  }
  void take_over() {
    host().take_over_by(arguments_);
    expect_adopted();
  }
  void expect_adopted() {
    EXPECT_NE(host().broker().wait_for_line({"goes on serving"}), "") << host().broker().log();
  }
  void stop_all() {
    note_children();
    host().broker().signal(SIGTERM);
    EXPECT_EQ(host().broker().wait_exit(), 0);
    for (const pid_t pid : born_) EXPECT_TRUE(fakes::wait_gone(pid)) << fakes::command_line_of(pid);
  }
  void TearDown() override {
    if (HasFailure() && host_) std::printf("%s\n", host().broker().log().c_str());
  }
  // The pairs into which packets of many flows go.
  std::set<std::size_t> pairs_that_receive(std::size_t pairs) {
    constexpr std::uint32_t kFlows = 64;
    for (std::uint32_t flow = 0; flow < kFlows; ++flow) {
      port().send(fakes::make_unfinished(fakes::Unfinished::kUdp4Checksum, 200 + flow, flow));
    }
    std::set<std::size_t> seen;
    std::uint32_t count = 0;
    const auto give_up = std::chrono::steady_clock::now() + fakes::kPatience;
    while (count < kFlows && std::chrono::steady_clock::now() < give_up) {
      for (std::size_t pair = 0; pair < pairs; ++pair) {
        while (client().receive_queue(pair).receive(20)) {
          seen.insert(pair);
          ++count;
        }
      }
    }
    EXPECT_EQ(count, kFlows);
    return seen;
  }
  std::uint8_t command(common::net::ControlClass class_, std::uint8_t number,
                       const std::vector<std::uint8_t>& arguments) {
    return client()
        .control_queue()
        .command(static_cast<std::uint8_t>(class_), number, std::as_bytes(std::span(arguments)))
        .value_or(0xee);
  }
  std::uint8_t set_pairs(std::uint8_t pairs) {
    return command(common::net::ControlClass::kMq, common::net::kMqPairsSet, {pairs, 0});
  }
  // Whether the guest is sent packets whose checksum it has to finish.
  bool is_sent_unfinished() {
    port().send(fakes::make_unfinished(fakes::Unfinished::kTcp4Checksum, 900, 1));
    const auto got = client().receive_queue().receive(kPacketPatienceMs);
    EXPECT_TRUE(got.has_value());
    return got && (got->header.flags & common::net::kHeaderNeedsCsum) != 0;
  }
  void send_rarp() {
    constexpr std::array<std::uint8_t, 8> kMac = {0x52, 0x54, 0, 0xaa, 0xbb, 0xcc, 0, 0};
    client().vhost().request(fakes::VhostRequest::kSendRarp, fakes::bytes_of(kMac));
  }
  void expect_rarp() {
    const auto got = port().receive(kPacketPatienceMs);
    ASSERT_TRUE(got.has_value());
    ASSERT_EQ(got->frame.size(), 60U);
    EXPECT_EQ(std::to_integer<int>(got->frame[13]), 0x35);
    EXPECT_EQ(std::to_integer<int>(got->frame[27]), 0xcc);
  }

  std::vector<std::string> arguments_;
  std::set<pid_t> born_;
};

}  // namespace integration
