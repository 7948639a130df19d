// tests/integration/operated.h: a broker with an operator's socket, and operators: the real client,
// and packets of a test's own.
#pragma once

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "broker/control/messages.h"
#include "broker/control/wire.h"
#include "common/fd.h"
#include "tests/integration/host.h"

namespace integration {

// What a command has printed, stderr included, and its exit code.
struct Ran {
  int exit_code = -1;
  std::string text;
};

class OperatedTest : public testing::Test {
 protected:
  static constexpr uid_t kNobody = 65534;

  void serve(const std::vector<Disk>& disks, std::vector<std::string> options = {}) {
    options.push_back("--control-socket=" + control());
    host_.serve_all(disks, options);
  }
  [[nodiscard]] std::string control() const { return host_.socket("control"); }
  // The command of `bulkhead`, told of this broker's socket.
  [[nodiscard]] Ran ask(std::vector<std::string> arguments, bool as_nobody = false) const;
  // Its JSON has this, once the broker has come so far.
  void expect_soon(const std::vector<std::string>& arguments, const std::string& part) const;

  Host host_{kFallback};
};

// A client of the operator's socket that sends whatever a test likes.
class RawOperator {
 public:
  explicit RawOperator(const std::string& path);
  // False once the broker has hung up. Waits where the socket is full.
  bool send(std::span<const std::byte> bytes);
  template <typename T>
  bool send_message(const T& message) {
    return send(std::as_bytes(std::span(&message, 1)));
  }
  // The next packet; empty once the broker has hung up.
  [[nodiscard]] std::vector<std::byte> receive();
  template <broker::control::Message T>
  [[nodiscard]] std::optional<T> receive_as() {
    return broker::control::as<T>(receive());
  }
  [[nodiscard]] bool hung_up();

 private:
  common::Fd socket_;
};

}  // namespace integration
