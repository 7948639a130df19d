// broker/session/main.cpp: the process that speaks vhost-user with one VMM.
//
// May:        talk with that VMM and the broker, and pass the VMM's memory and eventfds to the
//             workers that serve its queues.
// Must never: hold a disk or a tap, map guest memory, open, connect, fork, exec.
// Trusts:     the broker. Does not trust the VMM, nor the workers that read what its guest wrote.
//
// Stages, each of which gives something up:
//   1. Jail:    the first packet says which; nothing that a VMM wrote has been read yet.
//   2. Start:   the second packet says what the device is; all state is made.
//   3. Seal:    two sockets and seven system calls are left, and no new memory.
//   4. Serve:   only now is the first byte of the VMM's read.
#include <unistd.h>

#include <memory>
#include <utility>

#include "broker/session/session.h"
#include "common/ipc/channel.h"
#include "common/ipc/jail_order.h"
#include "common/shared_region.h"
#include "common/status_page.h"
#include "policy/jail.h"
#include "policy/session.h"

namespace {

using common::FdRef;
using common::ipc::SessionExit;
using common::ipc::SessionFd;

constexpr FdRef fd_of(SessionFd fd) noexcept { return FdRef{static_cast<int>(fd)}; }

// No destructors: most of what they would do is not on the list any more.
[[noreturn]] void leave(SessionExit exit) noexcept {  // syscalls: exit_group
  ::_exit(static_cast<int>(exit));
}

constexpr policy::JailLimits kLimits{
    .file_size_bytes = 0,
    .descriptors = policy::kSessionDescriptorsMax,
    .processes = 1,
};

// The next packet, which is the broker's: nobody else holds the other end before the first two.
template <typename T>
T expect() noexcept {
  common::ipc::Packet packet;
  const auto arrival = common::ipc::receive_packet(fd_of(SessionFd::kBroker), packet, true);
  if (!arrival || *arrival == common::ipc::Arrival::kClosed) leave(SessionExit::kBrokerGone);
  const auto message = packet.as<T>();
  if (!message) leave(SessionExit::kHostFault);
  return *message;
}

SessionExit unjailed(const common::ipc::JailOrder& order) noexcept {
  const bool asked =
      order.strict == 1 || order.core_scheduling == common::CoreScheduling::kRequired;
  return asked ? SessionExit::kPosture : SessionExit::kHostFault;
}

}  // namespace

int main() noexcept {
  common::Fd page_file(static_cast<int>(SessionFd::kStatusPage));
  auto mapping = common::SharedRegion::map(page_file.ref(), 0, common::kStatusPageBytes,
                                           common::SharedRegion::Access::kReadWrite);
  if (!mapping) leave(SessionExit::kHostFault);
  page_file.reset();
  auto& page = *reinterpret_cast<common::StatusPage*>(mapping->bytes().data());

  const auto order = expect<common::ipc::JailOrder>();
  if (!policy::enter_jail(order, kLimits, page)) leave(unjailed(order));

  // A probe has no device: the broker only looks at how far the jail gets.
  std::unique_ptr<session::Session> session;
  if (order.probe != 1) {
    const auto start = expect<common::ipc::SessionStart>();
    if (!session::start_is_sound(start)) leave(SessionExit::kHostFault);
    session = std::make_unique<session::Session>(fd_of(SessionFd::kBroker), fd_of(SessionFd::kVmm),
                                                 start);
  }

  policy::seal_mappings(page);
  if (!policy::seal(order, kLimits, policy::kSessionFds, page)) leave(unjailed(order));
  if (session == nullptr) leave(SessionExit::kPeerClosed);

  const SessionExit exit = session->run();
  page.stage.store(common::Stage::kEnding, std::memory_order_release);
  leave(exit);
}
