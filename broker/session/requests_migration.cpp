// Requests that a front-end sends when its guest moves to another host.
#include <cerrno>
#include <utility>

#include "broker/session/broker_link.h"
#include "broker/session/descriptor_check.h"
#include "broker/session/requests.h"
#include "broker/session/workers.h"

namespace session {
namespace {

using common::ipc::EventCode;

// SET_DEVICE_STATE_FD: which way, and when.
enum class Direction : std::uint32_t { kSave = 0, kLoad = 1 };
constexpr std::uint32_t kPhaseStopped = 0;

}  // namespace

// Answered with the description that came, since rust-vmm's front-ends read one; QEMU takes a reply
// of any size.
Outcome<Answer> set_log_base(Context& context, Incoming& incoming) noexcept {
  if (incoming.payload.size() != sizeof(LogDescription)) {
    return violation(EventCode::kPayloadSize, number_of(incoming), incoming.payload.size(),
                     sizeof(LogDescription));
  }
  if (incoming.fds.size() != 1) {
    return violation(EventCode::kTooFewFds, number_of(incoming), incoming.fds.size(), 1);
  }
  const auto description = incoming.as<LogDescription>();
  Device& device = context.device;
  TRY(device.log.set(description, incoming.fds.take(0)));
  TRY(device.check_logs());
  return body_of(incoming, description);
}

// "May be used to inform the front-end that the log has been modified": no front-end sleeps on it,
// and a sealed worker holds no descriptor that it does not need.
Outcome<Answer> set_log_fd(Context&, Incoming& incoming) noexcept {
  if (incoming.fds.size() != 1) return Answer{};
  const auto facts = mode_of(incoming.fds.at(0));
  if (!facts || !facts->is_anonymous()) {
    return violation(EventCode::kBadFdType, number_of(incoming), 0, facts ? facts->mode : 0);
  }
  return Answer{};
}

// "Back-end state": there is none. What a disk or a card knows beside its rings is the
// configuration space, which is the front-end's to give back. So what is saved is nothing, and the
// descriptor is closed before the answer goes out: a front-end that reads finds the end, and one
// that has something for us to load, which can only be another back-end's, cannot write it.
Outcome<Answer> set_device_state_fd(Context& context, Incoming& incoming) noexcept {
  const auto transfer = incoming.as<DeviceStateTransfer>();
  if (incoming.fds.size() != 1) {
    return violation(EventCode::kTooFewFds, number_of(incoming), incoming.fds.size(), 1);
  }
  incoming.fds.take(0).reset();
  const bool known = transfer.phase == kPhaseStopped &&
                     (transfer.direction == std::to_underlying(Direction::kSave) ||
                      transfer.direction == std::to_underlying(Direction::kLoad));
  if (!known) {
    Answer no = body_of(incoming, kDeviceStateRefused);
    no.refusal_errno = EINVAL;
    return no;
  }
  context.device.state_transferred = true;
  return body_of(incoming, kDeviceStateSameFd);
}

Outcome<Answer> check_device_state(Context& context, Incoming& incoming) noexcept {
  const bool transferred = std::exchange(context.device.state_transferred, false);
  return body_of(incoming, std::uint64_t{transferred ? 0U : 1U});
}

}  // namespace session
