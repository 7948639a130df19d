#include "tests/fakes/core_scheduler.h"

#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <cstddef>
#include <cstring>
#include <utility>

#include "common/ipc/channel.h"
#include "common/ipc/jail_order.h"
#include "common/sys.h"
#include "tests/fakes/failure.h"

namespace fakes {
namespace {

namespace ipc = common::ipc;

constexpr std::uint32_t kSchedCore = 62;  // PR_SCHED_CORE

// In the child, between fork and exec.
bool install_and_hand_over(int socket) {
  constexpr std::array<sock_filter, 6> kFilter{{
      {BPF_LD | BPF_W | BPF_ABS, 0, 0, offsetof(seccomp_data, nr)},
      {BPF_JMP | BPF_JEQ | BPF_K, 0, 3, SYS_prctl},
      {BPF_LD | BPF_W | BPF_ABS, 0, 0, offsetof(seccomp_data, args)},
      {BPF_JMP | BPF_JEQ | BPF_K, 0, 1, kSchedCore},
      {BPF_RET | BPF_K, 0, 0, SECCOMP_RET_USER_NOTIF},
      {BPF_RET | BPF_K, 0, 0, SECCOMP_RET_ALLOW},
  }};
  const struct {  // struct sock_fprog
    unsigned short count;
    const sock_filter* instructions;
  } program{kFilter.size(), kFilter.data()};
  const common::Fd listener(static_cast<int>(
      ::syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER, &program)));
  const common::FdRef fds[] = {listener.ref()};
  return listener.valid() &&
         ipc::send(common::FdRef{socket}, ipc::ForensicListener{}, fds).has_value();
}

bool write_cookie(pid_t to, std::uint64_t address, std::uint64_t cookie) {
  iovec ours{&cookie, sizeof(cookie)};
  iovec theirs{reinterpret_cast<void*>(address), sizeof(cookie)};
  return ::process_vm_writev(to, &ours, 1, &theirs, 1, 0) == sizeof(cookie);
}

}  // namespace

CoreScheduler::CoreScheduler() : stop_(::eventfd(0, EFD_CLOEXEC)) {
  auto pair = common::make_packet_pair();
  require(pair.has_value() && stop_.valid(), "a pair of sockets");
  ours_ = std::move(pair->first);
  // Above what BrokerProcess closes before it calls us.
  programs_ = common::Fd(::fcntl(pair->second.ref().number, F_DUPFD_CLOEXEC, 100));
  require_call(programs_.valid(), "fcntl");
}

CoreScheduler::~CoreScheduler() {
  const std::uint64_t one = 1;
  require_call(::write(stop_.ref().number, &one, sizeof(one)) == sizeof(one), "write");
  if (thread_.joinable()) thread_.join();
}

std::function<bool()> CoreScheduler::installer() {
  return [socket = programs_.ref().number] { return install_and_hand_over(socket); };
}

void CoreScheduler::serve() {
  programs_.reset();  // So that a program that could not install it is noticed.
  ipc::Packet packet;
  const auto arrival = ipc::receive_packet(ours_.ref(), packet, true);
  require(arrival && packet.as<ipc::ForensicListener>(), "the listener of a seccomp filter");
  listener_ = packet.fds.take(0);
  thread_ = std::thread([this] { answer_all(); });
}

std::uint64_t CoreScheduler::cookie_of(pid_t pid) const {
  const std::lock_guard lock(mutex_);
  const auto found = cookies_.find(pid);
  return found == cookies_.end() ? 0 : found->second;
}

int CoreScheduler::calls() const {
  const std::lock_guard lock(mutex_);
  return calls_;
}

void CoreScheduler::answer_all() {
  while (true) {
    std::array<pollfd, 2> waiting{pollfd{listener_.ref().number, POLLIN, 0},
                                  pollfd{stop_.ref().number, POLLIN, 0}};
    if (::poll(waiting.data(), waiting.size(), -1) < 0) continue;
    if (waiting[1].revents != 0 || (waiting[0].revents & POLLIN) == 0) return;
    seccomp_notif asked{};
    // ENOENT: whoever asked is dead.
    if (::ioctl(listener_.ref().number, SECCOMP_IOCTL_NOTIF_RECV, &asked) != 0) continue;
    std::array<std::uint64_t, 6> arguments{};
    std::memcpy(arguments.data(), &asked.data.args, sizeof(arguments));
    seccomp_notif_resp answered{};
    answered.id = asked.id;
    answered.error = -answer(static_cast<pid_t>(asked.pid), arguments.data());
    (void)::ioctl(listener_.ref().number, SECCOMP_IOCTL_NOTIF_SEND, &answered);
  }
}

int CoreScheduler::answer(pid_t caller, const std::uint64_t* arguments) {
  const auto command = static_cast<Command>(arguments[1]);
  const pid_t target = arguments[2] == 0 ? caller : static_cast<pid_t>(arguments[2]);
  const bool one_thread = arguments[3] == 0;
  const std::lock_guard lock(mutex_);
  ++calls_;
  const auto refused = refused_.find(command);
  if (target != caller && refused != refused_.end()) return refused->second;
  if (target != caller && ::kill(target, 0) != 0) return ESRCH;
  switch (command) {
    case Command::kGet:
      if (!one_thread || arguments[4] % 8 != 0) return EINVAL;
      return write_cookie(caller, arguments[4], cookies_[target]) ? 0 : EFAULT;
    case Command::kCreate:
      cookies_[target] = 0x1000U + static_cast<unsigned>(calls_);
      return arguments[4] == 0 ? 0 : EINVAL;
    case Command::kShareTo:
      cookies_[target] = cookies_[caller];
      return arguments[4] == 0 ? 0 : EINVAL;
    case Command::kShareFrom:
      cookies_[caller] = cookies_[target];
      return arguments[4] == 0 && one_thread ? 0 : EINVAL;
  }
  return EINVAL;
}

}  // namespace fakes
