// broker/audit_reader.h: which system call a process was killed for. The kernel tells it only in
// its audit log; reading that needs CAP_AUDIT_READ in the first user namespace, so this is best
// effort.
#pragma once

#include <sys/types.h>

#include <array>
#include <cstdint>
#include <deque>
#include <functional>
#include <list>
#include <memory>
#include <optional>
#include <string_view>

#include "broker/event_loop.h"
#include "common/fd.h"
#include "common/result.h"

namespace broker {

struct SeccompKill {
  pid_t pid = -1;
  int system_call = -1;
  std::uint64_t instruction = 0;  // Where the process stood; 0 where the record does not say.
  bool native = true;             // Else a number of another table: int 0x80.
  // Where somebody has looked (--forensic).
  std::optional<std::array<std::uint64_t, 6>> arguments{};
};

// From the text of an AUDIT_SECCOMP record. Nothing where it does not look like one, and where
// nobody was killed: what the broker's own list refuses is recorded too.
[[nodiscard]] std::optional<SeccompKill> parse_seccomp_record(std::string_view text);

class AuditReader {
 public:
  // The kernel filters what wakes us down to AUDIT_SECCOMP. The capability is needed only here.
  [[nodiscard]] static common::Result<std::unique_ptr<AuditReader>> open(EventLoop& loop);
  AuditReader(const AuditReader&) = delete;
  AuditReader& operator=(const AuditReader&) = delete;

  // Calls back once: with the record, or with nothing where none has come after a short grace (it
  // may come later than the death that it explains).
  using Answer = std::function<void(const std::optional<SeccompKill>& kill)>;
  void find(pid_t pid, Answer answer);

 private:
  struct Question {
    pid_t pid;
    Answer answer;
    EventLoop::Registration timer;
  };

  AuditReader(EventLoop& loop, common::Fd socket) : loop_(loop), socket_(std::move(socket)) {}
  void on_readable();
  void learn(const SeccompKill& kill);
  void give_up(std::list<Question>::iterator question);

  EventLoop& loop_;
  common::Fd socket_;
  std::deque<SeccompKill> recent_;  // The newest last; at most kRecentMax.
  std::list<Question> questions_;
  EventLoop::Registration watch_;
};

}  // namespace broker
