// Requests about the device as a whole: features, status, configuration space, reset.
#include <array>
#include <cerrno>

#include "broker/session/broker_link.h"
#include "broker/session/descriptor_check.h"
#include "broker/session/requests.h"
#include "broker/session/workers.h"

namespace session {
namespace {

using common::ipc::EventCode;

void enable_all(Device& device) noexcept {
  for (Vring& ring : device.queues()) ring.enabled = true;
}

// virtio 1.2, 2.4, and vhost-user, RESET_DEVICE: rings and driver's features are gone. Kept are the
// connection (protocol features, back-end channel), the owner and the memory, which nobody sends
// again; and the writable configuration. QEMU sets the status to 0 whenever the machine is paused
// and caches the cache mode: were it reset here, a guest that chose write-through would go on with
// write-back, and lose what it believes to be on the disk.
void reset(Context& context) noexcept {
  Device& device = context.device;
  bool had_effect = device.needs_reset;
  for (std::uint32_t queue = 0; queue < device.queue_count; ++queue) {
    Vring& ring = device.rings[queue];
    had_effect = had_effect || ring.started;
    const std::uint32_t got_to =
        ring.stopped_at.value_or(ring.next_avail(device.features.packed()));
    ring.reset();
    ring.stopped_at = got_to;  // A worker that still runs knows better, when it has ended.
    ring.base_overrides_worker = context.workers.has_worker(queue);
  }
  device.features.reset();
  device.log.rings_stopped();
  device.needs_reset = false;
  // DPDK's virtio-user resets before it starts: not worth a line in the log.
  if (had_effect) context.broker.report(EventCode::kDeviceReset);
}

}  // namespace

Outcome<Answer> get_features(Context& context, Incoming& incoming) noexcept {
  return body_of(incoming, context.device.features.offered());
}

// May come while rings run, to switch dirty logging on: that must not touch the rings' states.
Outcome<Answer> set_features(Context& context, Incoming& incoming) noexcept {
  Device& device = context.device;
  const bool logged = device.features.log_all();
  TRY(device.features.acknowledge(incoming.as<std::uint64_t>()));
  const bool logs = device.features.log_all();
  if (logs != logged) context.broker.report(EventCode::kDirtyLog, logs ? 1 : 0);
  device.config.acknowledged(device.features.bits());
  // "Ring states": without bit 30, "the back-end must enable all rings immediately".
  if (!device.features.rings_start_disabled()) enable_all(device);
  for (std::uint32_t queue = 0; queue < device.queue_count; ++queue) {
    TRY(device.check_start(queue));
  }
  return Answer{};
}

Outcome<Answer> get_protocol_features(Context& context, Incoming& incoming) noexcept {
  return body_of(incoming, context.device.features.offered_protocol());
}

Outcome<Answer> set_protocol_features(Context& context, Incoming& incoming) noexcept {
  TRY(context.device.features.acknowledge_protocol(incoming.as<std::uint64_t>()));
  return Answer{};
}

// Front-ends send it late, again at every activation, or never: it tells us nothing.
Outcome<Answer> set_owner(Context&, Incoming&) noexcept { return Answer{}; }

// "It is recommended that back-ends either ignore this message, or use it to disable all rings."
Outcome<Answer> reset_owner(Context& context, Incoming& incoming) noexcept {
  context.broker.report(EventCode::kIgnoredRequest, number_of(incoming));
  return Answer{};
}

// Answered whether MQ was acknowledged or not: SPDK's initiator asks without.
Outcome<Answer> get_queue_num(Context& context, Incoming& incoming) noexcept {
  return body_of(incoming, std::uint64_t{context.device.queue_count});
}

Outcome<Answer> reset_device(Context& context, Incoming&) noexcept {
  reset(context);
  return Answer{};
}

// DRIVER_OK starts nothing: not every front-end sends it.
Outcome<Answer> set_status(Context& context, Incoming& incoming) noexcept {
  const auto status = incoming.as<std::uint64_t>();
  if (status > 0xff) return violation(EventCode::kBadStatus, number_of(incoming), status);
  if (status == 0) reset(context);
  context.device.features.set_status(static_cast<std::uint8_t>(status));
  return Answer{};
}

Outcome<Answer> get_status(Context& context, Incoming& incoming) noexcept {
  const Device& device = context.device;
  return body_of(incoming, std::uint64_t{device.features.status(device.needs_reset)});
}

// The reply repeats offset, size and flags. The request's own bytes may be left out.
Outcome<Answer> get_config(Context& context, Incoming& incoming) noexcept {
  const auto head = incoming.as<ConfigHead>();
  const std::size_t came = incoming.payload.size() - sizeof(ConfigHead);
  if (head.size == 0 || head.size > kConfigRequestMax || (came != 0 && came != head.size)) {
    return violation(EventCode::kBadConfigRange, number_of(incoming), head.offset, head.size);
  }
  const auto body = incoming.reply_room.first(sizeof(ConfigHead) + head.size);
  context.device.config.read(head.offset, body.subspan(sizeof(ConfigHead)));
  return Answer{body};
}

// `flags` tell nothing that could be relied on: 0 is a driver's write and 1 a migration's in the
// specification, but 1 is a driver's write for rust-vmm, and 2 a migration's. So bytes decide: the
// writable ones are written, others may only be repeated.
Outcome<Answer> set_config(Context& context, Incoming& incoming) noexcept {
  const auto head = incoming.as<ConfigHead>();
  const auto bytes = incoming.payload.subspan(sizeof(ConfigHead));
  if (head.size == 0 || bytes.size() != head.size) {
    return violation(EventCode::kBadConfigRange, number_of(incoming), head.offset, head.size);
  }
  if (head.flags <= 2 && context.device.config.write(head.offset, bytes)) return Answer{};
  // Front-ends pass on what a guest writes, so this is an answer and not the end of the session.
  context.broker.report(EventCode::kConfigNotWritable, number_of(incoming), head.offset, head.size);
  return Answer{.refusal_errno = EPERM, .reported = true};
}

Outcome<Answer> set_backend_req_fd(Context& context, Incoming& incoming) noexcept {
  common::Fd channel = incoming.fds.take(0);
  const auto facts = mode_of(channel.ref());
  if (!facts || !facts->is_socket()) {
    return violation(EventCode::kBadFdType, number_of(incoming), 0, facts ? facts->mode : 0);
  }
  context.device.backend_channel = std::move(channel);
  return Answer{};
}

}  // namespace session
