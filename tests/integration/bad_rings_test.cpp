// A hostile guest: each way to break a ring stops that queue with one clear line and the err
// eventfd, and the other queue of the same guest, the other disk and the broker go on. The classes
// are those of published advisories against vhost-user back-ends.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <atomic>
#include <cstring>
#include <thread>

#include "tests/fakes/process.h"
#include "tests/integration/host.h"
#include "tests/integration/verified_load.h"

namespace integration {
namespace {

using common::kDescIndirect;
using common::kDescNext;
using common::kDescWrite;
using common::WireDesc;
using common::blk::RequestType;
using common::blk::WireRequestHeader;
using fakes::BlkClient;
using fakes::BlkSegment;
using testing::IsEmpty;
using testing::Not;

constexpr std::uint64_t kOutside = 0x7000000000;

// Sanitizers turn a SIGBUS into an end of their own.
#ifdef BULKHEAD_SANITIZER
const std::vector<std::string> kMemoryWentAway = {"error vda: worker vda/0"};
#else
const std::vector<std::string> kMemoryWentAway = {"worker vda/0", "SIGBUS", "guest memory"};
#endif

class HostileGuest : public testing::TestWithParam<Setting> {
 protected:
  void SetUp() override {
    BlkClient::Options options;
    options.queues = 2;
    connect(options);
  }
  void connect(const BlkClient::Options& options) {
    client_.reset();
    client_ = disks_.host().connect(options);
    header_ = queue().scratch();
    status_ = header_ + 64;
    data_ = header_ + 4096;
    table_ = header_ + 16384;
    write_header(RequestType::kIn, 0);
  }
  fakes::BlkQueueDriver& queue() { return client_->queue(0); }
  fakes::SplitDriver& ring() { return queue().driver(); }

  void write_header(RequestType type, std::uint64_t sector) {
    const WireRequestHeader header{.type = common::Le32(static_cast<std::uint32_t>(type)),
                                   .reserved = common::Le32(0),
                                   .sector = common::Le64(sector)};
    std::memcpy(client_->memory().at(header_, sizeof(header)), &header, sizeof(header));
    *client_->memory().at(status_) = std::byte{0xff};
  }
  void table_entry(std::uint16_t index, std::uint64_t addr, std::uint32_t len, std::uint16_t flags,
                   std::uint16_t next) {
    const WireDesc desc{common::Le64(addr), common::Le32(len), common::Le16(flags),
                        common::Le16(next)};
    std::memcpy(client_->memory().at(table_ + index * sizeof(desc), sizeof(desc)), &desc,
                sizeof(desc));
  }
  void offer_and_kick(std::uint16_t head = 0) {
    ring().offer(head);
    (void)ring().publish();
    queue().kick();
  }
  std::uint8_t status() { return static_cast<std::uint8_t>(*client_->memory().at(status_)); }

  // This queue is stopped and says why; nothing else is.
  void expect_queue_stopped(const std::vector<std::string>& why) {
    EXPECT_TRUE(queue().error_signalled());
    EXPECT_THAT(disks_.host().broker().wait_for_line(why), Not(IsEmpty()))
        << disks_.host().broker().log();
    expect_serves(client_->queue(1), 1024);
    client_.reset();
    disks_.expect_broker_and_others_serve();
  }
  // The chain is answered with this status, and the queue goes on.
  void expect_answered(std::uint8_t expected) {
    const auto done = [&] {
      while (!ring().has_used()) {
        if (!ring().enable_interrupts()) continue;
        if (!queue().doorbell().wait(10000)) return false;
      }
      return ring().take().has_value();
    };
    ASSERT_TRUE(done());
    EXPECT_EQ(status(), expected);
    expect_serves(queue(), 1024);
  }

  TwoDisks disks_{GetParam()};
  std::unique_ptr<BlkClient> client_;
  std::uint64_t header_ = 0;
  std::uint64_t status_ = 0;
  std::uint64_t data_ = 0;
  std::uint64_t table_ = 0;
};
BULKHEAD_FOR_BOTH_ENGINES(HostileGuest);

// --- the avail ring ------------------------------------------------------------------------------

TEST_P(HostileGuest, AvailIndexThatJumpsStopsTheQueue) {
  ring().store_avail_idx(1000);
  queue().kick();
  expect_queue_stopped({"vda", "avail index jumped"});
}

TEST_P(HostileGuest, AvailIndexThatGoesBackStopsTheQueue) {
  expect_serves(queue());
  ring().store_avail_idx(static_cast<std::uint16_t>(ring().next_avail() - 1));
  queue().kick();
  expect_queue_stopped({"vda", "avail index jumped"});
}

TEST_P(HostileGuest, AvailEntryOutsideTheTableStopsTheQueue) {
  offer_and_kick(0xffff);
  expect_queue_stopped({"vda", "starts outside the descriptor table"});
}

TEST_P(HostileGuest, AvailEntryOneBeyondTheTableStopsTheQueue) {
  offer_and_kick(ring().size());
  expect_queue_stopped({"vda", "starts outside the descriptor table"});
}

// --- chains --------------------------------------------------------------------------------------

TEST_P(HostileGuest, ChainThatLoopsStopsTheQueue) {
  ring().set_desc(0, header_, 16, kDescNext, 1);
  ring().set_desc(1, data_, 512, kDescNext, 1);
  offer_and_kick();
  expect_queue_stopped({"vda", "loops or is too long"});
}

TEST_P(HostileGuest, ChainThatLoopsOverAllOfTheTableStopsTheQueue) {
  for (std::uint16_t i = 0; i < ring().size(); ++i) {
    ring().set_desc(i, header_, 16, kDescNext, static_cast<std::uint16_t>((i + 1) % ring().size()));
  }
  offer_and_kick();
  expect_queue_stopped({"vda", "loops or is too long"});
}

TEST_P(HostileGuest, NextOutsideTheTableStopsTheQueue) {
  ring().set_desc(0, header_, 16, kDescNext, 0x8000);
  offer_and_kick();
  expect_queue_stopped({"vda", "leads out of its table"});
}

TEST_P(HostileGuest, BufferOutsideMemoryStopsTheQueue) {
  ring().set_desc(0, header_, 16, kDescNext, 1);
  ring().set_desc(1, kOutside, 512, kDescNext | kDescWrite, 2);
  ring().set_desc(2, status_, 1, kDescWrite, 0);
  offer_and_kick();
  expect_queue_stopped({"vda", "outside its memory"});
}

TEST_P(HostileGuest, BufferThatWrapsAroundStopsTheQueue) {
  ring().set_desc(0, header_, 16, kDescNext, 1);
  ring().set_desc(1, ~0ULL - 255, 512, kDescNext | kDescWrite, 2);
  ring().set_desc(2, status_, 1, kDescWrite, 0);
  offer_and_kick();
  expect_queue_stopped({"vda", "outside its memory"});
}

// CVE-2018-1059: the start is in memory, the end is not.
TEST_P(HostileGuest, BufferThatLeavesItsRegionStopsTheQueue) {
  const fakes::VmRegion& region = client_->memory().regions()[0];
  ring().set_desc(0, header_, 16, kDescNext, 1);
  ring().set_desc(1, region.guest_addr + region.bytes - 512, 4096, kDescNext | kDescWrite, 2);
  ring().set_desc(2, status_, 1, kDescWrite, 0);
  offer_and_kick();
  expect_queue_stopped({"vda", "outside its memory"});
}

TEST_P(HostileGuest, BufferOf4GiBStopsTheQueue) {
  ring().set_desc(0, header_, 16, kDescNext, 1);
  ring().set_desc(1, data_, 0xffffffff, kDescNext | kDescWrite, 2);
  ring().set_desc(2, status_, 1, kDescWrite, 0);
  offer_and_kick();
  expect_queue_stopped({"vda", "the guest's ring is broken"});
}

TEST_P(HostileGuest, HeaderOutsideMemoryStopsTheQueue) {
  ring().set_desc(0, kOutside, 16, kDescNext, 1);
  ring().set_desc(1, status_, 1, kDescWrite, 0);
  offer_and_kick();
  expect_queue_stopped({"vda", "outside its memory"});
}

TEST_P(HostileGuest, StatusOutsideMemoryStopsTheQueue) {
  ring().set_desc(0, header_, 16, kDescNext, 1);
  ring().set_desc(1, kOutside, 1, kDescWrite, 0);
  offer_and_kick();
  expect_queue_stopped({"vda", "outside its memory"});
}

TEST_P(HostileGuest, ReadableBufferAfterAWritableOneStopsTheQueue) {
  ring().set_desc(0, header_, 16, kDescNext, 1);
  ring().set_desc(1, data_, 512, kDescNext | kDescWrite, 2);
  ring().set_desc(2, data_ + 512, 512, kDescNext, 3);
  ring().set_desc(3, status_, 1, kDescWrite, 0);
  offer_and_kick();
  expect_queue_stopped({"vda", "readable buffer after a writable one"});
}

TEST_P(HostileGuest, RequestWithoutAStatusByteStopsTheQueue) {
  write_header(RequestType::kOut, 0);
  ring().set_desc(0, header_, 16, kDescNext, 1);
  ring().set_desc(1, data_, 512, 0, 0);
  offer_and_kick();
  expect_queue_stopped({"vda", "no byte to write the status to"});
}

TEST_P(HostileGuest, UnknownDescriptorFlagsStopTheQueue) {
  ring().set_desc(0, header_, 16, 0x80 | kDescNext, 1);
  ring().set_desc(1, status_, 1, kDescWrite, 0);
  offer_and_kick();
  expect_queue_stopped({"vda", "flags that do not exist"});
}

TEST_P(HostileGuest, HeaderShorterThanAHeaderIsAnsweredWithAnError) {
  ring().set_desc(0, header_, 7, kDescNext, 1);
  ring().set_desc(1, status_, 1, kDescWrite, 0);
  offer_and_kick();
  expect_answered(kIoError);
}

TEST_P(HostileGuest, ZeroLengthBuffersHarmNothing) {
  ring().set_desc(0, header_, 16, kDescNext, 1);
  ring().set_desc(1, data_, 0, kDescNext | kDescWrite, 2);
  ring().set_desc(2, data_, 512, kDescNext | kDescWrite, 3);
  ring().set_desc(3, data_ + 512, 0, kDescNext | kDescWrite, 4);
  ring().set_desc(4, status_, 1, kDescWrite, 0);
  offer_and_kick();
  expect_answered(kOk);
  EXPECT_TRUE(is_pattern(client_->memory().span(data_, 512), 0));
}

TEST_P(HostileGuest, OnlyZeroLengthBuffersAreAnsweredOrStopTheQueueAndNothingElse) {
  ring().set_desc(0, header_, 0, kDescNext, 1);
  ring().set_desc(1, status_, 0, kDescWrite, 0);
  offer_and_kick();
  expect_queue_stopped({"vda", "the guest's request is broken"});
}

TEST_P(HostileGuest, HeaderInPiecesAndStatusAtTheEndOfTheDataWork) {
  // virtio 1.2, 2.7.4: a device makes no assumption about the framing.
  ring().set_desc(0, header_, 3, kDescNext, 1);
  ring().set_desc(1, header_ + 3, 13, kDescNext, 2);
  ring().set_desc(2, data_, 513, kDescWrite, 0);
  status_ = data_ + 512;
  offer_and_kick();
  expect_answered(kOk);
  EXPECT_TRUE(is_pattern(client_->memory().span(data_, 512), 0));
}

// --- indirect tables -----------------------------------------------------------------------------

TEST_P(HostileGuest, NestedIndirectTableStopsTheQueue) {
  table_entry(0, table_, 32, kDescIndirect, 0);
  ring().set_desc(0, table_, 32, kDescIndirect, 0);
  offer_and_kick();
  expect_queue_stopped({"vda", "indirect table inside an indirect table"});
}

TEST_P(HostileGuest, IndirectTableOfNoWholeEntriesStopsTheQueue) {
  ring().set_desc(0, table_, 33, kDescIndirect, 0);
  offer_and_kick();
  expect_queue_stopped({"vda", "impossible size"});
}

TEST_P(HostileGuest, EmptyIndirectTableStopsTheQueue) {
  ring().set_desc(0, table_, 0, kDescIndirect, 0);
  offer_and_kick();
  expect_queue_stopped({"vda", "impossible size"});
}

TEST_P(HostileGuest, IndirectTableOutsideMemoryStopsTheQueue) {
  ring().set_desc(0, kOutside, 48, kDescIndirect, 0);
  offer_and_kick();
  expect_queue_stopped({"vda", "outside its memory"});
}

TEST_P(HostileGuest, IndirectTableThatLoopsStopsTheQueue) {
  table_entry(0, header_, 16, kDescNext, 1);
  table_entry(1, data_, 512, kDescNext, 0);
  ring().set_desc(0, table_, 32, kDescIndirect, 0);
  offer_and_kick();
  expect_queue_stopped({"vda", "loops or is too long"});
}

TEST_P(HostileGuest, IndirectNextOutsideItsTableStopsTheQueue) {
  table_entry(0, header_, 16, kDescNext, 2);
  ring().set_desc(0, table_, 32, kDescIndirect, 0);
  offer_and_kick();
  expect_queue_stopped({"vda", "leads out of its table"});
}

TEST_P(HostileGuest, IndirectWithANextStopsTheQueue) {
  table_entry(0, header_, 16, kDescNext, 1);
  table_entry(1, status_, 1, kDescWrite, 0);
  ring().set_desc(0, table_, 32, kDescIndirect | kDescNext, 1);
  ring().set_desc(1, status_, 1, kDescWrite, 0);
  offer_and_kick();
  expect_queue_stopped({"vda", "indirect and has a next"});
}

TEST_P(HostileGuest, HugeIndirectTableStopsTheQueue) {
  ring().set_desc(0, table_, 0xfffffff0, kDescIndirect, 0);
  table_entry(0, header_, 16, kDescNext, 0);
  offer_and_kick();
  expect_queue_stopped({"vda", "the guest's ring is broken"});
}

TEST_P(HostileGuest, IndirectThatWasNotNegotiatedStopsTheQueue) {
  BlkClient::Options options;
  options.queues = 2;
  options.shape.indirect = false;
  connect(options);
  table_entry(0, header_, 16, kDescNext, 1);
  table_entry(1, status_, 1, kDescWrite, 0);
  ring().set_desc(0, table_, 32, kDescIndirect, 0);
  offer_and_kick();
  expect_queue_stopped({"vda", "not negotiated"});
}

// --- while we look -------------------------------------------------------------------------------

// CVE-2026-93683, CVE-2026-86848: lengths, addresses and flags of a table that another CPU rewrites
// while the device reads it. Every outcome is legal but one: that anybody else notices.
TEST_P(HostileGuest, DescriptorsThatChangeWhileTheyAreReadHarmNobodyElse) {
  VerifiedLoad load(disks_.innocent().queue(), {.first_sector = 2048});
  std::atomic<bool> stop = false;
  std::thread other_cpu([&] {
    std::uint32_t turn = 0;
    while (!stop) {
      ++turn;
      table_entry(0, header_, 16, kDescNext, static_cast<std::uint16_t>(turn % 7 == 0 ? 0 : 1));
      table_entry(1, turn % 2 == 0 ? data_ : kOutside, turn % 3 == 0 ? 512 : 0xffffffff,
                  turn % 5 == 0 ? kDescNext : kDescNext | kDescWrite, 2);
      table_entry(2, status_, 1, turn % 11 == 0 ? kDescIndirect : kDescWrite, 0);
    }
  });
  ring().set_desc(0, table_, 48, kDescIndirect, 0);
  // Until the device has read something impossible, or a thousand times.
  for (int i = 0; i < 1000; ++i) {
    offer_and_kick();
    if (ring().enable_interrupts() && !queue().doorbell().wait(100)) break;
    while (ring().take().has_value()) {
    }
  }
  stop = true;
  other_cpu.join();
  load.expect_progress();
  load.stop();
  client_.reset();
  disks_.expect_broker_and_others_serve();
}

TEST_P(HostileGuest, HeaderThatChangesWhileItIsReadReadsNothingBeyondTheDisk) {
  std::atomic<bool> stop = false;
  std::thread other_cpu([&] {
    for (std::uint64_t turn = 0; !stop; ++turn) {
      write_header(turn % 2 == 0 ? RequestType::kIn : RequestType::kFlush,
                   turn % 3 == 0 ? 0 : ~0ULL >> (turn % 11));
    }
  });
  ring().set_desc(0, header_, 16, kDescNext, 1);
  ring().set_desc(1, data_, 512, kDescNext | kDescWrite, 2);
  ring().set_desc(2, status_, 1, kDescWrite, 0);
  int answered = 0;
  for (int i = 0; i < 500; ++i) {
    offer_and_kick();
    while (!ring().has_used()) {
      if (ring().enable_interrupts() && !queue().doorbell().wait(10000)) break;
    }
    if (ring().take().has_value()) ++answered;
  }
  stop = true;
  other_cpu.join();
  EXPECT_EQ(answered, 500);
  client_.reset();
  disks_.expect_broker_and_others_serve();
}

// --- memory that goes away -----------------------------------------------------------------------

TEST_P(HostileGuest, MemoryThatVanishesKillsThatWorkerOnly) {
  expect_serves(queue());
  // Only the file of the even queues: queue 1 and the spare piece stay.
  ASSERT_EQ(::ftruncate(client_->memory().file(0).number, 0), 0);
  queue().kick();
  EXPECT_THAT(disks_.host().broker().wait_for_line(kMemoryWentAway), Not(IsEmpty()))
      << disks_.host().broker().log();
  expect_serves(client_->queue(1), 1024);
  client_.reset();
  disks_.expect_broker_and_others_serve();
}

// Here the ring stays, and a buffer goes: an error, or that worker's death where it had to touch
// the buffer itself.
TEST_P(HostileGuest, BuffersThatVanishHarmThatQueueAtMost) {
  expect_serves(queue());
  ASSERT_EQ(::ftruncate(client_->memory().file(2).number, 0), 0);
  const BlkSegment gone{BlkClient::kSpareAddr, 4096};
  queue().prepare(*queue().free_slot(), RequestType::kIn, 0, {&gone, 1}, true);
  queue().send();
  const auto done = queue().wait(1000);
  if (done) {
    EXPECT_EQ(done->status, kIoError);
  } else {
    EXPECT_THAT(disks_.host().broker().wait_for_line(kMemoryWentAway), Not(IsEmpty()));
  }
  expect_serves(client_->queue(1), 1024);
  client_.reset();
  disks_.expect_broker_and_others_serve();
}

TEST_P(HostileGuest, QueueThatBrokeServesAgainAfterItsRestart) {
  ring().store_avail_idx(1000);
  queue().kick();
  ASSERT_TRUE(queue().error_signalled());
  (void)client_->stop_ring(0);
  queue().driver() = fakes::SplitDriver(queue().place(), client_->memory(), true);
  client_->restart_ring(0, 0);
  expect_serves(queue());
}

// A guest cannot fill the log: it breaks its ring, resets, and breaks it again, in a loop.
TEST_P(HostileGuest, CannotFloodTheLog) {
  constexpr int kRounds = 60;
  for (int round = 0; round < kRounds; ++round) {
    ring().store_avail_idx(static_cast<std::uint16_t>(ring().next_avail() + 1000));
    queue().kick();
    ASSERT_TRUE(queue().error_signalled());
    (void)client_->stop_ring(0);
    queue().driver() = fakes::SplitDriver(queue().place(), client_->memory(), true);
    queue().clear_error();
    client_->restart_ring(0, 0);
  }
  expect_serves(queue());
  // At most a few lines a round, whatever the guest does.
  EXPECT_LE(disks_.host().broker().count_lines(""), 40 + kRounds * 4);
}

}  // namespace
}  // namespace integration
