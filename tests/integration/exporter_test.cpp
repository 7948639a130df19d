// tests/integration/exporter_test.cpp: bulkhead-exporter, as systemd starts it, beside a broker.
#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>

#include <array>
#include <chrono>
#include <memory>

#include "tests/fakes/failure.h"
#include "tests/fakes/vhost_frontend.h"
#include "tests/integration/operated.h"

namespace integration {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

constexpr auto kPatienceMs = static_cast<int>(std::chrono::milliseconds(fakes::kPatience).count());

common::Fd tcp_socket() { return common::Fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)); }

class Exporter : public OperatedTest {
 protected:
  Exporter() : listener_(tcp_socket()) {
    sockaddr_in loopback{};
    loopback.sin_family = AF_INET;
    loopback.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    auto* const raw = reinterpret_cast<sockaddr*>(&address_);
    socklen_t bytes = sizeof(address_);
    const int fd = listener_.ref().number;
    fakes::require_call(::bind(fd, reinterpret_cast<const sockaddr*>(&loopback), bytes) == 0 &&
                            ::listen(fd, 8) == 0 && ::getsockname(fd, raw, &bytes) == 0,
                        "listen");
  }

  void start_exporter() {
    exporter_ = std::make_unique<fakes::BrokerProcess>(fakes::BrokerProcess::Setup{
        .program = "/bin/sh",
        .arguments = {"-c", R"(LISTEN_PID=$$ exec "$0" "$@")", BULKHEAD_EXPORTER,
                      "--control-socket=" + control()},
        .environment = {"LISTEN_FDS=1"},
        .inherit = {listener_.ref()},
        .drop_root = true});
    exporter_->wait_ready();
  }

  [[nodiscard]] std::string get_metrics() const {
    const common::Fd client = tcp_socket();
    const auto* const raw = reinterpret_cast<const sockaddr*>(&address_);
    const int fd = client.ref().number;
    const std::string request = "GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n";
    fakes::require_call(::connect(fd, raw, sizeof(address_)) == 0 &&
                            ::send(fd, request.data(), request.size(), MSG_NOSIGNAL) > 0,
                        "connect to the exporter");
    std::string all;
    std::array<char, 4096> part{};
    while (true) {
      pollfd waiting{fd, POLLIN, 0};
      fakes::require(::poll(&waiting, 1, kPatienceMs) == 1, "the exporter does not answer");
      const ssize_t got = ::recv(fd, part.data(), part.size(), 0);
      if (got <= 0) return all;
      all.append(part.data(), static_cast<std::size_t>(got));
    }
  }

  common::Fd listener_;
  sockaddr_in address_{};
  std::unique_ptr<fakes::BrokerProcess> exporter_;
};

TEST_F(Exporter, GivesWhatABrokerCounts) {
  serve({{.name = "vda"}}, {"--control-read-group=65534"});
  const auto vda = host_.connect();
  expect_serves(vda->queue());
  start_exporter();
  const std::string answer = get_metrics();
  EXPECT_THAT(answer, StartsWith("HTTP/1.1 200 "));
  EXPECT_THAT(answer, HasSubstr("bulkhead_block_requests_total{device=\"vda\",op=\"read\"} 2\n"));
  EXPECT_THAT(answer, HasSubstr("bulkhead_request_duration_seconds_count{device=\"vda\","
                                "queue=\"0\",op=\"write\"} 1\n"));
}

TEST_F(Exporter, SaysThatItMayNotLook) {
  serve({{.name = "vda"}});
  start_exporter();
  const std::string answer = get_metrics();
  EXPECT_THAT(answer, StartsWith("HTTP/1.1 503 "));
  EXPECT_THAT(answer, HasSubstr("--control-read-group"));
}

TEST_F(Exporter, SaysThatItsBrokerHasGone) {
  serve({{.name = "vda"}}, {"--control-read-group=65534"});
  start_exporter();
  EXPECT_EQ(ask({"stop", "--all"}).exit_code, 0);
  EXPECT_EQ(host_.broker().wait_exit(), 0);
  const std::string answer = get_metrics();
  EXPECT_THAT(answer, StartsWith("HTTP/1.1 503 "));
  EXPECT_THAT(answer, HasSubstr("start bulkhead serve"));
}

TEST_F(Exporter, DoesNotRunAsRoot) {
  if (::geteuid() != 0) GTEST_SKIP() << "needs root to be refused as root";
  fakes::BrokerProcess exporter({.program = BULKHEAD_EXPORTER, .notify = false});
  EXPECT_EQ(exporter.wait_exit(), 1);
  EXPECT_THAT(exporter.log(), HasSubstr("must not run as root"));
}

TEST_F(Exporter, RefusesToListenForOthers) {
  fakes::BrokerProcess exporter({.program = BULKHEAD_EXPORTER,
                                 .arguments = {"--listen=0.0.0.0:9821"},
                                 .notify = false,
                                 .drop_root = true});
  EXPECT_EQ(exporter.wait_exit(), 1);
  EXPECT_THAT(exporter.log(), HasSubstr("--listen must be a loopback address"));
}

}  // namespace
}  // namespace integration
