#include "tests/fakes/doorbell.h"

#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "tests/fakes/failure.h"

namespace fakes {
namespace {

// The count of an eventfd, 0 where it was not rung.
std::uint64_t drain(common::FdRef fd) {
  std::uint64_t count = 0;
  return ::read(fd.number, &count, sizeof(count)) == sizeof(count) ? count : 0;
}

}  // namespace

Doorbell::Doorbell() : epoll_(::epoll_create1(EPOLL_CLOEXEC)) {
  require_call(epoll_.valid(), "epoll_create1");
  replace();
}

common::FdRef Doorbell::replace() {
  common::Fd fresh(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  require_call(fresh.valid(), "eventfd");
  epoll_event interest{.events = EPOLLIN, .data = {.u64 = 0}};
  require_call(::epoll_ctl(epoll_.ref().number, EPOLL_CTL_ADD, fresh.ref().number, &interest) == 0,
               "epoll_ctl");
  const std::lock_guard lock(mutex_);
  fds_.push_back(std::move(fresh));
  return fds_.back().ref();
}

common::FdRef Doorbell::current() const {
  const std::lock_guard lock(mutex_);
  return fds_.back().ref();
}

void Doorbell::drop_old() {
  const std::lock_guard lock(mutex_);
  std::uint64_t late = 0;
  while (fds_.size() > 1) {
    late += drain(fds_.front().ref());
    // The back-end may hold the same file: closing our number does not end epoll's interest in it.
    ::epoll_ctl(epoll_.ref().number, EPOLL_CTL_DEL, fds_.front().ref().number, nullptr);
    fds_.erase(fds_.begin());
  }
  if (late == 0) return;
  const std::uint64_t one = 1;
  require_call(::write(fds_.back().ref().number, &one, sizeof(one)) == sizeof(one), "pass on");
}

bool Doorbell::wait(int timeout_ms) {
  epoll_event event{};
  int ready = 0;
  do {
    ready = ::epoll_wait(epoll_.ref().number, &event, 1, timeout_ms);
  } while (ready < 0 && errno == EINTR);
  if (ready == 0) return false;
  const std::lock_guard lock(mutex_);
  for (const common::Fd& fd : fds_) {
    if (drain(fd.ref()) != 0) ++rings_;
  }
  return true;
}

}  // namespace fakes
