// broker/post_mortem.h: how a process ended that an earlier broker had started. Only its new
// parent, mostly init, sees that at once, and before Linux 6.15 for ever; some take seconds to reap
// it, some never do. Its guest does not wait for that: it is served again meanwhile, and judged
// later.
#pragma once

#include <functional>
#include <memory>

#include "broker/audit_reader.h"
#include "broker/death.h"
#include "broker/event_loop.h"
#include "policy/spawn.h"

namespace broker {

class PostMortem {
 public:
  // Called once. `known` false: nobody has told in time.
  using Verdict = std::function<void(const Death&)>;

  // `body` has ended. `audit` may be null. Destroyed before the verdict, it gives none; not to be
  // destroyed in it.
  PostMortem(EventLoop& loop, AuditReader* audit, policy::Child body, Verdict verdict);
  PostMortem(const PostMortem&) = delete;
  PostMortem& operator=(const PostMortem&) = delete;

 private:
  void begin(AuditReader* audit);
  void look();
  void conclude(const Death& death);

  EventLoop& loop_;
  policy::Child body_;
  Verdict verdict_;  // Empty once it was given.
  int looks_left_;
  EventLoop::Registration timer_;
  const std::shared_ptr<int> alive_ = std::make_shared<int>();  // For answers that come late.
};

}  // namespace broker
