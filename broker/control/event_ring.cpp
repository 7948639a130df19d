#include "broker/control/event_ring.h"

#include <chrono>

#include "broker/control/wire.h"

namespace broker::control {

void EventRing::add(Level level, std::string_view subject, std::string_view text) {
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  EventReply event;
  event.sequence = ++last_;
  event.unix_us = static_cast<std::uint64_t>(
      std::chrono::duration_cast<std::chrono::microseconds>(now).count());
  event.level = static_cast<std::uint32_t>(level);
  put_text(event.subject, subject);
  put_text(event.text, text);
  if (events_.size() == kKept) events_.pop_front();
  events_.push_back(event);
}

const EventReply* EventRing::after(std::uint64_t after) const {
  if (after >= last_) return nullptr;
  const std::uint64_t first = events_.front().sequence;
  return &events_[after < first ? 0 : static_cast<std::size_t>(after + 1 - first)];
}

}  // namespace broker::control
