// Live migration of a network card as a front-end sees it: every page that its workers write is in
// the log, and logging costs no packet.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sched.h>

#include <chrono>
#include <memory>

#include "tests/fakes/dirty_log.h"
#include "tests/integration/net_host.h"

namespace integration {
namespace {

using fakes::DirtyLog;
using fakes::make_frame;
using fakes::MemorySnapshot;
using fakes::missing;
using fakes::Pages;
using testing::IsEmpty;
using testing::Not;

class NetMigration : public NetTest {
 protected:
  void start_logging() {
    log_ = std::make_unique<DirtyLog>(client().memory());
    client().set_log(*log_);
    client().log_writes(true);
  }
  // Until so many more answers are there; the guest's memory is only read.
  void await_answers(fakes::NetQueueDriver& queue, std::uint16_t from, std::uint16_t answers) {
    const auto give_up = std::chrono::steady_clock::now() + fakes::kPatience;
    while (static_cast<std::uint16_t>(queue.driver().used_idx() - from) < answers) {
      ASSERT_LT(std::chrono::steady_clock::now(), give_up) << "the queue stands still";
      ::sched_yield();
    }
  }
  // Stops the ring, for the last marks come after the last answer is shown.
  void expect_all_logged_since(const MemorySnapshot& before, std::uint32_t queue) {
    const std::uint32_t base = client().stop_queue(queue);
    Pages changed = before.changed();
    const auto& driver = queue == 0 ? client().receive_queue() : client().transmit_queue();
    for (const std::uint64_t page : pages_of_offers(driver.place())) changed.erase(page);
    EXPECT_THAT(changed, Not(IsEmpty()));
    EXPECT_EQ(missing(changed, log_->take()), "") << "changed and not in the log";
    EXPECT_TRUE(log_->nothing_outside_changed());
    client().start_queue(queue, static_cast<std::uint16_t>(base));
    client().enable(queue, true);
  }
  std::unique_ptr<DirtyLog> log_;
};
BULKHEAD_FOR_BOTH_ENGINES(NetMigration);

TEST_P(NetMigration, EveryPageThatIsReceivedIntoIsInTheLog) {
  start();
  start_logging();
  fakes::NetQueueDriver& queue = client().receive_queue();
  for (std::uint32_t round = 0; round < 4; ++round) {
    const std::uint16_t from = queue.driver().used_idx();
    (void)log_->take();
    const MemorySnapshot before(client().memory());
    for (std::uint32_t i = 0; i < 20; ++i) port().send(make_frame(60 + i * 70, round * 100 + i));
    await_answers(queue, from, 20);
    expect_all_logged_since(before, 0);
    for (std::uint32_t i = 0; i < 20; ++i) {
      const auto got = queue.receive(kPacketPatienceMs);
      ASSERT_TRUE(got.has_value());
      EXPECT_EQ(got->frame, make_frame(60 + i * 70, round * 100 + i));
    }
  }
}

TEST_P(NetMigration, EveryPageOfAnAnswerToWhatIsSentIsInTheLog) {
  start();
  start_logging();
  fakes::NetQueueDriver& queue = client().transmit_queue();
  for (std::uint32_t round = 0; round < 4; ++round) {
    const std::uint16_t from = queue.driver().used_idx();
    for (std::uint32_t i = 0; i < 10; ++i) {
      queue.add({.header = {}, .frame = make_frame(700, round * 100 + i, true)});
    }
    (void)log_->take();
    const MemorySnapshot before(client().memory());
    (void)queue.driver().publish();  // From here on the guest writes nothing but its avail ring.
    queue.kick();
    await_answers(queue, from, 10);
    expect_all_logged_since(before, 1);
    EXPECT_TRUE(queue.wait_sent());
    for (std::uint32_t i = 0; i < 10; ++i) {
      EXPECT_TRUE(port().receive(kPacketPatienceMs).has_value());
    }
  }
}

TEST_P(NetMigration, PacketsGoBothWaysWhileLoggingIsSwitchedOnAndOff) {
  start();
  start_logging();
  for (std::uint32_t i = 0; i < 20; ++i) {
    client().log_writes(i % 2 == 0);
    expect_receives(0, i);
    expect_sends(0, i);
    EXPECT_TRUE(client().transmit_queue().wait_sent());
  }
  EXPECT_TRUE(log_->nothing_outside_changed());
}

}  // namespace
}  // namespace integration
