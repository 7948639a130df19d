#include "broker/session/session.h"

#include <array>

#include "broker/session/vhost_table.h"
#include "broker/session/wait.h"
#include "common/checked.h"
#include "common/virtio_net_wire.h"
#include "common/virtqueue_wire.h"

namespace session {
namespace {

using common::ipc::SessionExit;
using common::ipc::SessionStart;

// virtio 1.2, 2.7: the largest split ring there can be.
constexpr std::uint32_t kSplitRingMax = 32768;

}  // namespace

bool start_is_sound(const SessionStart& start) noexcept {
  const bool has_mtu = (start.protocol_features & kProtocolMtu) != 0;
  const bool mtu_is_sound =
      start.mtu_max >= common::net::kMtuMin && start.mtu_max <= common::net::kMtuMax;
  return start.queues_max >= 1 && start.queues_max <= common::kQueuesMax &&
         (start.protocol_features & ~kDeviceProtocol) == 0 && (!has_mtu || mtu_is_sound) &&
         start.queue_size_max >= 1 && start.queue_size_max <= kSplitRingMax &&
         start.config_bytes <= start.config.size() && start.writable_bytes <= kWritableBytesMax &&
         common::range_within<std::uint64_t>(start.writable_offset, start.writable_bytes,
                                             start.config.size());
}

Session::Session(common::FdRef broker, common::FdRef vmm, const SessionStart& start) noexcept
    : broker_(broker), front_end_(vmm), workers_(broker_, device_, vmm) {
  device_.features = Features(start.device_features, start.protocol_features);
  device_.config = ConfigSpace(start);
  device_.queue_count = start.queues_max;
  device_.queue_size_max = start.queue_size_max;
  device_.mtu_max = start.mtu_max;
  device_.wants_features = start.wants_features == 1;
  device_.call_swap_in_place = start.call_swap_in_place == 1;
}

SessionExit Session::run() noexcept {
  while (true) {
    const auto turned = turn();
    if (turned) continue;
    if (turned.error().exit == SessionExit::kViolation) say_no();
    broker_.report_end(turned.error());
    return turned.error().exit;
  }
}

Outcome<void> Session::turn() noexcept {
  std::array<pollfd, 2> sockets = {
      {{broker_.socket().number, POLLIN, 0}, {front_end_.socket().number, POLLIN, 0}}};
  if (!wait(sockets, Patience::kForEver)) return end_with(SessionExit::kHostFault);
  if (sockets[0].revents != 0) {
    TRY(workers_.take_broker_packet());
    TRY(workers_.settle());
  }
  if (sockets[1].revents != 0) TRY(hear_front_end());
  return {};
}

Outcome<void> Session::hear_front_end() noexcept {
  TRY_LET(const bool complete, front_end_.receive());
  if (!complete) return {};
  Incoming incoming = front_end_.message();
  Context context{device_, workers_, broker_};
  TRY_LET(const Answer answer, serve(context, incoming, ack_is_due()));
  // SET_LOG_BASE has a reply of its own where it is served, and none where it is refused.
  if (incoming.row.has_own_reply() || !answer.body.empty()) {
    TRY(reply(answer.body, answer.file));
  } else if (ack_is_due()) {
    // Asked again: the request may have been the one that negotiated acks.
    const auto status = static_cast<std::uint64_t>(answer.refusal_errno);
    TRY(reply(std::as_bytes(std::span(&status, 1))));
  }
  front_end_.finish();
  return {};
}

// A front-end that does not read its answers stops its own conversation, but not the broker's.
Outcome<void> Session::reply(std::span<const std::byte> body, common::FdRef file) noexcept {
  while (true) {
    TRY_LET(const bool sent, front_end_.reply(body, file));
    if (sent) return {};
    std::array<pollfd, 2> sockets = {
        {{broker_.socket().number, POLLIN, 0}, {front_end_.socket().number, POLLOUT, 0}}};
    if (!wait(sockets, Patience::kForEver)) return end_with(SessionExit::kHostFault);
    if (sockets[0].revents != 0) {
      TRY(workers_.take_broker_packet());
      TRY(workers_.settle());
    }
  }
}

// REPLY_ACK: only where it was negotiated and this very request asks for it.
bool Session::ack_is_due() const noexcept {
  return device_.features.has_protocol(kProtocolReplyAck) && front_end_.wants_ack();
}

// A request that breaks the protocol and asks for an ack gets its "no" before we hang up: the
// front-end's own message is then about that request and not about a broken pipe.
void Session::say_no() noexcept {
  if (!front_end_.awaits_ack() || !ack_is_due()) return;
  const std::uint64_t error = 1;
  if (!front_end_.reply(std::as_bytes(std::span(&error, 1)))) return;
}

}  // namespace session
