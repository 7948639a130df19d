// broker/signals.h: the signals an operator sends, as events of the loop.
#pragma once

#include <cstdint>
#include <functional>

#include "broker/event_loop.h"
#include "common/fd.h"
#include "common/result.h"

namespace broker {

enum class Signal : std::uint8_t {
  kStop,     // SIGTERM, SIGINT: drain and end.
  kPosture,  // SIGUSR1: print what jails each process.
  kReload,   // SIGHUP: read the configuration again.
  kReopen,   // SIGUSR2: the audit log was moved away.
  kUpgrade,  // SIGRTMIN: replace every worker by one of the program that is there now.
  kLeave,    // SIGRTMIN+1: end, and leave what is served to the next broker.
};

// Blocks these signals in the whole process (children get an empty mask from policy::spawn) and
// ignores SIGPIPE: a reader of our log that goes away must not end the devices.
class Signals {
 public:
  using Handler = std::function<void(Signal)>;

  // To be called before any thread is started.
  [[nodiscard]] static common::Result<Signals> take_over(EventLoop& loop, Handler handler);

 private:
  Signals(common::Fd fd, EventLoop::Registration watch) noexcept
      : fd_(std::move(fd)), watch_(std::move(watch)) {}
  common::Fd fd_;
  EventLoop::Registration watch_;
};

}  // namespace broker
