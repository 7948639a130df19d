#include "broker/session_peer.h"

#include <algorithm>
#include <utility>

#include "common/verify.h"
#include "common/virtio_net_wire.h"

namespace broker {
namespace {

namespace ipc = common::ipc;
using State = SessionPeer::QueueState;

constexpr std::uint8_t in(State state) { return static_cast<std::uint8_t>(state); }
template <typename... States>
constexpr std::uint8_t in(State first, States... rest) {
  return static_cast<std::uint8_t>(in(first) | in(rest...));
}

const char* state_name(State state) {
  switch (state) {
    case State::kClosed:
      return "closed";
    case State::kOpen:
      return "opening";
    case State::kServing:
      return "serving";
    case State::kClosing:
      return "closing";
    case State::kEnded:
      return "ended";
  }
  return "unknown";
}

}  // namespace

template <ipc::Message T, void (SessionPeer::*Handler)(const T&, ipc::Packet&)>
Verdict SessionPeer::handle(SessionPeer& self, ipc::Packet& packet, const Rule& rule) {
  const auto message = packet.as<T>();
  if (!message) {
    return self.hang_up(std::string(rule.name) + " of " + std::to_string(packet.size) +
                        " bytes with " + std::to_string(packet.fds.size()) + " descriptors");
  }
  if constexpr (requires { message->queue; }) {
    if (message->queue >= self.states_.size()) {
      return self.hang_up(std::string(rule.name) + " for queue " + std::to_string(message->queue) +
                          " of " + std::to_string(self.states_.size()));
    }
    const State state = self.states_[message->queue];
    if ((rule.allowed_in & in(state)) == 0) {
      return self.hang_up(std::string(rule.name) + " for queue " + std::to_string(message->queue) +
                          ", which is " + state_name(state));
    }
  }
  (self.*Handler)(*message, packet);
  return Verdict::kContinue;
}

// Kind, size and descriptors come from the message's type; only the states are written here.
// NOLINTNEXTLINE(cert-err58-cpp): it is made by the compiler.
constinit const std::array<SessionPeer::Rule, 9> SessionPeer::kRules = {{
    {ipc::OpenQueue::kKind, "OpenQueue", in(State::kClosed, State::kEnded),
     &SessionPeer::handle<ipc::OpenQueue, &SessionPeer::open>},
    {ipc::QueueServing::kKind, "QueueServing", in(State::kOpen, State::kClosing, State::kEnded),
     &SessionPeer::handle<ipc::QueueServing, &SessionPeer::serving>},
    {ipc::CloseQueue::kKind, "CloseQueue", in(State::kOpen, State::kServing, State::kEnded),
     &SessionPeer::handle<ipc::CloseQueue, &SessionPeer::close>},
    {ipc::SwapCall::kKind, "SwapCall",
     in(State::kOpen, State::kServing, State::kClosing, State::kEnded),
     &SessionPeer::handle<ipc::SwapCall, &SessionPeer::swap>},
    {ipc::MakeInflight::kKind, "MakeInflight", 0,
     &SessionPeer::handle<ipc::MakeInflight, &SessionPeer::inflight>},
    {ipc::SessionEvent::kKind, "SessionEvent", 0,
     &SessionPeer::handle<ipc::SessionEvent, &SessionPeer::event>},
    {ipc::DriverFeatures::kKind, "DriverFeatures", 0,
     &SessionPeer::handle<ipc::DriverFeatures, &SessionPeer::features>},
    {ipc::HostMtu::kKind, "HostMtu", 0, &SessionPeer::handle<ipc::HostMtu, &SessionPeer::mtu>},
    {ipc::SendRarp::kKind, "SendRarp", 0, &SessionPeer::handle<ipc::SendRarp, &SessionPeer::rarp>},
}};

// Some messages belong to what this session was not told of.
bool SessionPeer::offered(std::uint32_t kind) const noexcept {
  if (kind == ipc::SwapCall::kKind) return start_.call_swap_in_place != 0;
  if (kind == ipc::DriverFeatures::kKind) return start_.wants_features != 0;
  if (kind == ipc::HostMtu::kKind) return start_.mtu_max != 0;
  if (kind == ipc::SendRarp::kKind) return start_.protocol_features != 0;
  return true;
}

Verdict SessionPeer::on_packet(ipc::Packet& packet) {
  for (const Rule& rule : kRules) {
    if (rule.kind != packet.kind()) continue;
    if (!offered(rule.kind)) break;
    return rule.handle(*this, packet, rule);
  }
  return hang_up("a message of kind " + std::to_string(packet.kind()) + " and " +
                 std::to_string(packet.size) + " bytes");
}

void SessionPeer::queue_ended(std::uint32_t queue) {
  State& state = states_.at(queue);
  common::verify(state != State::kClosed && state != State::kEnded);
  state = state == State::kClosing ? State::kClosed : State::kEnded;
}

void SessionPeer::open(const ipc::OpenQueue& request, ipc::Packet&) {
  // Before the call: where the worker cannot be started, queue_ended() comes out of it.
  states_[request.queue] = State::kOpen;
  requests_.open_queue(request.queue);
}

void SessionPeer::serving(const ipc::QueueServing& request, ipc::Packet&) {
  State& state = states_[request.queue];
  if (state == State::kEnded) return;  // Crossed the end of the worker.
  if (state == State::kOpen) state = State::kServing;
  requests_.queue_serving(request.queue);
}

void SessionPeer::close(const ipc::CloseQueue& request, ipc::Packet&) {
  State& state = states_[request.queue];
  // QueueEnded is sent once: what crosses it is answered by it.
  if (std::exchange(state, state == State::kEnded ? State::kClosed : State::kClosing) ==
      State::kEnded) {
    return;
  }
  requests_.close_queue(request.queue);
}

void SessionPeer::swap(const ipc::SwapCall& request, ipc::Packet& packet) {
  requests_.swap_call(request.queue, packet.fds.take(0), states_[request.queue] == State::kServing);
}

void SessionPeer::features(const ipc::DriverFeatures& message, ipc::Packet&) {
  requests_.driver_features(message.features & start_.device_features);
}

void SessionPeer::mtu(const ipc::HostMtu& message, ipc::Packet&) {
  requests_.host_mtu(std::clamp(message.mtu, common::net::kMtuMin, start_.mtu_max));
}

void SessionPeer::rarp(const ipc::SendRarp& message, ipc::Packet&) {
  requests_.send_rarp(message.mac);
}

void SessionPeer::inflight(const ipc::MakeInflight& request, ipc::Packet&) {
  requests_.make_inflight(request.bytes);
}

void SessionPeer::event(const ipc::SessionEvent& event, ipc::Packet&) {
  requests_.session_event(event);
}

Verdict SessionPeer::hang_up(std::string complaint) {
  complaint_ = std::move(complaint);
  return Verdict::kHangUp;
}

}  // namespace broker
