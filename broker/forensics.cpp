#include "broker/forensics.h"

#include <linux/audit.h>
#include <linux/seccomp.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>

#include <algorithm>
#include <utility>

#include "broker/death.h"
#include "common/ipc/channel.h"
#include "common/ipc/jail_order.h"

namespace broker {

namespace ipc = common::ipc;

common::Result<std::unique_ptr<Forensics>> Forensics::watch(EventLoop& loop, common::Fd socket,
                                                            common::FdRef process) {
  std::unique_ptr<Forensics> forensics(new Forensics(loop, std::move(socket), process));
  TRY_LET(forensics->watch_,
          loop.watch(forensics->socket_.ref(), EPOLLIN,
                     [self = forensics.get()](std::uint32_t) { self->take_listener(); }));
  return forensics;
}

// Its own word, before anything hostile was looked at: but what it hands over is only ever asked
// for notices, which no other kind of descriptor has.
void Forensics::take_listener() {
  watch_.reset();
  ipc::Packet packet;
  const auto arrival = ipc::receive_packet(socket_.ref(), packet, false);
  socket_.reset();
  if (!arrival || *arrival != ipc::Arrival::kData || !packet.as<ipc::ForensicListener>()) return;
  listener_ = packet.fds.take(0);
  if (auto watch = loop_.watch(listener_.ref(), EPOLLIN, [this](std::uint32_t) { on_call(); })) {
    watch_ = *std::move(watch);
  } else {
    // Without us it would wait for ever.
    kill_child(process_);
  }
}

// The kernel counts notices, so asking for one that is gone fails and does not wait. Without one,
// the process has ended.
void Forensics::on_call() {
  seccomp_notif notice{};
  if (::ioctl(listener_.ref().number, SECCOMP_IOCTL_NOTIF_RECV, &notice) != 0) {
    watch_.reset();
    return;
  }
  kill_child(process_);
  if (caught_) return;
  SeccompKill kill;
  kill.system_call = notice.data.nr;
  kill.instruction = notice.data.instruction_pointer;
  kill.native = notice.data.arch == AUDIT_ARCH_X86_64;
  kill.arguments.emplace();
  std::copy(std::begin(notice.data.args), std::end(notice.data.args), kill.arguments->begin());
  caught_ = kill;
}

}  // namespace broker
