#include "worker/fallback_engine.h"

#include <fcntl.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "policy/worker_blk.h"

namespace worker {
namespace {

using common::Result;

// A turn that does not sleep brings what is done, and need not look for kicks: whoever does not
// sleep looks at the ring. But a guest that always has work must not keep a stop from being seen.
constexpr std::uint32_t kTurnsUnpolledMax = 32;

}  // namespace

Result<std::unique_ptr<Engine>> FallbackEngine::create(const Parts& parts) noexcept {
  std::unique_ptr<Aio> aio;
  if (parts.aio.valid()) {
    TRY_LET(aio, Aio::create(parts.aio, parts.depth));
  }
  return std::unique_ptr<Engine>(new FallbackEngine(parts, std::move(aio)));
}

FallbackEngine::FallbackEngine(const Parts& parts, std::unique_ptr<Aio> aio) noexcept
    : parts_(parts), aio_(std::move(aio)), events_(parts.events, {parts.aio.number, POLLIN, 0}) {}

void FallbackEngine::start(const IoRequest& request) noexcept {
  const bool data_or_sync = request.kind == IoRequest::Kind::kRead ||
                            request.kind == IoRequest::Kind::kWrite ||
                            request.kind == IoRequest::Kind::kSync;
  if (aio_ && data_or_sync) {
    aio_->queue(request, request.buffered ? parts_.device_buffered : parts_.device);
    return;
  }
  std::int32_t result = 0;
  do {
    result = perform(request);
  } while (result == -EINTR);
  done_.push(request.tag, result);
}

// syscalls: preadv2, pwritev2, fdatasync, fallocate
std::int32_t FallbackEngine::perform(const IoRequest& request) noexcept {
  ++system_calls_;
  const int disk = parts_.device.number;
  const int count = static_cast<int>(request.segments.size());
  const auto offset = static_cast<off_t>(request.offset);
  const auto length = static_cast<off_t>(request.length);
  ssize_t result = 0;
  switch (request.kind) {
    case IoRequest::Kind::kRead:
      result = ::preadv2(disk, request.segments.data(), count, offset, 0);
      break;
    case IoRequest::Kind::kWrite:
      result =
          ::pwritev2(disk, request.segments.data(), count, offset, request.durable ? RWF_DSYNC : 0);
      break;
    case IoRequest::Kind::kSync:
      result = ::fdatasync(disk);
      break;
    case IoRequest::Kind::kPunchHole:
      result = ::fallocate(disk, static_cast<int>(policy::kPunchHole), offset, length);
      break;
    case IoRequest::Kind::kZeroRange:
      result = ::fallocate(disk, static_cast<int>(policy::kZeroRange), offset, length);
      break;
  }
  return result < 0 ? -errno : static_cast<std::int32_t>(result);
}

Wakeup FallbackEngine::turn(bool may_sleep) noexcept {
  Wakeup wakeup;
  if (aio_) {
    aio_->reap(done_);
    wakeup.host_fault = !aio_->submit(done_);
    aio_->reap(done_);  // What was in the page cache, or refused, is complete already.
  }
  const bool idle_at_end = events_.stopping() && !(aio_ && aio_->busy());  // Nothing more can come.
  const bool sleep = may_sleep && done_.empty() && !wakeup.host_fault && !idle_at_end;
  if (sleep || ++turns_unpolled_ >= kTurnsUnpolledMax) {
    turns_unpolled_ = 0;
    wait(sleep, wakeup);
    if (aio_) aio_->reap(done_);
  }
  wakeup.stop = events_.stopping();
  return wakeup;
}

void FallbackEngine::wait(bool may_sleep, Wakeup& wakeup) noexcept {
  if (!events_.poll(may_sleep, sleep_us_max())) return;
  const Eventfds::News news = events_.take_news();
  if (news.device_ready) events_.drain(parts_.aio);
  wakeup.kicked = news.kicked;
}

bool FallbackEngine::ready() const noexcept {
  return !done_.empty() || (aio_ && (aio_->queued() || aio_->completed()));
}

std::uint64_t FallbackEngine::system_calls() const noexcept {
  return system_calls_ + events_.system_calls() + (aio_ ? aio_->system_calls() : 0);
}

}  // namespace worker
