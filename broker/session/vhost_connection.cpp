#include "broker/session/vhost_connection.h"

#include <cerrno>

#include "broker/session/vhost_table.h"
#include "broker/session/wait.h"

namespace session {

using common::ipc::Arrival;
using common::ipc::EventCode;
using common::ipc::SessionExit;

Outcome<bool> VhostConnection::receive() noexcept {
  if (row_ == nullptr) {
    TRY_LET(const bool have_header, collect(sizeof(Header)));
    if (!have_header) return false;
    TRY(check_header());
  }
  return collect(sizeof(Header) + header().size);
}

Outcome<bool> VhostConnection::collect(std::size_t want) noexcept {
  while (have_ < want) {
    common::ipc::FdList fresh;
    const bool at_start = have_ == 0;
    const auto received = common::ipc::receive(
        socket_, std::span(buffer_).subspan(have_, want - have_), at_start ? fds_ : fresh, false);
    const std::uint64_t request = have_ >= sizeof(Header) ? header().request : 0;
    // A front-end that resets the connection has gone, like one that closes it.
    if (!received) return end_with(SessionExit::kPeerClosed);
    switch (received->arrival) {
      case Arrival::kData:
        break;
      case Arrival::kNothing:
        return false;
      case Arrival::kClosed:
        if (at_start) return end_with(SessionExit::kPeerClosed);
        return violation(EventCode::kClosedMidMessage, request, have_, want);
      case Arrival::kTruncated:
        return violation(EventCode::kFdsTruncated, request);
    }
    // "File descriptors are sent with the first byte of the header."
    if (!at_start && fresh.size() != 0) {
      return violation(EventCode::kTooManyFds, request, fresh.size(), 0);
    }
    have_ += received->bytes;
  }
  return true;
}

Outcome<void> VhostConnection::check_header() noexcept {
  const Header head = header();
  if ((head.flags & kFlagVersionMask) != kFlagVersion || (head.flags & kFlagReply) != 0) {
    return violation(EventCode::kBadVersion, head.request, head.flags);
  }
  const Row* const row = find_row(head.request);
  // New requests come behind feature bits that nobody was offered, so no honest front-end sends one
  // that we do not know; peers end the connection too.
  if (row == nullptr) return violation(EventCode::kUnknownRequest, head.request);
  if (!row->payload_bytes.has(head.size)) {
    const bool fixed = row->payload_bytes.min == row->payload_bytes.max;
    return violation(EventCode::kPayloadSize, head.request, head.size,
                     fixed ? row->payload_bytes.min : 0);
  }
  if (!row->fds.has(fds_.size())) {
    const bool too_few = fds_.size() < row->fds.min;
    return violation(too_few ? EventCode::kTooFewFds : EventCode::kTooManyFds, head.request,
                     fds_.size(), too_few ? row->fds.min : row->fds.max);
  }
  row_ = row;
  return {};
}

Incoming VhostConnection::message() noexcept {
  common::verify(row_ != nullptr);
  const auto room = std::span(buffer_).subspan(sizeof(Header));
  return {*row_, room.first(header().size), fds_, room};
}

bool VhostConnection::awaits_ack() const noexcept {
  if (have_ < sizeof(Header)) return false;
  const Row* const row = find_row(header().request);
  return row == nullptr || !row->has_own_reply();
}

void VhostConnection::finish() noexcept {
  fds_.clear();
  have_ = 0;
  row_ = nullptr;
}

Outcome<bool> VhostConnection::reply(std::span<const std::byte> body, common::FdRef file) noexcept {
  Header head = header();
  // Exactly these flags: QEMU, DPDK and SPDK compare the whole word.
  head.flags = kFlagVersion | kFlagReply;
  head.size = static_cast<std::uint32_t>(body.size());
  std::array<std::byte, sizeof(Header) + kPayloadBytesMax> bytes;
  common::verify(body.size() <= kPayloadBytesMax);
  std::memcpy(bytes.data(), &head, sizeof(head));
  if (!body.empty()) std::memcpy(bytes.data() + sizeof(head), body.data(), body.size());
  const auto sent = common::ipc::send_bytes(
      socket_, std::span<const std::byte>(bytes).first(sizeof(head) + body.size()),
      std::span(&file, file.valid() ? 1 : 0), false);
  if (sent) return true;
  if (sent.error().os_errno == EAGAIN) return false;
  // It may have hung up without waiting for its answer, which is no offence.
  const int os_errno = sent.error().os_errno;
  pollfd look{socket_.number, 0, 0};
  if (os_errno == ECONNRESET || !wait({&look, 1}, Patience::kNone) ||
      (look.revents & POLLHUP) != 0) {
    return end_with(SessionExit::kPeerClosed);
  }
  return violation(EventCode::kReplyFailed, head.request, static_cast<std::uint64_t>(os_errno));
}

Header VhostConnection::header() const noexcept {
  Header head;
  std::memcpy(&head, buffer_.data(), sizeof(head));
  return head;
}

}  // namespace session
