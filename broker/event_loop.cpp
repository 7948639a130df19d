#include "broker/event_loop.h"

#include <sys/epoll.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <limits>

namespace broker {

common::Result<std::unique_ptr<EventLoop>> EventLoop::create() {
  common::Fd epoll(::epoll_create1(EPOLL_CLOEXEC));
  if (!epoll.valid()) return common::fail_errno("epoll_create1", errno);
  return std::unique_ptr<EventLoop>(new EventLoop(std::move(epoll)));
}

void EventLoop::run() {
  stopping_ = false;
  while (!stopping_) turn(std::chrono::milliseconds(-1));
}

void EventLoop::turn(std::chrono::milliseconds limit) {
  std::array<epoll_event, 64> events;
  const int count = ::epoll_wait(epoll_.ref().number, events.data(),
                                 static_cast<int>(events.size()), timeout_ms(limit));
  for (int i = 0; i < count; ++i) {
    // By number, not by pointer: an earlier handler may have ended this one.
    const auto found = watches_.find(events[static_cast<std::size_t>(i)].data.u64);
    if (found == watches_.end()) continue;
    const std::shared_ptr<Watch> watch = found->second;
    watch->handler(events[static_cast<std::size_t>(i)].events);
  }
  run_due_timers();
  run_posted();
}

common::Result<EventLoop::Registration> EventLoop::watch(common::FdRef fd, std::uint32_t events,
                                                         Handler handler) {
  const std::uint64_t id = next_id_++;
  epoll_event event{};
  event.events = events;
  event.data.u64 = id;
  if (::epoll_ctl(epoll_.ref().number, EPOLL_CTL_ADD, fd.number, &event) != 0) {
    return common::fail_errno("epoll_ctl", errno);
  }
  watches_.emplace(id, std::make_shared<Watch>(Watch{fd.number, std::move(handler)}));
  return Registration(this, id);
}

EventLoop::Registration EventLoop::after(std::chrono::milliseconds delay, Task task) {
  const std::uint64_t id = next_id_++;
  const Clock::time_point deadline = Clock::now() + delay;
  timers_.emplace(id, Timer{deadline, std::move(task)});
  deadlines_.emplace(deadline, id);
  return Registration(this, id);
}

void EventLoop::forget(std::uint64_t id) noexcept {
  if (const auto watch = watches_.find(id); watch != watches_.end()) {
    ::epoll_ctl(epoll_.ref().number, EPOLL_CTL_DEL, watch->second->number, nullptr);
    watches_.erase(watch);
  } else if (const auto timer = timers_.find(id); timer != timers_.end()) {
    deadlines_.erase({timer->second.deadline, id});
    timers_.erase(timer);
  }
}

bool EventLoop::knows(std::uint64_t id) const noexcept {
  return watches_.contains(id) || timers_.contains(id);
}

int EventLoop::timeout_ms(std::chrono::milliseconds limit) const {
  if (!posted_.empty()) return 0;
  auto wait = limit.count() < 0 ? std::chrono::milliseconds::max() : limit;
  if (!deadlines_.empty()) {
    // Rounded up: waking early would find nothing due and spin.
    const auto left =
        std::chrono::ceil<std::chrono::milliseconds>(deadlines_.begin()->first - Clock::now());
    wait = std::min(wait, std::max(left, std::chrono::milliseconds(0)));
  }
  if (wait == std::chrono::milliseconds::max()) return -1;
  return static_cast<int>(std::min<std::int64_t>(wait.count(), std::numeric_limits<int>::max()));
}

void EventLoop::run_due_timers() {
  // Fixed now: a timer that starts another with no delay must not keep us here.
  const Clock::time_point now = Clock::now();
  while (!deadlines_.empty() && deadlines_.begin()->first <= now) {
    const std::uint64_t id = deadlines_.begin()->second;
    deadlines_.erase(deadlines_.begin());
    const auto timer = timers_.find(id);
    const Task task = std::move(timer->second.task);
    timers_.erase(timer);
    task();
  }
}

void EventLoop::run_posted() {
  const std::vector<Task> posted = std::exchange(posted_, {});
  for (const Task& task : posted) task();
}

}  // namespace broker
