// The broker's half of MSG_RING against a ring as a worker has it: made by policy/, restricted,
// enabled by whoever submits (here the test itself).
#include "broker/ring_messenger.h"

#include <gtest/gtest.h>
#include <linux/io_uring.h>
#include <sys/eventfd.h>

#include <array>
#include <cstring>
#include <deque>
#include <optional>

#include "common/ipc/worker_messages.h"
#include "common/shared_region.h"
#include "common/sys.h"
#include "common/uring_sys.h"
#include "policy/restricted_ring.h"

namespace broker {
namespace {

namespace ipc = common::ipc;
namespace uring = common::uring;

constexpr std::uint8_t kOpcodes[] = {IORING_OP_WRITE};

struct Seen {
  std::uint64_t user_data;
  int result;
};

// A worker's half, as much of it as is needed here.
class WorkerRing {
 public:
  WorkerRing() : ring_(*policy::make_restricted_ring({8, 64, 1, kOpcodes})) {
    const ipc::UringLayout& at = ring_.layout;
    const std::uint64_t bytes =
        std::max<std::uint64_t>(at.cqes + at.cq_entries * sizeof(io_uring_cqe),
                                at.sq_array + at.sq_entries * sizeof(std::uint32_t));
    using Access = common::SharedRegion::Access;
    rings_ = *common::SharedRegion::map(fd(), IORING_OFF_SQ_RING, bytes, Access::kReadWrite);
    entries_ = *common::SharedRegion::map(fd(), IORING_OFF_SQES,
                                          at.sq_entries * sizeof(io_uring_sqe), Access::kReadWrite);
  }

  [[nodiscard]] common::FdRef fd() const { return ring_.fd.ref(); }
  void close() { ring_.fd.reset(); }

  void enable(common::FdRef call) {
    const std::array<int, ipc::kSlotCount> files = {-1, call.number, -1, -1};
    ASSERT_EQ(uring::reg(fd().number, IORING_REGISTER_FILES, files.data(), files.size()), 0);
    ASSERT_EQ(uring::reg(fd().number, IORING_REGISTER_ENABLE_RINGS, nullptr, 0), 0);
  }

  // Lets the kernel deliver what is on its way, and takes it.
  std::deque<Seen> take() {
    EXPECT_GE(uring::enter(fd().number, 0, 0, IORING_ENTER_GETEVENTS, nullptr, 0), 0);
    std::deque<Seen> all;
    std::uint32_t head = *word(ring_.layout.cq_head);
    for (; head != __atomic_load_n(word(ring_.layout.cq_tail), __ATOMIC_ACQUIRE); ++head) {
      io_uring_cqe entry{};
      std::memcpy(&entry,
                  rings_.bytes().data() + ring_.layout.cqes +
                      (head & *word(ring_.layout.cq_mask)) * sizeof(entry),
                  sizeof(entry));
      all.push_back({entry.user_data, entry.res});
    }
    __atomic_store_n(word(ring_.layout.cq_head), head, __ATOMIC_RELEASE);
    return all;
  }

  // What a worker does to ring the bell.
  int write_call() {
    static const std::uint64_t one = 1;
    io_uring_sqe entry{};
    entry.opcode = IORING_OP_WRITE;
    entry.flags = IOSQE_FIXED_FILE;
    entry.fd = static_cast<int>(ipc::kSlotCall);
    entry.addr = reinterpret_cast<std::uintptr_t>(&one);
    entry.len = sizeof(one);
    std::memcpy(entries_.bytes().data(), &entry, sizeof(entry));
    const std::uint32_t tail = *word(ring_.layout.sq_tail);
    const std::uint32_t index = tail & *word(ring_.layout.sq_mask);
    if (index != 0)
      std::memcpy(entries_.bytes().data() + index * sizeof(entry), &entry, sizeof(entry));
    if (ring_.layout.no_sq_array == 0) {
      *word(ring_.layout.sq_array + index * std::uint32_t{sizeof(std::uint32_t)}) = index;
    }
    __atomic_store_n(word(ring_.layout.sq_tail), tail + 1, __ATOMIC_RELEASE);
    EXPECT_EQ(uring::enter(fd().number, 1, 1, IORING_ENTER_GETEVENTS, nullptr, 0), 1);
    const auto seen = take();
    return seen.empty() ? -EIO : seen.front().result;
  }

 private:
  [[nodiscard]] std::uint32_t* word(std::uint32_t offset) const {
    return reinterpret_cast<std::uint32_t*>(rings_.bytes().data() + offset);
  }

  policy::RestrictedRing ring_;
  common::SharedRegion rings_;
  common::SharedRegion entries_;
};

class RingMessengerTest : public testing::Test {
 protected:
  void SetUp() override {
    if (const auto support = policy::probe_uring();
        !support.engine_possible || !support.message_fds) {
      GTEST_SKIP() << "no io_uring here: " << support.step;
    }
    messenger_ = *RingMessenger::create(*loop_);
    worker_.emplace();
  }

  RingMessenger::Done note() {
    return [this](int result) { answer_ = result; };
  }
  // Until the messenger has been answered; the worker's side has to be looked at for that.
  std::deque<Seen> drive() {
    std::deque<Seen> all;
    for (int i = 0; i < 100 && !answer_; ++i) {
      for (const Seen& seen : worker_->take()) all.push_back(seen);
      loop_->turn(std::chrono::milliseconds(20));
    }
    return all;
  }
  static std::uint64_t count_of(common::FdRef eventfd) {
    eventfd_t value = 0;
    return ::eventfd_read(eventfd.number, &value) == 0 ? value : 0;
  }

  std::unique_ptr<EventLoop> loop_ = *EventLoop::create();
  std::unique_ptr<RingMessenger> messenger_;
  std::optional<WorkerRing> worker_;
  common::Fd old_call_ = *common::make_eventfd();
  common::Fd new_call_ = *common::make_eventfd();
  std::optional<int> answer_;
};

TEST_F(RingMessengerTest, StopArrivesAsACompletion) {
  worker_->enable(old_call_.ref());
  ASSERT_TRUE(messenger_->send_stop(worker_->fd(), note()));
  const auto seen = drive();
  ASSERT_EQ(answer_, 0);
  ASSERT_EQ(seen.size(), 1U);
  EXPECT_EQ(seen.front().user_data, ipc::kRingStop);
}

TEST_F(RingMessengerTest, StopToARingThatIsNotEnabledYetSaysSo) {
  ASSERT_TRUE(messenger_->send_stop(worker_->fd(), note()));
  for (int i = 0; i < 100 && !answer_; ++i) loop_->turn(std::chrono::milliseconds(20));
  EXPECT_EQ(answer_, -EBADFD);
}

TEST_F(RingMessengerTest, SwapPutsTheNewEventfdInTheOldOnesPlace) {
  worker_->enable(old_call_.ref());
  ASSERT_TRUE(messenger_->send_call(worker_->fd(), new_call_.ref(), note()));
  const auto seen = drive();
  ASSERT_TRUE(answer_.has_value());
  ASSERT_GE(*answer_, 0);
  ASSERT_EQ(seen.size(), 1U);
  EXPECT_EQ(seen.front().user_data, ipc::kRingCallSwapped);

  EXPECT_EQ(worker_->write_call(), 8);
  EXPECT_EQ(count_of(new_call_.ref()), 1U);
  EXPECT_EQ(count_of(old_call_.ref()), 0U);
}

TEST_F(RingMessengerTest, SwapNeedsOurDescriptorOnlyUntilItIsSubmitted) {
  worker_->enable(old_call_.ref());
  const common::Fd kept = *common::duplicate(new_call_.ref());
  ASSERT_TRUE(messenger_->send_call(worker_->fd(), new_call_.ref(), note()));
  new_call_.reset();
  drive();
  EXPECT_EQ(worker_->write_call(), 8);
  EXPECT_EQ(count_of(kept.ref()), 1U);
}

TEST_F(RingMessengerTest, SwapsCanFollowEachOtherForEver) {
  worker_->enable(old_call_.ref());
  for (std::uint32_t i = 0; i < RingMessenger::kSwapsMax + 8; ++i) {
    answer_.reset();
    ASSERT_TRUE(messenger_->send_call(worker_->fd(), new_call_.ref(), note()));
    drive();
    ASSERT_GE(answer_.value_or(-1), 0);
  }
}

TEST_F(RingMessengerTest, RefusesMoreSwapsThanItHasSlots) {
  worker_->enable(old_call_.ref());
  // Never answered: the worker's side is not looked at.
  for (std::uint32_t i = 0; i < RingMessenger::kSwapsMax; ++i) {
    ASSERT_TRUE(messenger_->send_call(worker_->fd(), new_call_.ref(), note()));
  }
  const auto refused = messenger_->send_call(worker_->fd(), new_call_.ref(), note());
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().os_errno, EBUSY);
}

TEST_F(RingMessengerTest, AbandonedMessageCallsNobody) {
  worker_->enable(old_call_.ref());
  const auto ticket = messenger_->send_stop(worker_->fd(), note());
  ASSERT_TRUE(ticket);
  messenger_->abandon(*ticket);
  EXPECT_EQ(worker_->take().size(), 1U);
  loop_->turn(std::chrono::milliseconds(20));
  EXPECT_FALSE(answer_.has_value());
}

TEST_F(RingMessengerTest, WhatIsNoRingIsRefusedWithoutHarm) {
  ASSERT_TRUE(messenger_->send_stop(new_call_.ref(), note()));
  for (int i = 0; i < 100 && !answer_; ++i) loop_->turn(std::chrono::milliseconds(20));
  EXPECT_EQ(answer_, -EBADFD);
}

}  // namespace
}  // namespace broker
