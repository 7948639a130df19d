#include "broker/event_loop.h"

#include <gtest/gtest.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <vector>

#include "common/sys.h"

namespace broker {
namespace {

using std::chrono::milliseconds;

class EventLoopTest : public testing::Test {
 protected:
  static void signal(common::FdRef fd) { ASSERT_EQ(::eventfd_write(fd.number, 1), 0); }

  std::unique_ptr<EventLoop> loop_ = *EventLoop::create();
  common::Fd first_ = *common::make_eventfd();
  common::Fd second_ = *common::make_eventfd();
  std::vector<int> seen_;
};

TEST_F(EventLoopTest, CallsTheHandlerOfWhatIsReadable) {
  const auto one = loop_->watch(first_.ref(), EPOLLIN, [&](std::uint32_t) { seen_.push_back(1); });
  const auto two = loop_->watch(second_.ref(), EPOLLIN, [&](std::uint32_t) { seen_.push_back(2); });
  signal(second_.ref());
  loop_->turn(milliseconds(0));
  EXPECT_EQ(seen_, std::vector<int>{2});
}

TEST_F(EventLoopTest, DropsEventsOfARegistrationThatAnotherHandlerEnded) {
  EventLoop::Registration one;
  EventLoop::Registration two;
  one = *loop_->watch(first_.ref(), EPOLLIN, [&](std::uint32_t) {
    seen_.push_back(1);
    two.reset();
  });
  two = *loop_->watch(second_.ref(), EPOLLIN, [&](std::uint32_t) {
    seen_.push_back(2);
    one.reset();
  });
  signal(first_.ref());
  signal(second_.ref());
  loop_->turn(milliseconds(0));
  EXPECT_EQ(seen_.size(), 1U);
}

TEST_F(EventLoopTest, HandlerMayEndItself) {
  auto held = std::make_shared<int>(7);
  EventLoop::Registration one;
  one = *loop_->watch(first_.ref(), EPOLLIN, [&, held](std::uint32_t) {
    one.reset();
    seen_.push_back(*held);  // What the handler holds is still there.
  });
  signal(first_.ref());
  loop_->turn(milliseconds(0));
  loop_->turn(milliseconds(0));
  EXPECT_EQ(seen_, std::vector<int>{7});
  EXPECT_FALSE(one.active());
}

TEST_F(EventLoopTest, ForgetsWhatItWatchedEvenWhileTheFileLivesOn) {
  const common::Fd copy = *common::duplicate(first_.ref());
  auto one = *loop_->watch(first_.ref(), EPOLLIN, [&](std::uint32_t) { seen_.push_back(1); });
  one.reset();
  first_.reset();
  signal(copy.ref());
  loop_->turn(milliseconds(0));
  EXPECT_TRUE(seen_.empty());
}

TEST_F(EventLoopTest, RunsTimersInTheOrderOfTheirDeadlines) {
  const auto late = loop_->after(milliseconds(2), [&] {
    seen_.push_back(2);
    loop_->stop();
  });
  const auto soon = loop_->after(milliseconds(1), [&] { seen_.push_back(1); });
  loop_->run();
  EXPECT_EQ(seen_, (std::vector<int>{1, 2}));
}

TEST_F(EventLoopTest, TimerIsNotActiveOnceItHasRun) {
  const auto timer = loop_->after(milliseconds(0), [&] { loop_->stop(); });
  EXPECT_TRUE(timer.active());
  loop_->run();
  EXPECT_FALSE(timer.active());
}

TEST_F(EventLoopTest, TimerThatWasResetDoesNotRun) {
  auto dropped = loop_->after(milliseconds(0), [&] { seen_.push_back(1); });
  dropped.reset();
  const auto end = loop_->after(milliseconds(1), [&] { loop_->stop(); });
  loop_->run();
  EXPECT_TRUE(seen_.empty());
}

TEST_F(EventLoopTest, AssigningARegistrationEndsTheOldOne) {
  auto timer = loop_->after(milliseconds(0), [&] { seen_.push_back(1); });
  timer = loop_->after(milliseconds(0), [&] {
    seen_.push_back(2);
    loop_->stop();
  });
  loop_->run();
  EXPECT_EQ(seen_, std::vector<int>{2});
}

TEST_F(EventLoopTest, TimerThatStartsItselfAnewDoesNotKeepTheLoop) {
  EventLoop::Registration timer;
  std::function<void()> again = [&] {
    seen_.push_back(1);
    timer = loop_->after(milliseconds(0), again);
  };
  timer = loop_->after(milliseconds(0), again);
  loop_->turn(milliseconds(10));
  EXPECT_EQ(seen_.size(), 1U);
}

TEST_F(EventLoopTest, PostedTaskRunsAfterTheHandlersOfThatTurn) {
  const auto one = loop_->watch(first_.ref(), EPOLLIN, [&](std::uint32_t) {
    loop_->post([&] { seen_.push_back(2); });
    seen_.push_back(1);
  });
  signal(first_.ref());
  loop_->turn(milliseconds(0));
  EXPECT_EQ(seen_, (std::vector<int>{1, 2}));
}

TEST_F(EventLoopTest, PostedTaskDoesNotWaitForAnEvent) {
  loop_->post([&] { loop_->stop(); });
  loop_->run();  // Hangs, and so fails by the test's time limit, if it does.
  SUCCEED();
}

TEST_F(EventLoopTest, RefusesToWatchWhatIsNoDescriptor) {
  const auto refused = loop_->watch(common::FdRef{-1}, EPOLLIN, [](std::uint32_t) {});
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().os_errno, EBADF);
}

}  // namespace
}  // namespace broker
