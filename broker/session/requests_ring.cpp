// Requests about one ring.
#include <cstdint>
#include <utility>

#include "broker/session/descriptor_check.h"
#include "broker/session/requests.h"
#include "broker/session/workers.h"

namespace session {
namespace {

using common::ipc::EventCode;

Outcome<Vring*> ring_at(Context& context, const Incoming& incoming, std::uint64_t index) noexcept {
  const auto rings = context.device.queues();
  if (index >= rings.size()) {
    return violation(EventCode::kBadQueueIndex, number_of(incoming), index, rings.size());
  }
  return &rings[index];
}

// SET_VRING_KICK, CALL and ERR: which ring, and its eventfd, if one comes.
struct RingEvent {
  std::uint32_t queue;
  common::Fd event;
};

Outcome<RingEvent> ring_event(Context& context, Incoming& incoming) noexcept {
  const auto word = incoming.as<std::uint64_t>();
  const std::uint64_t index = word & ~kVringNoFd;
  TRY_LET([[maybe_unused]] Vring * ring, ring_at(context, incoming, index));
  RingEvent out{static_cast<std::uint32_t>(index), {}};
  // A stray descriptor beside the flag is closed with the message.
  if ((word & kVringNoFd) != 0) return out;
  if (incoming.fds.size() != 1) {
    return violation(EventCode::kTooFewFds, number_of(incoming), incoming.fds.size(), 1);
  }
  out.event = incoming.fds.take(0);
  const auto facts = mode_of(out.event.ref());
  if (!facts || !facts->is_anonymous()) {
    return violation(EventCode::kBadFdType, number_of(incoming), index, facts ? facts->mode : 0);
  }
  return out;
}

}  // namespace

Outcome<Answer> set_vring_num(Context& context, Incoming& incoming) noexcept {
  const auto state = incoming.as<VringState>();
  TRY_LET(Vring * ring, ring_at(context, incoming, state.index));
  if (state.num > context.device.queue_size_max) {
    return violation(EventCode::kBadQueueSize, number_of(incoming), state.index, state.num);
  }
  TRY(check_size(state.index, state.num, context.device.features));
  ring->size = state.num;
  TRY(context.device.check_start(state.index));
  return Answer{};
}

// Sent again while the ring runs to switch logging on or off; then the addresses are the same.
Outcome<Answer> set_vring_addr(Context& context, Incoming& incoming) noexcept {
  const auto addr = incoming.as<VringAddr>();
  TRY_LET(Vring * ring, ring_at(context, incoming, addr.index));
  const Device& device = context.device;
  // Every front-end shares memory first. One that does not is looked at when the ring starts.
  if (!device.memory.empty() && !ring->waits_for_memory) {
    // Of which kind the ring is, and so how large its parts are, may not be known yet.
    const bool known = device.features.may_be_packed() == device.features.packed();
    const std::uint32_t size = known ? ring->size : 0;
    const auto places =
        locate(addr.index, addr, size, device.features.driver_bits(), device.memory);
    if (!places) return common::fail(places.error());
  }
  ring->addresses = addr;
  ring->waits_for_memory = ring->waits_for_memory && !device.locate(addr.index);
  TRY(context.device.check_start(addr.index));
  return Answer{};
}

Outcome<Answer> set_vring_base(Context& context, Incoming& incoming) noexcept {
  const auto state = incoming.as<VringState>();
  TRY_LET(Vring * ring, ring_at(context, incoming, state.index));
  ring->base = state.num;
  TRY(check_base(state.index, *ring, context.device.features));
  ring->stopped_at.reset();
  // libkrun resets a ring this way without stopping it: start over from the new base.
  if (context.workers.has_worker(state.index)) {
    ring->base_overrides_worker = true;
    ++ring->generation;
  } else if (ring->unfinished) {
    ring->unfinished = false;
    ring->forgets_inflight = true;
  }
  return Answer{};
}

// Answered only when all that the worker has taken is done: "must complete all in-flight I/O".
Outcome<Answer> get_vring_base(Context& context, Incoming& incoming) noexcept {
  const auto state = incoming.as<VringState>();
  TRY_LET(Vring * ring, ring_at(context, incoming, state.index));
  // Its eventfds are still needed where a worker has died and another one finishes its requests.
  ring->started = false;
  TRY(context.workers.settle());
  ring->stop();
  if (context.device.is_suspended()) context.device.log.rings_stopped();
  const std::uint32_t next = ring->next_avail(context.device.features.packed());
  return body_of(incoming, VringState{state.index, ring->stopped_at.value_or(next)});
}

// Starts the ring: the kick itself may have been consumed before, by whoever served it last, so
// nobody waits for one.
Outcome<Answer> set_vring_kick(Context& context, Incoming& incoming) noexcept {
  TRY_LET(RingEvent came, ring_event(context, incoming));
  Vring& ring = context.device.rings[came.queue];
  ring.kick = std::move(came.event);
  ring.started = true;
  ring.stopped_at.reset();
  ring.broken = false;
  ++ring.generation;
  TRY(context.device.check_start(came.queue));
  return Answer{};
}

// QEMU changes it whenever the guest masks or unmasks a vector, and waits for the ack: the worker
// must have switched by then.
Outcome<Answer> set_vring_call(Context& context, Incoming& incoming) noexcept {
  TRY_LET(RingEvent came, ring_event(context, incoming));
  Vring& ring = context.device.rings[came.queue];
  const bool changes = ring.call.valid() || came.event.valid();
  ring.call = std::move(came.event);
  if (changes) TRY(context.workers.call_changed(came.queue));
  return Answer{};
}

Outcome<Answer> set_vring_err(Context& context, Incoming& incoming) noexcept {
  TRY_LET(RingEvent came, ring_event(context, incoming));
  context.device.rings[came.queue].error = std::move(came.event);
  return Answer{};
}

// Legal before anything else about the ring is known.
Outcome<Answer> set_vring_enable(Context& context, Incoming& incoming) noexcept {
  const auto state = incoming.as<VringState>();
  TRY_LET(Vring * ring, ring_at(context, incoming, state.index));
  ring->enabled = state.num != 0;
  TRY(context.device.check_start(state.index));
  return Answer{};
}

}  // namespace session
