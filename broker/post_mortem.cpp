#include "broker/post_mortem.h"

#include <chrono>
#include <csignal>
#include <utility>

namespace broker {
namespace {

constexpr std::chrono::milliseconds kLookAgain{100};
constexpr int kLooks = 100;

}  // namespace

PostMortem::PostMortem(EventLoop& loop, AuditReader* audit, policy::Child body, Verdict verdict)
    : loop_(loop), body_(std::move(body)), verdict_(std::move(verdict)), looks_left_(kLooks) {
  timer_ = loop_.after(std::chrono::milliseconds(0), [this, audit] { begin(audit); });
}

// The audit record may be there already, and would be a verdict before our owner has us.
void PostMortem::begin(AuditReader* audit) {
  timer_ = loop_.after(kLookAgain, [this] { look(); });
  if (audit == nullptr) return;
  audit->find(body_.pid, [this, alive = std::weak_ptr(alive_)](const auto& kill) {
    if (kill && !alive.expired()) conclude(Death{CLD_KILLED, SIGSYS});
  });
}

void PostMortem::look() {
  const auto death = death_of_adopted(body_);
  if (death) return conclude(*death);
  if (--looks_left_ == 0) return conclude(Death{CLD_KILLED, 0, false});
  timer_ = loop_.after(kLookAgain, [this] { look(); });
}

void PostMortem::conclude(const Death& death) {
  timer_.reset();
  if (const Verdict verdict = std::exchange(verdict_, nullptr)) verdict(death);
}

}  // namespace broker
