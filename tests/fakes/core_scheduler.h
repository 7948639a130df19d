// tests/fakes/core_scheduler.h: a kernel with core scheduling, on a host whose kernel has none.
//
// prctl(PR_SCHED_CORE) of a program and of all that it starts is answered here (seccomp's user
// notification) as prctl(2) says, from a table of cookies. One difference: a clone inherits none.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <functional>
#include <map>
#include <mutex>
#include <thread>

#include "common/fd.h"

namespace fakes {

class CoreScheduler {
 public:
  enum class Command : std::uint64_t { kGet = 0, kCreate, kShareTo, kShareFrom };

  CoreScheduler();
  ~CoreScheduler();
  CoreScheduler(const CoreScheduler&) = delete;
  CoreScheduler& operator=(const CoreScheduler&) = delete;

  // Before the program runs: this command fails so, where it is about another process.
  void refuse_about_others(Command command, int os_errno) { refused_[command] = os_errno; }

  // For BrokerProcess::Setup::before_exec.
  [[nodiscard]] std::function<bool()> installer();
  // Once the program was started: answers until this is destroyed.
  void serve();

  [[nodiscard]] std::uint64_t cookie_of(pid_t pid) const;  // 0: none.
  [[nodiscard]] int calls() const;

 private:
  void answer_all();
  [[nodiscard]] int answer(pid_t caller, const std::uint64_t* arguments);

  common::Fd ours_;
  common::Fd programs_;
  common::Fd stop_;
  common::Fd listener_;
  std::map<Command, int> refused_;
  mutable std::mutex mutex_;
  std::map<pid_t, std::uint64_t> cookies_;
  int calls_ = 0;
  std::thread thread_;
};

}  // namespace fakes
