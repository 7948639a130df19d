#include "broker/session/broker_link.h"

#include "common/verify.h"

namespace session {

using common::ipc::Arrival;
using common::ipc::EventCode;
using common::ipc::SessionExit;

Outcome<bool> BrokerLink::receive(common::ipc::Packet& packet) noexcept {
  const auto arrival = common::ipc::receive_packet(socket_, packet, false);
  if (!arrival) return end_with(SessionExit::kBrokerGone);
  switch (*arrival) {
    case Arrival::kData:
      return true;
    case Arrival::kNothing:
      return false;
    case Arrival::kClosed:
      return end_with(SessionExit::kBrokerGone);
    case Arrival::kTruncated:
      break;
  }
  return end_with(SessionExit::kHostFault);
}

void BrokerLink::report(EventCode code, std::uint64_t first, std::uint64_t second,
                        std::uint64_t third) noexcept {
  const std::size_t kind = kind_of(code);
  if (reported_[kind] == kEventsOfOneKindMax) {
    ++dropped_;
    return;
  }
  ++reported_[kind];
  send_event(code, {first, second, third});
}

std::size_t BrokerLink::kind_of(EventCode code) noexcept {
  if (code == EventCode::kConfigNotWritable) return kKinds - 1;
  const auto kind =
      static_cast<std::size_t>(code) - static_cast<std::size_t>(EventCode::kConnected);
  common::verify(kind < kKinds - 1);
  return kind;
}

void BrokerLink::report_end(const End& end) noexcept {
  if (dropped_ != 0) send_event(EventCode::kEventsDropped, {dropped_, 0, 0});
  if (end.code != EventCode::kNone) send_event(end.code, end.numbers);
}

void BrokerLink::send_event(EventCode code, const std::array<std::uint64_t, 3>& numbers) noexcept {
  common::ipc::SessionEvent event{};
  event.kind = common::ipc::SessionEvent::kKind;
  event.code = static_cast<std::uint32_t>(code);
  event.numbers = numbers;
  // A broker that is gone shows in the next receive().
  if (!common::ipc::send(socket_, event)) return;
}

}  // namespace session
