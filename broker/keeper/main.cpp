// broker/keeper/main.cpp: the process that holds on to what a broker that dies would lose.
//
// May:        hold descriptors and records for brokers of its own user, and hand out copies; tell
//             workers to stop whose session has ended while no broker was there.
// Must never: read or write a disk, a tap or a VMM's socket, open, connect, fork, exec.
// Trusts:     brokers, and whoever may open its socket (its own user).
//
// Stages: 1. jail: the first packet says which. 2. start: the second one says whom to let in.
// 3. seal. 4. keep.
#include <unistd.h>

#include <csignal>
#include <memory>
#include <new>
#include <utility>

#include "broker/keeper/keeper.h"
#include "common/ipc/channel.h"
#include "common/ipc/jail_order.h"
#include "common/ipc/keeper_messages.h"
#include "common/shared_region.h"
#include "common/status_page.h"
#include "policy/jail.h"
#include "policy/keeper.h"

namespace {

using common::FdRef;
using common::ipc::KeeperFd;

constexpr FdRef fd_of(KeeperFd fd) noexcept { return FdRef{static_cast<int>(fd)}; }

constexpr int kNothingKept = 0;
constexpr int kFault = 13;

// No destructors: the kernel lets go of everything at once.
[[noreturn]] void leave(int code) noexcept {  // syscalls: exit_group
  ::_exit(code);
}

constexpr policy::JailLimits kLimits{
    .file_size_bytes = 0,
    .descriptors = policy::kKeeperDescriptorsMax,
    .processes = 1,
};

template <typename T>
T expect() noexcept {
  common::ipc::Packet packet;
  const auto arrival = common::ipc::receive_packet(fd_of(KeeperFd::kBroker), packet, true);
  if (!arrival || *arrival == common::ipc::Arrival::kClosed) leave(kNothingKept);
  const auto message = packet.as<T>();
  if (!message) leave(kFault);
  return *message;
}

}  // namespace

int main() noexcept {
  common::Fd page_file(static_cast<int>(KeeperFd::kStatusPage));
  auto mapping = common::SharedRegion::map(page_file.ref(), 0, common::kStatusPageBytes,
                                           common::SharedRegion::Access::kReadWrite);
  if (!mapping) leave(kFault);
  page_file.reset();
  auto& page = *reinterpret_cast<common::StatusPage*>(mapping->bytes().data());

  // A worker that is told to stop may be gone.
  if (::signal(SIGPIPE, SIG_IGN) == SIG_ERR) leave(kFault);
  const auto order = expect<common::ipc::JailOrder>();
  if (!policy::enter_jail(order, kLimits, page)) leave(kFault);
  const auto start = expect<common::ipc::KeeperStart>();
  // On the heap, untouched until something is kept: some 10 MB for the most that there can be.
  auto keeper = std::unique_ptr<keeper::Keeper>(new (std::nothrow) keeper::Keeper(
      fd_of(KeeperFd::kDoor), common::Fd(fd_of(KeeperFd::kBroker).number), {start.uid}));
  if (keeper == nullptr) leave(kFault);

  policy::seal_mappings(page);
  if (!policy::seal(order, kLimits, policy::kKeeperFds, page)) leave(kFault);
  keeper->run();
  leave(kNothingKept);
}
