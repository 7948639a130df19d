// Live migration as a front-end sees it: every page that a disk's workers write is in the log and
// nothing outside of it changes, whatever is switched meanwhile; and a guest that stops at one
// broker goes on at another.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <signal.h>

#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include "tests/fakes/dirty_log.h"
#include "tests/fakes/failure.h"
#include "tests/fakes/process.h"
#include "tests/integration/host.h"
#include "tests/integration/verified_load.h"

namespace integration {
namespace {

using common::blk::RequestType;
using fakes::BlkClient;
using fakes::BlkSegment;
using fakes::DirtyLog;
using fakes::MemorySnapshot;
using fakes::missing;
using fakes::Pages;
using fakes::VhostRequest;
using testing::IsEmpty;
using testing::Not;

class Migration : public EngineTest {
 protected:
  void start(const BlkClient::Options& options = {}, const Disk& disk = {}) {
    host_.serve(disk);
    client_ = host_.connect(options);
    log_ = std::make_unique<DirtyLog>(client_->memory(), 4096 + 13);  // Any offset will do.
  }
  fakes::BlkQueueDriver& queue(std::uint32_t index = 0) { return client_->queue(index); }
  void start_logging() {
    client_->set_log(*log_);
    client_->log_writes(true);
  }
  // Until this queue has answered all that it was offered; the guest's memory is only read.
  void await_answers(std::uint32_t index) {
    const auto give_up = std::chrono::steady_clock::now() + fakes::kPatience;
    fakes::SplitDriver& driver = queue(index).driver();
    while (driver.used_idx() != driver.next_avail()) {
      ASSERT_LT(std::chrono::steady_clock::now(), give_up) << "queue " << index << " stands still";
      ::sched_yield();
    }
  }
  // All queues read, write and ask for the serial number at once. What changes in the guest's
  // memory meanwhile, but for the avail rings, is the device's doing: the guest only waits.
  void expect_a_round_is_logged(std::uint32_t round) {
    for (std::uint32_t index = 0; index < client_->queues(); ++index) prepare(index, round);
    (void)log_->take();
    const MemorySnapshot before(client_->memory());
    for (std::uint32_t index = 0; index < client_->queues(); ++index) offer(index);
    expect_all_logged_since(before);
  }
  // Stops the rings, for the last marks come after the last answer is shown.
  void expect_all_logged_since(const MemorySnapshot& before) {
    for (std::uint32_t index = 0; index < client_->queues(); ++index) {
      await_answers(index);
      const std::uint32_t base = client_->stop_ring(index);
      EXPECT_EQ(base, queue(index).driver().next_avail());
    }
    Pages changed = before.changed();
    for (std::uint32_t index = 0; index < client_->queues(); ++index) {
      for (const std::uint64_t page : pages_of_offers(queue(index).place())) changed.erase(page);
    }
    EXPECT_THAT(changed, Not(IsEmpty()));
    EXPECT_EQ(missing(changed, log_->take()), "") << "changed and not in the log";
    EXPECT_TRUE(log_->nothing_outside_changed());
    for (std::uint32_t index = 0; index < client_->queues(); ++index) {
      client_->restart_ring(index, queue(index).driver().next_avail());
    }
    harvest();
  }
  void prepare(std::uint32_t index, std::uint32_t round) {
    fakes::BlkQueueDriver& into = queue(index);
    for (std::uint16_t slot = 0; slot < 16; ++slot) {
      const std::uint64_t sector = (index * 16U + slot) * 128U;
      const std::uint64_t data = into.data_addr(slot);
      std::ranges::fill(into.data(slot), std::byte(0xc0 + round % 16));
      const BlkSegment all{data, 64 * 1024};
      const BlkSegment odd{data + 4096 - 512, 1024};
      const BlkSegment serial{data + 8192 - 10, 20};
      switch ((slot + round) % 4) {
        case 0:
          into.prepare(slot, RequestType::kIn, sector, std::span(&all, 1), true);
          break;
        case 1:
          into.prepare(slot, RequestType::kOut, sector, std::span(&odd, 1), false);
          break;
        case 2:
          into.prepare(slot, RequestType::kIn, sector, std::span(&odd, 1), true);
          break;
        case 3:
          into.prepare(slot, RequestType::kGetId, 0, std::span(&serial, 1), true);
          break;
      }
    }
  }
  // All that the guest itself writes from then on is in its avail ring.
  void offer(std::uint32_t index) {
    (void)queue(index).driver().publish();
    queue(index).kick();
  }
  void harvest() {
    for (std::uint32_t index = 0; index < client_->queues(); ++index) {
      for (int i = 0; i < 16; ++i) {
        const auto done = queue(index).harvest();
        ASSERT_TRUE(done.has_value());
        EXPECT_EQ(done->status, kOk);
      }
    }
  }
  void kill_workers() {
    for (const pid_t pid : host_.workers()) {
      ASSERT_EQ(::kill(pid, SIGKILL), 0);
      ASSERT_TRUE(fakes::wait_gone(pid));
    }
  }

  std::unique_ptr<BlkClient> client_;
  std::unique_ptr<DirtyLog> log_;
};
BULKHEAD_FOR_BOTH_ENGINES(Migration);
class MigrationOnDisk : public Migration {};
BULKHEAD_FOR_ALL_SETTINGS(MigrationOnDisk);

// --- the log
// --------------------------------------------------------------------------------------

TEST_P(MigrationOnDisk, EveryPageThatIsWrittenIsInTheLog) {
  start({.queues = 2});
  start_logging();
  for (std::uint32_t round = 0; round < 6; ++round) expect_a_round_is_logged(round);
}

TEST_P(MigrationOnDisk, SameWithoutEventIndex) {
  start({.queues = 1, .shape = {.event_idx = false, .indirect = false}});
  start_logging();
  for (std::uint32_t round = 0; round < 4; ++round) expect_a_round_is_logged(round);
}

TEST_P(Migration, NothingIsMarkedBeforeAndAfter) {
  start();
  client_->set_log(*log_);
  prepare(0, 0);
  offer(0);
  await_answers(0);
  harvest();
  EXPECT_THAT(log_->take(), IsEmpty());
  client_->log_writes(true);
  client_->log_writes(false);
  (void)log_->take();
  prepare(0, 1);
  offer(0);
  await_answers(0);
  harvest();
  EXPECT_THAT(log_->take(), IsEmpty());
}

TEST_P(Migration, SwitchedOnAndOffUnderLoadLosesNoRequest) {
  start({.queues = 2});
  client_->set_log(*log_);
  VerifiedLoad load(queue(0), {.depth = 8});
  VerifiedLoad other(queue(1), {.first_sector = 4096});
  for (int i = 0; i < 100; ++i) client_->log_writes(i % 2 == 0);
  load.expect_progress();
  other.expect_progress();
  load.stop();
  other.stop();
  EXPECT_TRUE(log_->nothing_outside_changed());
  EXPECT_FALSE(queue(0).error_signalled_now());
  // And it still works.
  client_->log_writes(true);
  for (std::uint32_t round = 0; round < 2; ++round) expect_a_round_is_logged(round);
}

TEST_P(Migration, ChangingTheLogUnderLoadLosesNoRequest) {
  start();
  start_logging();
  VerifiedLoad load(queue(), {.depth = 8});
  std::vector<std::unique_ptr<DirtyLog>> logs;
  for (int i = 0; i < 20; ++i) {
    logs.push_back(std::make_unique<DirtyLog>(client_->memory(), static_cast<std::uint64_t>(i)));
    client_->set_log(*logs.back());
  }
  load.expect_progress();
  load.stop();
  for (const auto& log : logs) EXPECT_TRUE(log->nothing_outside_changed());
  EXPECT_THAT(logs.back()->take(), Not(IsEmpty()));
}

TEST_P(Migration, WorkersThatDieLoseNoMark) {
  start({.queues = 2});
  start_logging();
  for (std::uint32_t round = 0; round < 4; ++round) {
    for (std::uint32_t index = 0; index < 2; ++index) prepare(index, round);
    (void)log_->take();
    const MemorySnapshot before(client_->memory());
    for (std::uint32_t index = 0; index < 2; ++index) offer(index);
    kill_workers();
    expect_all_logged_since(before);
  }
}

TEST_P(Migration, FrontEndThatComesBackInTheMiddleLosesNoMark) {
  start();
  start_logging();
  for (const pid_t pid : host_.sessions()) ASSERT_EQ(::kill(pid, SIGKILL), 0);
  ASSERT_TRUE(client_->vhost().hung_up());
  prepare(0, 1);
  (void)log_->take();
  const MemorySnapshot before(client_->memory());
  offer(0);
  // LOG_ALL, the rings, and only then SET_LOG_BASE: as QEMU starts a device while it migrates.
  ASSERT_TRUE(client_->reconnect(host_.socket()));
  await_answers(0);
  client_->set_log(*log_);
  expect_all_logged_since(before);
}

// --- hostile
// --------------------------------------------------------------------------------------

TEST_P(Migration, LogThatShrinksKillsItsWorkersAndNobodyElse) {
  host_.serve_all({{.name = "vda"}, {.name = "vdb"}});
  client_ = host_.connect();
  const auto innocent = host_.connect({}, "vdb");
  log_ = std::make_unique<DirtyLog>(client_->memory());
  start_logging();
  log_->shrink_to(0);
  prepare(0, 0);
  offer(0);
  EXPECT_TRUE(queue().error_signalled());
  EXPECT_THAT(host_.broker().wait_for_line({"vda", "migration log"}), Not(IsEmpty()));
  expect_serves(innocent->queue());
}

TEST_P(Migration, LogTooSmallIsRefusedWithOneClearLine) {
  start();
  const DirtyLog small(8, 0);
  client_->set_log(small);
  EXPECT_THROW(client_->log_writes(true), fakes::Failure);
  EXPECT_TRUE(client_->vhost().hung_up());
  EXPECT_THAT(host_.broker().wait_for_line({"the migration log has 8 bytes"}), Not(IsEmpty()));
  client_ = host_.connect();
  expect_serves(queue());
}

// --- from one broker to another
// -------------------------------------------------------------------

TEST_P(MigrationOnDisk, GuestGoesOnAtAnotherBroker) {
  start({.queues = 2});
  Host destination(GetParam());
  destination.serve({.options = {"--lock=off"}, .file = host_.image()});
  std::vector<std::uint32_t> versions;
  std::vector<std::uint32_t> others;
  for (int leg = 0; leg < 3; ++leg) {
    VerifiedLoad load(queue(0), {.depth = 8, .versions = versions});
    VerifiedLoad other(queue(1), {.first_sector = 4096, .versions = others});
    load.expect_progress(30);
    for (std::uint32_t index = 0; index < 2; ++index) {
      // A stopped ring has nothing in flight: where it goes on is what has been answered.
      const std::uint32_t base = client_->stop_ring(index);
      EXPECT_EQ(base, queue(index).driver().used_idx());
    }
    client_->vhost().disconnect();
    ASSERT_TRUE(client_->reconnect(leg % 2 == 0 ? destination.socket() : host_.socket()));
    load.expect_progress(30);
    load.stop();
    other.stop();
    versions = load.verify_all();
    others = other.verify_all();
  }
}

// With GET_VRING_BASE_INFLIGHT the front-end carries the in-flight region to the other host: what
// was taken there and never answered is served here, once.
TEST_P(MigrationOnDisk, WhatDeadWorkersHadTakenIsServedElsewhereFromACopyOfTheRegion) {
  start({.queues = 2});
  ASSERT_NE(client_->protocol_features() & fakes::kProtocolGetVringBaseInflight, 0U);
  Host destination(GetParam());
  destination.serve({.options = {"--lock=off"}, .file = host_.image()});
  VerifiedLoad load(queue(0), {.depth = 8});
  VerifiedLoad other(queue(1), {.first_sector = 4096, .depth = 8});
  for (int leg = 0; leg < 4; ++leg) {
    load.expect_progress(30);
    other.expect_progress(10);
    Host& here = leg % 2 == 0 ? host_ : destination;
    std::vector<pid_t> victims = here.workers();
    victims.push_back(here.sessions().at(0));
    for (const pid_t pid : victims) (void)::kill(pid, SIGKILL);
    ASSERT_TRUE(client_->vhost().hung_up());
    for (const pid_t pid : victims) ASSERT_TRUE(fakes::wait_gone(pid));
    client_->copy_inflight();
    ASSERT_TRUE(client_->reconnect(leg % 2 == 0 ? destination.socket() : host_.socket()));
  }
  load.expect_progress(30);
  load.stop();
  other.stop();
}

}  // namespace
}  // namespace integration
