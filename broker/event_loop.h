// broker/event_loop.h: epoll and timers: the one place where the broker waits. One thread.
//
// A handler may do anything, including end what other handlers of the same wake-up belong to:
// events and timers of a registration that is gone are dropped, never delivered to somebody else.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <unordered_map>
#include <utility>
#include <vector>

#include "common/fd.h"
#include "common/result.h"

namespace broker {

class EventLoop {
 public:
  using Handler = std::function<void(std::uint32_t events)>;
  using Task = std::function<void()>;

  // Ends its watch or timer when it goes away. In a class, declare it after the descriptor that it
  // watches: epoll watches the open file, which may live on in a child.
  class [[nodiscard]] Registration {
   public:
    Registration() noexcept = default;
    Registration(Registration&& other) noexcept
        : loop_(std::exchange(other.loop_, nullptr)), id_(other.id_) {}
    Registration& operator=(Registration&& other) noexcept {
      Registration taken(std::move(other));
      std::swap(loop_, taken.loop_);
      std::swap(id_, taken.id_);
      return *this;
    }
    ~Registration() { reset(); }

    void reset() noexcept {
      if (loop_ != nullptr) std::exchange(loop_, nullptr)->forget(id_);
    }
    // False once the timer has run out, too.
    [[nodiscard]] bool active() const noexcept { return loop_ != nullptr && loop_->knows(id_); }

   private:
    friend class EventLoop;
    Registration(EventLoop* loop, std::uint64_t id) noexcept : loop_(loop), id_(id) {}
    EventLoop* loop_ = nullptr;
    std::uint64_t id_ = 0;
  };

  // Outlives every registration.
  [[nodiscard]] static common::Result<std::unique_ptr<EventLoop>> create();
  EventLoop(const EventLoop&) = delete;
  EventLoop& operator=(const EventLoop&) = delete;

  // `events` as in epoll_ctl(2), level-triggered; EPOLLERR and EPOLLHUP always come too.
  [[nodiscard]] common::Result<Registration> watch(common::FdRef fd, std::uint32_t events,
                                                   Handler handler);
  // Once.
  [[nodiscard]] Registration after(std::chrono::milliseconds delay, Task task);
  // When the handlers of this wake-up have returned: for ending the object whose handler runs.
  void post(Task task) { posted_.push_back(std::move(task)); }

  // Until stop().
  void run();
  void stop() noexcept { stopping_ = true; }
  // One wake-up: waits at most `limit` (negative: for ever) for something to do, and does it.
  void turn(std::chrono::milliseconds limit);

 private:
  using Clock = std::chrono::steady_clock;
  struct Watch {
    int number;
    Handler handler;
  };
  struct Timer {
    Clock::time_point deadline;
    Task task;
  };

  explicit EventLoop(common::Fd epoll) noexcept : epoll_(std::move(epoll)) {}
  void forget(std::uint64_t id) noexcept;
  [[nodiscard]] bool knows(std::uint64_t id) const noexcept;
  [[nodiscard]] int timeout_ms(std::chrono::milliseconds limit) const;
  void run_due_timers();
  void run_posted();

  common::Fd epoll_;
  std::uint64_t next_id_ = 1;
  // Shared, so that a handler that ends its own registration does not destroy itself while it runs.
  std::unordered_map<std::uint64_t, std::shared_ptr<Watch>> watches_;
  std::unordered_map<std::uint64_t, Timer> timers_;
  std::set<std::pair<Clock::time_point, std::uint64_t>> deadlines_;
  std::vector<Task> posted_;
  bool stopping_ = false;
};

}  // namespace broker
