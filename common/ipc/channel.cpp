#include "common/ipc/channel.h"

#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "common/verify.h"

namespace common::ipc {
namespace {

// CMSG_SPACE counts padding; one control message carries all descriptors.
constexpr std::size_t kControlBytes = CMSG_SPACE(kFdListMax * sizeof(int));

}  // namespace

Fd FdList::take(std::size_t index) noexcept {
  verify(index < count_);
  return std::move(fds_[index]);
}

FdRef FdList::at(std::size_t index) const noexcept {
  verify(index < count_);
  return fds_[index].ref();
}

void FdList::clear() noexcept {
  for (std::size_t i = 0; i < count_; ++i) fds_[i].reset();
  count_ = 0;
}

struct Receiver {
  // The kernel has installed these descriptors already: every one must end up owned.
  static void adopt(const msghdr& header, FdList& list) noexcept {
    for (cmsghdr* control = CMSG_FIRSTHDR(&header); control != nullptr;
         control = CMSG_NXTHDR(const_cast<msghdr*>(&header), control)) {
      if (control->cmsg_level != SOL_SOCKET || control->cmsg_type != SCM_RIGHTS) continue;
      const std::size_t count = (control->cmsg_len - CMSG_LEN(0)) / sizeof(int);
      for (std::size_t i = 0; i < count; ++i) {
        int number = -1;
        std::memcpy(&number, CMSG_DATA(control) + i * sizeof(int), sizeof(int));
        Fd owned(number);
        if (list.count_ < kFdListMax) list.fds_[list.count_++] = std::move(owned);
      }
    }
  }
};

Result<Received> receive(FdRef socket, std::span<std::byte> buffer, FdList& fds,
                         bool wait) noexcept {
  fds.clear();
  alignas(cmsghdr) std::array<std::byte, kControlBytes> control;
  iovec part{buffer.data(), buffer.size()};
  msghdr header{};
  header.msg_iov = &part;
  header.msg_iovlen = 1;
  header.msg_control = control.data();
  header.msg_controllen = control.size();

  ssize_t got = 0;
  do {
    got = ::recvmsg(socket.number, &header, MSG_CMSG_CLOEXEC | (wait ? 0 : MSG_DONTWAIT));
    // ECONNRESET: the other side closed and had not read all. On a packet socket that is said once,
    // and before the packets that it sent last, which would be lost with it.
  } while (got < 0 && (errno == EINTR || errno == ECONNRESET));
  if (got < 0) {
    if (errno == EAGAIN || errno == EWOULDBLOCK) return Received{Arrival::kNothing, 0};
    return fail_errno("recvmsg", errno);
  }
  Receiver::adopt(header, fds);
  // What came is left to the caller: closing a descriptor that somebody hostile chose can be slow.
  if ((header.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) != 0) {
    return Received{Arrival::kTruncated, static_cast<std::size_t>(got)};
  }
  if (got == 0 && !buffer.empty()) return Received{Arrival::kClosed, 0};
  return Received{Arrival::kData, static_cast<std::size_t>(got)};
}

Result<void> send_bytes(FdRef socket, std::span<const std::byte> bytes, std::span<const FdRef> fds,
                        bool wait) noexcept {
  verify(fds.size() <= kFdListMax);
  alignas(cmsghdr) std::array<std::byte, kControlBytes> control{};
  const std::size_t payload = fds.size() * sizeof(int);
  bool with_fds = !fds.empty();
  while (true) {
    iovec part{const_cast<std::byte*>(bytes.data()), bytes.size()};
    msghdr header{};
    header.msg_iov = &part;
    header.msg_iovlen = 1;
    if (with_fds) {
      header.msg_control = control.data();
      header.msg_controllen = CMSG_SPACE(payload);
      cmsghdr* const first = CMSG_FIRSTHDR(&header);
      first->cmsg_level = SOL_SOCKET;
      first->cmsg_type = SCM_RIGHTS;
      first->cmsg_len = CMSG_LEN(payload);
      for (std::size_t i = 0; i < fds.size(); ++i) {
        std::memcpy(CMSG_DATA(first) + i * sizeof(int), &fds[i].number, sizeof(int));
      }
    }
    const ssize_t sent =
        ::sendmsg(socket.number, &header, MSG_NOSIGNAL | (wait ? 0 : MSG_DONTWAIT));
    if (sent < 0 && errno == EINTR) continue;
    if (sent < 0) return fail_errno("sendmsg", errno);
    bytes = bytes.subspan(static_cast<std::size_t>(sent));
    if (bytes.empty()) return {};
    with_fds = false;
    wait = true;  // A message once begun is finished: half of one would garble the stream.
  }
}

std::uint32_t Packet::kind() const noexcept {
  std::uint32_t kind = 0;
  if (size >= sizeof(kind)) std::memcpy(&kind, storage.data(), sizeof(kind));
  return kind;
}

Result<Arrival> receive_packet(FdRef socket, Packet& packet, bool wait) noexcept {
  packet.size = 0;
  TRY_LET(const Received received, receive(socket, packet.storage, packet.fds, wait));
  packet.size = received.bytes;
  return received.arrival;
}

}  // namespace common::ipc
