// broker/exit_watch.h: tells once how a process ended: a child of ours, or one that an earlier
// broker has started (keep.h). With --forensic also what one of ours was killed for.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>

#include "broker/death.h"
#include "broker/event_loop.h"
#include "broker/forensics.h"
#include "broker/jailer.h"
#include "common/result.h"

namespace broker {

class ExitWatch {
 public:
  using Ended = std::function<void(const Death&)>;

  // Of an adopted one, how long to wait until somebody tells how it ended.
  enum class Patience : std::uint8_t {
    kUntilReaped,  // For as long as an init usually takes, and longer.
    kShort,        // Where a PostMortem goes on asking.
  };
  // `process` outlives the watch, which takes its end of the listener (Jailed::forensic).
  [[nodiscard]] common::Result<void> start(EventLoop& loop, Jailed& process, bool adopted,
                                           Patience patience, Ended ended);
  // We have asked it to end. If its status page then says that it does, that is told at once, as an
  // end that nobody saw: there is nothing left to decide by how it ended.
  void expect() noexcept { expected_ = true; }
  void reset() noexcept;

 private:
  void look();
  [[nodiscard]] bool left_as_asked() const noexcept;

  EventLoop* loop_ = nullptr;
  const Jailed* process_ = nullptr;
  bool adopted_ = false;
  bool expected_ = false;
  int tries_left_ = 0;
  std::unique_ptr<Forensics> forensics_;  // Null without --forensic.
  Ended ended_;
  EventLoop::Registration watch_;
  EventLoop::Registration timer_;
};

}  // namespace broker
