// broker/exit_watch.h: tells once how a process ended: a child of ours, or one that an earlier
// broker has started (keep.h).
#pragma once

#include <functional>

#include "broker/death.h"
#include "broker/event_loop.h"
#include "common/fd.h"
#include "common/result.h"

namespace broker {

class ExitWatch {
 public:
  using Ended = std::function<void(const Death&)>;

  // `child` outlives the watch.
  [[nodiscard]] common::Result<void> start(EventLoop& loop, const policy::Child& child,
                                           bool adopted, Ended ended);
  void reset() noexcept;

 private:
  void look();

  EventLoop* loop_ = nullptr;
  const policy::Child* child_ = nullptr;
  bool adopted_ = false;
  int tries_left_ = 0;
  Ended ended_;
  EventLoop::Registration watch_;
  EventLoop::Registration timer_;
};

}  // namespace broker
