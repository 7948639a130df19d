#include "broker/signals.h"

#include <signal.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

namespace broker {
namespace {

Signal signal_of(std::uint32_t number) {
  // Not constants, so no cases.
  if (number == static_cast<std::uint32_t>(SIGRTMIN)) return Signal::kUpgrade;
  if (number == static_cast<std::uint32_t>(SIGRTMIN + 1)) return Signal::kLeave;
  switch (number) {
    case SIGUSR1:
      return Signal::kPosture;
    case SIGUSR2:
      return Signal::kReopen;
    case SIGHUP:
      return Signal::kReload;
    default:
      return Signal::kStop;
  }
}

void read_signals(common::FdRef fd, const Signals::Handler& handler) {
  signalfd_siginfo info{};
  while (::read(fd.number, &info, sizeof(info)) == static_cast<ssize_t>(sizeof(info))) {
    handler(signal_of(info.ssi_signo));
  }
}

}  // namespace

common::Result<Signals> Signals::take_over(EventLoop& loop, Handler handler) {
  sigset_t set;
  ::sigemptyset(&set);
  ::sigaddset(&set, SIGTERM);
  ::sigaddset(&set, SIGINT);
  ::sigaddset(&set, SIGUSR1);
  ::sigaddset(&set, SIGHUP);
  ::sigaddset(&set, SIGUSR2);
  ::sigaddset(&set, SIGRTMIN);
  ::sigaddset(&set, SIGRTMIN + 1);
  if (::sigprocmask(SIG_BLOCK, &set, nullptr) != 0) return common::fail_errno("sigprocmask", errno);
  ::signal(SIGPIPE, SIG_IGN);

  common::Fd fd(::signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK));
  if (!fd.valid()) return common::fail_errno("signalfd", errno);
  TRY_LET(auto watch, loop.watch(fd.ref(), EPOLLIN,
                                 [number = fd.ref(), handler = std::move(handler)](std::uint32_t) {
                                   read_signals(number, handler);
                                 }));
  return Signals(std::move(fd), std::move(watch));
}

}  // namespace broker
