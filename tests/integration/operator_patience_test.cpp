// tests/integration/operator_patience_test.cpp: a broker that is stopped or hangs: each of its
// clients says so, and ends; and the broker goes on as if nothing had been.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <utility>

#include "tests/fakes/failure.h"
#include "tests/fakes/vhost_frontend.h"
#include "tests/integration/operated.h"

namespace integration {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
namespace control = broker::control;

// A command of `bulkhead`, not awaited.
class Command {
 public:
  Command(std::vector<std::string> arguments, const std::string& socket) {
    arguments.push_back("--control-socket=" + socket);
    process_ = std::make_unique<fakes::BrokerProcess>(fakes::BrokerProcess::Setup{
        .program = BULKHEAD_PROGRAM, .arguments = std::move(arguments), .notify = false});
  }
  [[nodiscard]] fakes::BrokerProcess& operator*() { return *process_; }
  [[nodiscard]] fakes::BrokerProcess* operator->() { return process_.get(); }

 private:
  std::unique_ptr<fakes::BrokerProcess> process_;
};

class OperatorPatience : public OperatedTest {
 protected:
  // Returns when it has stopped.
  void stop_broker() {
    host_.broker().signal(SIGSTOP);
    siginfo_t info{};
    fakes::require_call(
        ::waitid(P_PID, static_cast<id_t>(host_.broker().pid()), &info, WSTOPPED) == 0,
        "wait for the broker to stop");
  }
};

TEST_F(OperatorPatience, EachCommandSaysThatTheBrokerIsStopped) {
  serve({{.name = "vda"}, {.name = "vdb"}});
  const auto vda = host_.connect();
  make_image(host_.image("new"), 4 << 20);
  stop_broker();
  struct Case {
    std::vector<std::string> arguments;
    std::string waited = "1 s";
  };
  // What a device's end may take belongs to it: 2 s by force, else 30.
  const std::vector<Case> cases = {
      {{"status"}},
      {{"list"}},
      {{"add", "blk", "--name=new", "--socket-path=" + host_.socket("new"),
        "--blk-file=" + host_.image("new")}},
      {{"remove", "none", "--force"}, "3 s"},
      {{"stop", "vdb", "--force"}, "3 s"},
      {{"drain", "none"}},
      {{"start", "none"}},
      {{"resize", "vda"}},
      {{"snippet", "vda", "--for=qemu"}},
      {{"limit"}},
      {{"metrics"}},
      {{"events"}},
      {{"top"}},
      {{"posture"}},
  };
  std::vector<Command> commands;
  for (const Case& one : cases) {
    std::vector<std::string> arguments = one.arguments;
    arguments.emplace_back("--timeout-s=1");
    commands.emplace_back(arguments, control());
  }
  const std::string pid = "pid " + std::to_string(host_.broker().pid());
  for (std::size_t i = 0; i < cases.size(); ++i) {
    EXPECT_EQ(commands[i]->wait_exit(), 1);
    EXPECT_THAT(commands[i]->log(),
                AllOf(HasSubstr(pid), HasSubstr("has not answered for " + cases[i].waited),
                      HasSubstr("See systemctl status bulkhead")))
        << cases[i].arguments.front();
  }
  expect_serves(vda->queue());  // Needs no broker.

  host_.broker().signal(SIGCONT);
  EXPECT_EQ(ask({"status"}).exit_code, 0);
  // What was asked for is done, though nobody waits for it any more.
  expect_soon({"list", "vdb", "--json"}, R"("state":"stopped")");
  expect_serves(vda->queue(), 512);
}

// What a test says in a broker's place.
class SilentBroker {
 public:
  explicit SilentBroker(const std::string& path)
      : listener_(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0)) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::ranges::copy(path, address.sun_path);
    const auto* const raw = reinterpret_cast<const sockaddr*>(&address);
    fakes::require_call(::bind(listener_.ref().number, raw, sizeof(address)) == 0 &&
                            ::listen(listener_.ref().number, 8) == 0,
                        "listen");
  }
  void accept() {
    wait(listener_.ref());
    client_ = common::Fd(::accept4(listener_.ref().number, nullptr, nullptr, SOCK_CLOEXEC));
    fakes::require_call(client_.valid(), "accept");
  }
  [[nodiscard]] control::AskEvent asked() {
    wait(client_.ref());
    control::AskEvent ask;
    fakes::require(::recv(client_.ref().number, &ask, sizeof(ask), 0) == sizeof(ask) &&
                       ask.kind == control::AskEvent::kKind,
                   "no AskEvent");
    return ask;
  }
  template <control::Message T>
  void answer(const T& message) {
    fakes::require_call(
        ::send(client_.ref().number, &message, sizeof(message), MSG_NOSIGNAL) == sizeof(message),
        "answer");
  }

 private:
  static void wait(common::FdRef fd) {
    pollfd waiting{fd.number, POLLIN, 0};
    const auto patience = std::chrono::milliseconds(fakes::kPatience).count();
    fakes::require(::poll(&waiting, 1, static_cast<int>(patience)) == 1, "nobody asks");
  }
  common::Fd listener_;
  common::Fd client_;
};

TEST_F(OperatorPatience, EventsWaitForEverOnceTheBrokerHasAnsweredAndNotBefore) {
  SilentBroker silent(control());
  Command events({"events", "--timeout-s=1"}, control());
  silent.accept();
  EXPECT_EQ(silent.asked().wait, 0U);
  control::Told nothing;
  nothing.outcome = static_cast<std::uint32_t>(control::Outcome::kNotFound);
  silent.answer(nothing);
  EXPECT_EQ(silent.asked().wait, 1U);
  // By then it has waited longer than it would for an answer.
  Command other({"status", "--timeout-s=2"}, control());
  EXPECT_EQ(other->wait_exit(), 1);
  EXPECT_TRUE(events->running());
  control::EventReply event;
  event.sequence = 1;
  control::put_text(event.text, "something has happened");
  silent.answer(event);
  EXPECT_EQ(silent.asked().after, 1U);
  EXPECT_EQ(events->wait_exit(), 1);
  EXPECT_THAT(events->log(),
              AllOf(HasSubstr("something has happened"), HasSubstr("has not answered for 1 s")));
}

}  // namespace
}  // namespace integration
