// The server in a thread of its own, and clients that behave badly.
#include "broker/exporter/http.h"

#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>

#include <array>
#include <atomic>
#include <thread>
#include <vector>

#include "broker/exporter/listener.h"
#include "tests/fakes/failure.h"
#include "tests/fakes/vhost_frontend.h"

namespace broker::exporter {
namespace {

using std::chrono::milliseconds;
using ::testing::HasSubstr;
using ::testing::StartsWith;

constexpr auto kPatienceMs = static_cast<int>(milliseconds(fakes::kPatience).count());

class ClientSocket {
 public:
  explicit ClientSocket(sockaddr_in address) : fd_(::socket(AF_INET, SOCK_STREAM, 0)) {
    const auto* const raw = reinterpret_cast<const sockaddr*>(&address);
    fakes::require_call(::connect(fd_.ref().number, raw, sizeof(address)) == 0, "connect");
  }
  void send(const std::string& text) const {
    (void)::send(fd_.ref().number, text.data(), text.size(), MSG_NOSIGNAL);
  }
  // Until the server ends the connection.
  [[nodiscard]] std::string read_all() const {
    std::string all;
    std::array<char, 4096> part{};
    while (true) {
      pollfd waiting{fd_.ref().number, POLLIN, 0};
      fakes::require(::poll(&waiting, 1, kPatienceMs) == 1, "the server neither answers nor ends");
      const ssize_t got = ::recv(fd_.ref().number, part.data(), part.size(), 0);
      if (got <= 0) return all;
      all.append(part.data(), static_cast<std::size_t>(got));
    }
  }

 private:
  common::Fd fd_;
};

class Exporter : public testing::Test {
 protected:
  void serve(HttpLimits limits = {}) {
    auto listener = listen_on_loopback("127.0.0.1:0");
    fakes::require(listener.has_value(), "no listener");
    socklen_t bytes = sizeof(address_);
    ::getsockname(listener->ref().number, reinterpret_cast<sockaddr*>(&address_), &bytes);
    auto server = HttpServer::make(
        *std::move(listener),
        [this]() -> Answer<std::string> {
          ++asked_;
          if (broken_) return common::fail(std::string("the broker is away"));
          return page_;
        },
        limits);
    fakes::require(server.has_value(), "no server");
    thread_ = std::thread([this, server = *std::move(server)] {
      while (!stop_) (void)server->turn(milliseconds(20));
    });
  }
  ~Exporter() override {
    stop_ = true;
    if (thread_.joinable()) thread_.join();
  }
  [[nodiscard]] std::string ask(const std::string& request) const {
    const ClientSocket client(address_);
    client.send(request);
    return client.read_all();
  }
  [[nodiscard]] std::string get(const std::string& path) const {
    return ask("GET " + path + " HTTP/1.1\r\nHost: x\r\n\r\n");
  }

  std::string page_ = "bulkhead_up 1\n";
  std::atomic<bool> broken_ = false;
  std::atomic<int> asked_ = 0;
  sockaddr_in address_{};

 private:
  std::atomic<bool> stop_ = false;
  std::thread thread_;
};

TEST_F(Exporter, GivesThePageAsPrometheusWantsIt) {
  serve();
  const std::string answer = get("/metrics");
  EXPECT_THAT(answer, StartsWith("HTTP/1.1 200 "));
  EXPECT_THAT(answer, HasSubstr("Content-Type: text/plain; version=0.0.4; charset=utf-8\r\n"));
  EXPECT_THAT(answer, testing::EndsWith("\r\n\r\nbulkhead_up 1\n"));
}

TEST_F(Exporter, HasNothingElse) {
  serve();
  EXPECT_THAT(get("/"), StartsWith("HTTP/1.1 404 "));
  EXPECT_THAT(get("/metrics/../etc/passwd"), StartsWith("HTTP/1.1 404 "));
  const std::string post = ask("POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc");
  EXPECT_THAT(post, StartsWith("HTTP/1.1 405 "));
  EXPECT_THAT(post, HasSubstr("Allow: GET\r\n"));
  EXPECT_EQ(asked_, 0);
}

TEST_F(Exporter, SaysWhyThereIsNoPage) {
  broken_ = true;
  serve();
  const std::string answer = get("/metrics");
  EXPECT_THAT(answer, StartsWith("HTTP/1.1 503 "));
  EXPECT_THAT(answer, testing::EndsWith("the broker is away\n"));
}

TEST_F(Exporter, AsksTheBrokerOnceForAllWhoComeAtOnce) {
  serve({.fresh = std::chrono::hours(1)});
  for (int i = 0; i < 50; ++i) EXPECT_THAT(get("/metrics"), StartsWith("HTTP/1.1 200 "));
  EXPECT_EQ(asked_, 1);
}

TEST_F(Exporter, EndsAConnectionThatTakesTooLongThoughBytesCome) {
  serve({.deadline = milliseconds(100)});
  const ClientSocket slow(address_);
  slow.send("GET /metr");
  std::atomic<bool> over = false;
  std::thread drip([&] {
    while (!over) {
      slow.send("i");
      ::poll(nullptr, 0, 10);
    }
  });
  EXPECT_EQ(slow.read_all(), "");
  over = true;
  drip.join();
  EXPECT_THAT(get("/metrics"), StartsWith("HTTP/1.1 200 "));
}

TEST_F(Exporter, EndsConnectionsThatDoNotReadTheirAnswers) {
  page_.assign(32U << 20, 'x');
  serve({.deadline = milliseconds(200), .fresh = std::chrono::hours(1)});
  std::vector<ClientSocket> deaf;
  for (unsigned i = 0; i < kConnectionsMax; ++i) {
    deaf.emplace_back(address_);
    deaf.back().send("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
  }
  // All places are taken until they are cut off.
  const auto end = std::chrono::steady_clock::now() + fakes::kPatience;
  std::string answer;
  while (answer.empty() && std::chrono::steady_clock::now() < end) answer = get("/nothing");
  EXPECT_THAT(answer, StartsWith("HTTP/1.1 404 "));
}

TEST_F(Exporter, RefusesARequestWithoutAnEnd) {
  serve();
  const ClientSocket endless(address_);
  endless.send("GET /metrics HTTP/1.1\r\nHost: x\r\nX: " + std::string(kRequestBytesMax * 2, 'a'));
  const std::string answer = endless.read_all();
  EXPECT_TRUE(answer.empty() || answer.starts_with("HTTP/1.1 431 ")) << answer;
}

TEST_F(Exporter, RefusesWhatIsNoHttp) {
  serve({.deadline = milliseconds(200)});
  const std::string answer = ask("\x16\x03\x01 garbage\r\n\r\n");
  EXPECT_FALSE(answer.starts_with("HTTP/1.1 200")) << answer;
  EXPECT_THAT(get("/metrics"), StartsWith("HTTP/1.1 200 "));
}

TEST_F(Exporter, LetsOthersInOnceTooManyHaveBeenCutOff) {
  serve({.deadline = milliseconds(200)});
  std::vector<ClientSocket> idle;
  idle.reserve(kConnectionsMax * 2);
  for (unsigned i = 0; i < kConnectionsMax * 2; ++i) idle.emplace_back(address_);
  for (const ClientSocket& one : idle) EXPECT_EQ(one.read_all(), "");
  EXPECT_THAT(get("/metrics"), StartsWith("HTTP/1.1 200 "));
}

TEST(ExporterListener, IsOnLoopbackOnly) {
  for (const char* address : {"0.0.0.0:9821", "192.0.2.1:9821", "[::]:9821", "localhost:9821",
                              "127.0.0.1", "127.0.0.1:", "127.0.0.1:65536", "127.0.0.1:9 ", ""}) {
    const auto listener = listen_on_loopback(address);
    ASSERT_FALSE(listener.has_value()) << address;
    EXPECT_THAT(listener.error(), HasSubstr("127.0.0.1:9821 or [::1]:9821"));
  }
  EXPECT_TRUE(listen_on_loopback("127.0.0.9:0").has_value());
}

}  // namespace
}  // namespace broker::exporter
