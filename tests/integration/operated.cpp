#include "tests/integration/operated.h"

#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <algorithm>
#include <thread>

#include "tests/fakes/failure.h"
#include "tests/fakes/vhost_frontend.h"

namespace integration {
namespace {

constexpr int kPatienceMs = static_cast<int>(std::chrono::milliseconds(fakes::kPatience).count());

}  // namespace

Ran OperatedTest::ask(std::vector<std::string> arguments, bool as_nobody) const {
  arguments.push_back("--control-socket=" + control());
  fakes::BrokerProcess client({.program = BULKHEAD_PROGRAM,
                               .arguments = arguments,
                               .notify = false,
                               .drop_root = as_nobody});
  Ran ran;
  ran.exit_code = client.wait_exit();
  ran.text = client.log();
  return ran;
}

// What comes after the front-end has seen it: no event tells a test of it, so it asks again.
void OperatedTest::expect_soon(const std::vector<std::string>& arguments,
                               const std::string& part) const {
  const auto end = std::chrono::steady_clock::now() + fakes::kPatience;
  Ran ran;
  do {
    ran = ask(arguments);
    if (ran.text.find(part) != std::string::npos) return;
  } while (std::chrono::steady_clock::now() < end);
  ADD_FAILURE() << "no " << part << " in " << ran.text;
}

RawOperator::RawOperator(const std::string& path)
    : socket_(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0)) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::ranges::copy(path, address.sun_path);
  fakes::require_call(::connect(socket_.ref().number, reinterpret_cast<const sockaddr*>(&address),
                                sizeof(address)) == 0,
                      "connect " + path);
}

bool RawOperator::send(std::span<const std::byte> bytes) {
  return ::send(socket_.ref().number, bytes.data(), bytes.size(), MSG_NOSIGNAL) >= 0;
}

std::vector<std::byte> RawOperator::receive() {
  pollfd waiting{socket_.ref().number, POLLIN, 0};
  fakes::require(::poll(&waiting, 1, kPatienceMs) == 1, "the broker does not answer");
  std::vector<std::byte> packet(broker::control::kMessageBytesMax);
  const ssize_t got = ::recv(socket_.ref().number, packet.data(), packet.size(), 0);
  packet.resize(got > 0 ? static_cast<std::size_t>(got) : 0);
  return packet;
}

bool RawOperator::hung_up() {
  while (!receive().empty()) {
  }
  return true;
}

}  // namespace integration
