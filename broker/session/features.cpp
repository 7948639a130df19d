#include "broker/session/features.h"

namespace session {

using common::ipc::EventCode;

Outcome<void> Features::acknowledge(std::uint64_t bits) noexcept {
  if (const std::uint64_t surplus = bits & ~offered_; surplus != 0) {
    return violation(EventCode::kBadFeatures, std::uint64_t(Request::kSetFeatures), surplus);
  }
  bits_ = bits;
  acknowledged_ = true;
  return {};
}

Outcome<void> Features::acknowledge_protocol(std::uint64_t bits) noexcept {
  // Among what this refuses is INBAND_NOTIFICATIONS, for which closing is the specified answer.
  if (const std::uint64_t surplus = bits & ~offered_protocol_; surplus != 0) {
    return violation(EventCode::kBadProtocolFeatures, std::uint64_t(Request::kSetProtocolFeatures),
                     surplus);
  }
  protocol_ = bits;
  return {};
}

void Features::set_status(std::uint8_t status) noexcept {
  status_ = static_cast<std::uint8_t>(status & ~kStatusNeedsReset);
  if (!acknowledged_) status_ = static_cast<std::uint8_t>(status_ & ~kStatusFeaturesOk);
}

std::uint8_t Features::status(bool needs_reset) const noexcept {
  return static_cast<std::uint8_t>(status_ | (needs_reset ? kStatusNeedsReset : 0));
}

void Features::reset() noexcept {
  bits_ = 0;
  acknowledged_ = false;
  status_ = 0;
}

}  // namespace session
