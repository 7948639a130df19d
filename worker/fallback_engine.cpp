#include "worker/fallback_engine.h"

#include <fcntl.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "policy/worker_blk.h"

namespace worker {
namespace {

using common::FdRef;
using common::Result;

enum Place : std::size_t { kStop = 0, kKick = 1, kAio = 2 };

// Without a kick eventfd the ring is looked at this often.
constexpr long kUnkickedPollNs = 100'000;
// A turn that does not sleep brings what is done, and need not look for kicks: whoever does not
// sleep looks at the ring. But a guest that always has work must not keep a stop from being seen.
constexpr std::uint32_t kTurnsUnpolledMax = 32;

constexpr pollfd poll_for(FdRef fd) noexcept { return {fd.number, POLLIN, 0}; }

}  // namespace

Result<std::unique_ptr<Engine>> FallbackEngine::create(const Parts& parts) noexcept {
  std::unique_ptr<Aio> aio;
  if (parts.aio.valid()) {
    TRY_LET(aio, Aio::create(parts.aio, parts.depth));
  }
  const bool call_blocks =
      parts.call.valid() && (::fcntl(parts.call.number, F_GETFL) & O_NONBLOCK) == 0;
  return std::unique_ptr<Engine>(new FallbackEngine(parts, std::move(aio), call_blocks));
}

FallbackEngine::FallbackEngine(const Parts& parts, std::unique_ptr<Aio> aio,
                               bool call_blocks) noexcept
    : parts_(parts), aio_(std::move(aio)), call_blocks_(call_blocks) {
  polled_[kStop] = poll_for(parts.stop);
  polled_[kKick] = poll_for(parts.kick);
  polled_[kAio] = poll_for(parts.aio);
}

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
  const bool idle_at_end = stopping_ && !(aio_ && aio_->busy());  // Nothing more can come.
  const bool sleep = may_sleep && done_.empty() && !wakeup.host_fault && !idle_at_end;
  if (sleep || ++turns_unpolled_ >= kTurnsUnpolledMax) {
    turns_unpolled_ = 0;
    wait(sleep, wakeup);
    if (aio_) aio_->reap(done_);
  }
  wakeup.stop = stopping_;
  return wakeup;
}

// syscalls: ppoll
void FallbackEngine::wait(bool may_sleep, Wakeup& wakeup) noexcept {
  if (stopping_)
    polled_[kStop].fd = -1;  // It stays readable: said once, it must not wake us again.
  const bool polled_ring = polled_[kKick].fd < 0;
  const timespec timeout{0, may_sleep ? kUnkickedPollNs : 0};
  const bool forever = may_sleep && !polled_ring;
  ++system_calls_;
  if (::ppoll(polled_.data(), polled_.size(), forever ? nullptr : &timeout, nullptr) <= 0) return;

  if (polled_[kStop].revents != 0) stopping_ = true;
  if (polled_[kAio].revents != 0) drain(parts_.aio);
  if ((polled_[kKick].revents & POLLIN) != 0) {
    drain(parts_.kick);
    wakeup.kicked = true;
  } else if (polled_[kKick].revents != 0) {
    polled_[kKick].fd = -1;  // Nothing will come of it: look at the ring from time to time instead.
  }
}

// syscalls: read
void FallbackEngine::drain(FdRef eventfd) noexcept {
  std::uint64_t value = 0;
  ++system_calls_;
  // EAGAIN: somebody else has read it, which is the VMM's business.
  [[maybe_unused]] const ssize_t got = ::read(eventfd.number, &value, sizeof(value));
}

// syscalls: write
void FallbackEngine::ring_call() noexcept {
  if (!parts_.call.valid() || !call_has_room()) return;
  const std::uint64_t one = 1;
  ssize_t written = 0;
  do {
    ++system_calls_;
    written = ::write(parts_.call.number, &one, sizeof(one));
  } while (written < 0 && errno == EINTR);
  // EAGAIN: the counter is full, so the guest has not looked since; it will find this too.
}

// A front-end may have made its eventfd blocking, and filled it: that must not hold us up. The flag
// is not ours to change, since the front-end may rely on reads that wait.
// syscalls: ppoll
bool FallbackEngine::call_has_room() noexcept {
  if (!call_blocks_) return true;
  pollfd room{parts_.call.number, POLLOUT, 0};
  const timespec now{0, 0};
  ++system_calls_;
  return ::ppoll(&room, 1, &now, nullptr) == 1 && (room.revents & POLLOUT) != 0;
}

bool FallbackEngine::ready() const noexcept {
  return !done_.empty() || (aio_ && (aio_->queued() || aio_->completed()));
}

std::uint64_t FallbackEngine::system_calls() const noexcept {
  return system_calls_ + (aio_ ? aio_->system_calls() : 0);
}

}  // namespace worker
