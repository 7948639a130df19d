// broker/control/event_ring.h: the last lines of the broker's log, numbered, for operators who
// follow it. A line that is overwritten before somebody has asked for it is lost to him, and the
// numbers tell him so.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <string>
#include <string_view>

#include "broker/control/messages.h"
#include "broker/log.h"

namespace broker::control {

class EventRing {
 public:
  static constexpr std::size_t kKept = 1024;

  void add(Level level, std::string_view subject, std::string_view text);
  // The first whose number is greater than `after`; null where there is none yet.
  [[nodiscard]] const EventReply* after(std::uint64_t after) const;

 private:
  std::deque<EventReply> events_;
  std::uint64_t last_ = 0;
};

}  // namespace broker::control
