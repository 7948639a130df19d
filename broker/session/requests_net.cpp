// Requests that only network cards have.
#include <algorithm>
#include <cerrno>

#include "broker/session/broker_link.h"
#include "broker/session/requests.h"
#include "broker/session/workers.h"
#include "common/virtio_net_wire.h"

namespace session {

// After a migration, for a guest that does not announce itself. The first six bytes of the payload
// are its MAC address; who has the tap does the rest.
Outcome<Answer> send_rarp(Context& context, Incoming& incoming) noexcept {
  const auto payload = incoming.payload;
  common::ipc::SendRarp message{};
  message.kind = common::ipc::SendRarp::kKind;
  std::memcpy(message.mac.data(), payload.data(), message.mac.size());
  // A source address is never a group's.
  if ((message.mac[0] & 1) != 0) return Answer{.refusal_errno = EINVAL};
  TRY(context.broker.send(message));
  return Answer{};
}

// "The back-end should validate that it can support": what the guest has been promised.
Outcome<Answer> net_set_mtu(Context& context, Incoming& incoming) noexcept {
  const auto mtu = incoming.as<std::uint64_t>();
  if (mtu < common::net::kMtuMin || mtu > context.device.mtu_max)
    return Answer{.refusal_errno = EINVAL};
  common::ipc::HostMtu message{};
  message.kind = common::ipc::HostMtu::kKind;
  message.mtu = static_cast<std::uint32_t>(mtu);
  context.device.host_mtu = message.mtu;
  TRY(context.broker.send(message));
  return Answer{};
}

}  // namespace session
