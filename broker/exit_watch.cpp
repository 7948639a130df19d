#include "broker/exit_watch.h"

#include <sys/epoll.h>

#include <chrono>
#include <csignal>
#include <utility>

namespace broker {
namespace {

// How long the new parent of an orphan, mostly init, may take to reap it.
constexpr std::chrono::milliseconds kReapWait{2};
constexpr int kReapTries = 50;
constexpr int kReapTriesShort = 2;

}  // namespace

common::Result<void> ExitWatch::start(EventLoop& loop, Jailed& process, bool adopted,
                                      Patience patience, Ended ended) {
  loop_ = &loop;
  process_ = &process;
  adopted_ = adopted;
  tries_left_ = patience == Patience::kShort ? kReapTriesShort : kReapTries;
  ended_ = std::move(ended);
  if (process.forensic.valid()) {
    TRY_LET(forensics_,
            Forensics::watch(loop, std::move(process.forensic), process.child.pidfd.ref()));
  }
  TRY_LET(watch_,
          loop.watch(process.child.pidfd.ref(), EPOLLIN, [this](std::uint32_t) { look(); }));
  return {};
}

void ExitWatch::reset() noexcept {
  watch_.reset();
  timer_.reset();
  forensics_.reset();
}

bool ExitWatch::left_as_asked() const noexcept {
  return expected_ &&
         process_->page().stage.load(std::memory_order_relaxed) == common::Stage::kEnding;
}

void ExitWatch::look() {
  const policy::Child& child = process_->child;
  auto death = adopted_ ? death_of_adopted(child) : reap(child.pidfd.ref());
  if (!death && adopted_ && left_as_asked()) death = Death{CLD_KILLED, 0, false};
  if (!death && adopted_) {
    // It is a zombie. How it ended is told when it is none any more.
    watch_.reset();
    if (tries_left_-- > 0) {
      timer_ = loop_->after(kReapWait, [this] { look(); });
      return;
    }
    death = Death{CLD_KILLED, 0, false};
  }
  if (!death) return;
  if (forensics_ != nullptr) death->caught = forensics_->caught();
  reset();
  // A copy: the handler may destroy us.
  const Ended ended = ended_;
  ended(*death);
}

}  // namespace broker
