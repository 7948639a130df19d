// tests/fakes/broker_process.h: runs the real program as its user does: arguments, environment,
// inherited descriptors in; log lines, signals and the exit code out.
#pragma once

#include <sys/types.h>

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "common/fd.h"
#include "tests/fakes/refused_calls.h"
#include "tests/fakes/temp_dir.h"

namespace fakes {

class BrokerProcess {
 public:
  struct Setup {
    std::string program = {};
    std::string called_as = {};  // argv[0]; empty: `program`.
    std::vector<std::string> arguments = {};
    std::vector<std::string> environment = {};  // "NAME=value", beside the test's own.
    std::vector<common::FdRef> inherit = {};    // Numbered 3, 4, … there.
    bool notify = true;      // NOTIFY_SOCKET is set and READY=1 awaited by wait_ready().
    bool drop_root = false;  // Runs as nobody.
    // Where not 0: what its user may lock (RLIMIT_MEMLOCK), rings of io_uring included.
    std::uint64_t locked_bytes_max = 0;
    std::vector<RefusedCall> refused = {};  // By the host that it thinks it runs on.
    // The last thing before exec, in the child: system calls only. False: it is not to run.
    std::function<bool()> before_exec = {};
  };

  explicit BrokerProcess(const Setup& setup);
  BrokerProcess(const BrokerProcess&) = delete;
  BrokerProcess& operator=(const BrokerProcess&) = delete;
  // Kills it and its children, if they still run.
  ~BrokerProcess();

  [[nodiscard]] pid_t pid() const noexcept { return pid_; }
  // Waits for READY=1. Fails with the log where the program ends instead.
  void wait_ready();
  // Everything it has printed on stderr, and on stdout, so far.
  [[nodiscard]] std::string log() const;
  // Waits for a line that contains all of `parts`, counted from the start; returns the line, or an
  // empty string after the fakes' patience.
  [[nodiscard]] std::string wait_for_line(const std::vector<std::string>& parts) const;
  // How many lines contain `part` now.
  [[nodiscard]] int count_lines(const std::string& part) const;

  void signal(int number) const;
  // Waits for the end: the exit code, or 128 + the signal. Fails after the fakes' patience.
  [[nodiscard]] int wait_exit();
  [[nodiscard]] bool running() const;

  // Its children whose command line has `part` ("session", "worker").
  [[nodiscard]] std::vector<pid_t> children_named(const std::string& part) const;

 private:
  void start(const Setup& setup, common::FdRef output);
  void read_lines(common::Fd output);

  pid_t pid_ = -1;
  common::Fd pidfd_;
  TempDir notify_dir_ = TempDir::for_sockets();
  common::Fd notify_;
  int exit_code_ = -1;
  mutable std::mutex mutex_;
  mutable std::condition_variable grew_;
  std::vector<std::string> lines_;
  bool closed_ = false;
  std::thread reader_;
};

}  // namespace fakes
