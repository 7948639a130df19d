// broker/forensics.h: --forensic in the broker: waits for one process to do what its jail forbids,
// keeps what that was, and kills it. See policy/forensic.h.
//
// Not trusted: the process. Of what it did only numbers are kept: the system call, its arguments
// and where it stood. It is never let go on.
#pragma once

#include <memory>
#include <optional>
#include <utility>

#include "broker/audit_reader.h"
#include "broker/event_loop.h"
#include "common/fd.h"
#include "common/result.h"

namespace broker {

class Forensics {
 public:
  // `socket`: where the process hands over its listener; it may have done so, or die before.
  // `process`, its pidfd, outlives this.
  [[nodiscard]] static common::Result<std::unique_ptr<Forensics>> watch(EventLoop& loop,
                                                                        common::Fd socket,
                                                                        common::FdRef process);
  Forensics(const Forensics&) = delete;
  Forensics& operator=(const Forensics&) = delete;
  ~Forensics() = default;

  // What it was killed for.
  [[nodiscard]] const std::optional<SeccompKill>& caught() const noexcept { return caught_; }

 private:
  Forensics(EventLoop& loop, common::Fd socket, common::FdRef process)
      : loop_(loop), socket_(std::move(socket)), process_(process) {}
  void take_listener();
  void on_call();

  EventLoop& loop_;
  common::Fd socket_;
  common::Fd listener_;
  common::FdRef process_;
  std::optional<SeccompKill> caught_;
  EventLoop::Registration watch_;
};

}  // namespace broker
