// The log of a migration: which bits a range sets, what is refused, and that every page which a
// queue changes is marked, with no bit beyond the log.
#include "worker/dirty_log.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <memory>
#include <thread>
#include <vector>

#include "tests/fakes/blk_rig.h"
#include "tests/fakes/logged_ram.h"
#include "tests/fakes/net_rig.h"
#include "worker/net_control.h"

namespace {

namespace net = common::net;
using common::blk::RequestType;
using common::ipc::RingStart;
using common::ipc::WorkerExit;
using common::ipc::WorkerFault;
using fakes::BlkRig;
using fakes::GuestDriver;
using fakes::GuestRam;
using fakes::LoggedRam;
using fakes::NetRig;
using testing::Contains;
using testing::ElementsAre;
using testing::IsEmpty;
using testing::IsSupersetOf;
using testing::Not;
using worker::DirtyLog;
using Pages = LoggedRam::Pages;

constexpr std::uint64_t kPage = 4096;
constexpr std::uint64_t kStart = GuestRam::kDefaultStart;
constexpr std::uint64_t kFirstPage = kStart / kPage;

// --- ranges and bits
// ------------------------------------------------------------------------------

struct DirtyLogTest : testing::Test {
  DirtyLog make(std::uint64_t used_bytes = 64) {
    RingStart start{};
    start.log_used_addr = used_addr;
    return DirtyLog::create(ram.memory(), start, log.bits(), used_bytes).value();
  }
  // As a segment of the guest's.
  iovec at(std::uint64_t offset, std::uint64_t bytes) {
    return ram.memory().translate({kStart + offset}, bytes);
  }
  WorkerFault refusal(std::span<std::byte> bits, std::uint64_t addr, std::uint64_t used_bytes) {
    RingStart start{};
    start.log_used_addr = addr;
    const auto made = DirtyLog::create(ram.memory(), start, bits, used_bytes);
    return made ? WorkerFault::kNone : made.error().code;
  }

  GuestRam ram{1U << 20};
  LoggedRam log{ram};
  std::uint64_t used_addr = kStart;
  std::atomic<bool> lost = false;
};

TEST_F(DirtyLogTest, IsOffWithoutBits) {
  EXPECT_FALSE(DirtyLog().on());
  EXPECT_FALSE(DirtyLog::create(ram.memory(), RingStart{}, {}, 64).value().on());
}

TEST_F(DirtyLogTest, MarksThePageOfOneByte) {
  DirtyLog dirty = make();
  dirty.mark(at(5 * kPage + 17, 1));
  EXPECT_THAT(log.marked(), ElementsAre(kFirstPage + 5));
}

TEST_F(DirtyLogTest, MarksBothPagesThatARangeTouches) {
  DirtyLog dirty = make();
  dirty.mark(at(6 * kPage - 1, 2));
  EXPECT_THAT(log.marked(), ElementsAre(kFirstPage + 5, kFirstPage + 6));
}

TEST_F(DirtyLogTest, MarksNoPageBehindARangeThatEndsWithOne) {
  DirtyLog dirty = make();
  dirty.mark(at(5 * kPage, kPage));
  EXPECT_THAT(log.marked(), ElementsAre(kFirstPage + 5));
}

TEST_F(DirtyLogTest, MarksEveryPageOfALongRange) {
  DirtyLog dirty = make();
  dirty.mark(at(3 * kPage + 1, 40 * kPage));
  const Pages marked = log.marked();
  EXPECT_EQ(marked.size(), 41U);
  EXPECT_EQ(*marked.begin(), kFirstPage + 3);
  EXPECT_EQ(*marked.rbegin(), kFirstPage + 43);
}

TEST_F(DirtyLogTest, MarksTheLastPageOfMemoryAndNothingBehindTheLog) {
  DirtyLog dirty = make();
  dirty.mark(at((1U << 20) - 1, 1));
  EXPECT_THAT(log.marked(), ElementsAre(kFirstPage + 255));
  EXPECT_TRUE(log.guards_are_intact());
}

TEST_F(DirtyLogTest, MarksNoMoreThanTheFirstBytesOfAList) {
  DirtyLog dirty = make();
  const std::array<iovec, 3> list = {at(0, 100), at(7 * kPage, 100), at(9 * kPage, 100)};
  dirty.mark(list, 150);
  EXPECT_THAT(log.marked(), ElementsAre(kFirstPage, kFirstPage + 7));
}

TEST_F(DirtyLogTest, MarksNothingForNoBytes) {
  DirtyLog dirty = make();
  dirty.mark(iovec{at(0, 1).iov_base, 0});
  dirty.mark_used(0, 0);
  EXPECT_THAT(log.marked(), IsEmpty());
}

TEST_F(DirtyLogTest, PassesOverWhatIsNoGuestMemory) {
  DirtyLog dirty = make();
  std::array<std::byte, 64> ours{};
  const std::array<iovec, 2> list = {iovec{ours.data(), ours.size()}, at(kPage, 1)};
  dirty.mark(list);
  EXPECT_THAT(log.marked(), ElementsAre(kFirstPage + 1));
}

TEST_F(DirtyLogTest, MarksTheUsedRingWhereTheFrontEndHasIt) {
  used_addr = kStart + 100 * kPage + kPage - 4;
  DirtyLog dirty = make();
  dirty.mark_used(2, 2);
  dirty.mark_used(4, 8);
  EXPECT_THAT(log.marked(), ElementsAre(kFirstPage + 100, kFirstPage + 101));
}

TEST_F(DirtyLogTest, BeginsWithAllOfTheUsedRing) {
  DirtyLog dirty = make(2 * kPage + 1);
  dirty.begin();
  EXPECT_THAT(log.marked(), ElementsAre(kFirstPage, kFirstPage + 1, kFirstPage + 2));
}

TEST_F(DirtyLogTest, MarksEverythingWhereWhatCameBeforeIsNotKnown) {
  RingStart start{};
  start.log_used_addr = kStart;
  start.log_everything = 1;
  DirtyLog dirty = DirtyLog::create(ram.memory(), start, log.bits(), 64).value();
  dirty.begin();
  EXPECT_EQ(log.marked().size(), 256U);
  EXPECT_TRUE(log.guards_are_intact());
}

// Two regions that are neighbours for us and far apart in the guest.
TEST_F(DirtyLogTest, MarksASegmentThatGoesFromOneRegionIntoTheNext) {
  std::vector<std::byte> host(4 * kPage);
  const std::array<common::GuestRegion, 2> regions = {
      common::GuestRegion{{0}, 2 * kPage, host.data()},
      common::GuestRegion{{100 * kPage}, 2 * kPage, host.data() + 2 * kPage}};
  std::vector<std::byte> bits(13);
  RingStart start{};
  DirtyLog dirty = DirtyLog::create(common::GuestMemory(regions), start, bits, 64).value();
  dirty.mark(iovec{host.data() + kPage, 2 * kPage});
  EXPECT_EQ(bits[0], std::byte{0x02});
  EXPECT_EQ(bits[12], std::byte{0x10});
}

TEST_F(DirtyLogTest, LosesNothingOfWhatOthersMarkInTheSameByte) {
  constexpr int kRounds = 20000;
  std::vector<std::thread> threads;
  for (std::uint64_t page = 0; page < 4; ++page) {
    threads.emplace_back([&, page] {
      DirtyLog dirty = make();
      for (int i = 0; i < kRounds; ++i) {
        auto* const byte = reinterpret_cast<std::uint8_t*>(&log.bits()[kFirstPage / 8]);
        const auto mine = static_cast<std::uint8_t>(1U << page);
        __atomic_fetch_and(byte, static_cast<std::uint8_t>(~mine), __ATOMIC_SEQ_CST);
        dirty.mark(at(page * kPage, 1));
        const std::uint8_t now = __atomic_load_n(byte, __ATOMIC_SEQ_CST);
        if ((now & mine) == 0) lost = true;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_FALSE(lost);
}

TEST_F(DirtyLogTest, RefusesALogWithoutABitForTheLastPage) {
  EXPECT_EQ(refusal(log.bits(), kStart, 64), WorkerFault::kNone);
  EXPECT_EQ(refusal(log.bits().first(log.bits().size() - 1), kStart, 64),
            WorkerFault::kLogTooSmall);
}

TEST_F(DirtyLogTest, RefusesAUsedRingBehindTheLog) {
  EXPECT_EQ(refusal(log.bits(), log.bits().size() * 8 * kPage - 64, 64), WorkerFault::kNone);
  EXPECT_EQ(refusal(log.bits(), log.bits().size() * 8 * kPage - 63, 64), WorkerFault::kLogTooSmall);
}

TEST_F(DirtyLogTest, RefusesAUsedRingThatWraps) {
  EXPECT_EQ(refusal(log.bits(), UINT64_MAX - 63, 64), WorkerFault::kLogTooSmall);
  EXPECT_EQ(refusal(log.bits(), UINT64_MAX, 64), WorkerFault::kLogTooSmall);
}

// --- a disk
// ---------------------------------------------------------------------------------------

struct LoggedDisk : testing::Test {
  explicit LoggedDisk(const GuestDriver::Options& options = {.queue_size = 64}) : rig(options) {
    rig.log = &log;
    rig.number_sectors();
    for (std::byte& byte : rig.engine.disk()) byte |= std::byte{1};  // Unlike fresh memory.
  }
  common::GuestAddr buffer(std::uint64_t bytes) { return rig.ram.alloc(bytes, kPage); }
  // Everything that the guest writes comes before.
  WorkerExit serve() {
    (void)rig.ring.publish();
    log.remember();
    return rig.make_queue()->run();
  }
  void expect_all_marked() {
    EXPECT_THAT(log.changed(), Not(IsEmpty()));
    EXPECT_THAT(log.lost(), IsEmpty());
    EXPECT_TRUE(log.guards_are_intact());
  }
  static std::uint64_t page_of(common::GuestAddr addr) { return addr.value / kPage; }

  BlkRig rig;
  LoggedRam log{rig.ram};
};

TEST_F(LoggedDisk, MarksWhatIsReadAndItsAnswer) {
  const auto to = buffer(3 * kPage);
  ASSERT_TRUE(rig.blk.read(0, to, 3 * kPage));
  EXPECT_EQ(serve(), WorkerExit::kStopped);
  expect_all_marked();
  EXPECT_THAT(log.marked(), IsSupersetOf({page_of(to), page_of(to) + 1, page_of(to) + 2,
                                          page_of(rig.ring.used_addr())}));
}

TEST_F(LoggedDisk, MarksNoBufferThatIsWritten) {
  const auto from = buffer(2 * kPage);
  ASSERT_TRUE(rig.blk.write(0, from, kPage));
  EXPECT_EQ(serve(), WorkerExit::kStopped);
  expect_all_marked();
  EXPECT_THAT(log.marked(), Not(Contains(page_of(from))));
}

TEST_F(LoggedDisk, MarksTheSerialNumber) {
  const auto to = buffer(kPage);
  const std::array<fakes::Buffer, 1> data = {fakes::Buffer{to, 20, true}};
  ASSERT_TRUE(rig.blk.add(RequestType::kGetId, 0, data));
  EXPECT_EQ(serve(), WorkerExit::kStopped);
  expect_all_marked();
  EXPECT_THAT(log.marked(), Contains(page_of(to)));
}

TEST_F(LoggedDisk, MarksTheByteThatIsClearedWhereNothingWasRead) {
  const auto to = buffer(kPage);
  rig.ram.fill(to, kPage, 0xee);
  rig.engine.fail(fakes::ScriptedEngine::Kind::kRead, EIO);
  ASSERT_TRUE(rig.blk.read(0, to, kPage));
  EXPECT_EQ(serve(), WorkerExit::kStopped);
  expect_all_marked();
  EXPECT_THAT(log.marked(), Contains(page_of(to)));
}

TEST_F(LoggedDisk, MarksAllPiecesOfAShortRead) {
  const auto to = buffer(4 * kPage);
  rig.engine.shorten(fakes::ScriptedEngine::Kind::kRead, 512, 3);
  ASSERT_TRUE(rig.blk.read(0, to, 4 * kPage));
  EXPECT_EQ(serve(), WorkerExit::kStopped);
  expect_all_marked();
}

TEST_F(LoggedDisk, MarksAllOfAReadThatFailsOnTheWay) {
  const auto to = buffer(4 * kPage);
  rig.engine.shorten(fakes::ScriptedEngine::Kind::kRead, 512);
  rig.engine.fail(fakes::ScriptedEngine::Kind::kRead, EIO);
  ASSERT_TRUE(rig.blk.read(0, to, 4 * kPage));
  EXPECT_EQ(serve(), WorkerExit::kStopped);
  expect_all_marked();
  EXPECT_THAT(log.marked(), Contains(page_of(to) + 3));
}

TEST_F(LoggedDisk, MarksWhatComesThroughAnAlignedBuffer) {
  rig.device.direct = 1;
  rig.device.memory_alignment = 512;
  rig.device.offset_alignment = 512;
  const auto to = buffer(4 * kPage);
  ASSERT_TRUE(rig.blk.read(0, {to.value + 4}, 2 * kPage));
  EXPECT_EQ(serve(), WorkerExit::kStopped);
  EXPECT_EQ(rig.count(common::Counter::kBounced), 1U);
  expect_all_marked();
}

TEST_F(LoggedDisk, MarksScatteredSegmentsInAnIndirectTable) {
  std::vector<fakes::Buffer> data;
  for (int i = 0; i < 40; ++i) data.push_back({buffer(kPage), 512, true});
  ASSERT_TRUE(rig.blk.add(RequestType::kIn, 0, data, GuestDriver::Layout::kIndirect));
  EXPECT_EQ(serve(), WorkerExit::kStopped);
  expect_all_marked();
}

TEST_F(LoggedDisk, DataIsMarkedBeforeItsAnswerIsShown) {
  const auto to = buffer(kPage);
  ASSERT_TRUE(rig.blk.read(0, to, kPage));
  bool too_late = false;
  rig.engine.on_turn = [&](bool) {
    const bool shown = rig.ring.used_idx() != 0;
    too_late = too_late || (shown && !log.marked().contains(page_of(to)));
  };
  EXPECT_EQ(serve(), WorkerExit::kStopped);
  EXPECT_FALSE(too_late);
}

// The VMM takes the bits and copies the pages at any moment: what is written after that is marked
// again.
TEST_F(LoggedDisk, MarksAgainWhatIsWrittenAfterTheBitWasTaken) {
  const auto to = buffer(kPage);
  ASSERT_TRUE(rig.blk.read(0, to, kPage));
  rig.engine.on_turn = [&](bool) {
    if (rig.ring.used_idx() != 0) return;
    log.clear();
    log.remember();
  };
  EXPECT_EQ(serve(), WorkerExit::kStopped);
  expect_all_marked();
}

struct LoggedDiskWithALongRing : LoggedDisk {
  LoggedDiskWithALongRing() : LoggedDisk({.queue_size = 1024, .first_index = 1000}) {}
};

TEST_F(LoggedDiskWithALongRing, MarksTheAnswersAtItsEndAndAtItsStart) {
  const auto to = buffer(kPage);
  for (int i = 0; i < 60; ++i)
    ASSERT_TRUE(rig.blk.read(0, to, 512, GuestDriver::Layout::kIndirect));
  rig.engine.on_turn = [&](bool) {  // Not what it marks before it begins.
    if (rig.ring.used_idx() != 1000) return;
    log.clear();
    log.remember();
  };
  EXPECT_EQ(serve(), WorkerExit::kStopped);
  expect_all_marked();
  EXPECT_THAT(log.marked(), IsSupersetOf({page_of(rig.ring.used_addr()),
                                          page_of({rig.ring.used_addr().value + 1010 * 8})}));
}

TEST_F(LoggedDisk, RefusesARingWhoseLogIsTooSmall) {
  RingStart start = rig.ring.ring_start(rig.features);
  log.describe(start);
  EXPECT_EQ(worker::BlkQueue::create({.memory = rig.ram.memory(),
                                      .device = rig.device,
                                      .ring = start,
                                      .engine = &rig.engine,
                                      .status = &rig.status,
                                      .log = log.bits().first(8)}),
            nullptr);
  EXPECT_EQ(rig.fault(), WorkerFault::kLogTooSmall);
}

// --- a network card
// -------------------------------------------------------------------------------

struct LoggedCard : testing::Test {
  void make(worker::TapDirection direction) {
    rig = std::make_unique<NetRig>(direction, GuestDriver::Options{.queue_size = 64});
    log = std::make_unique<LoggedRam>(rig->ram);
    rig->log = log.get();
  }
  void expect_all_marked() {
    EXPECT_THAT(log->changed(), Not(IsEmpty()));
    EXPECT_THAT(log->lost(), IsEmpty());
    EXPECT_TRUE(log->guards_are_intact());
  }
  void receive() {
    (void)rig->ring.publish();
    log->remember();
    EXPECT_EQ(rig->receive(), WorkerExit::kStopped);
    expect_all_marked();
  }
  // Each in pages of its own.
  void offer(int count, std::uint32_t bytes) {
    for (int i = 0; i < count; ++i) {
      (void)rig->ram.alloc(kPage, kPage);
      ASSERT_TRUE(rig->offer(bytes));
    }
  }
  std::unique_ptr<NetRig> rig;
  std::unique_ptr<LoggedRam> log;
};

TEST_F(LoggedCard, MarksReceivedPackets) {
  make(worker::TapDirection::kReceive);
  offer(8, 1530);
  for (const std::uint32_t bytes : {60U, 1514U, 700U}) rig->arrive(bytes);
  receive();
}

TEST_F(LoggedCard, MarksPacketsThatFillManyBuffers) {
  make(worker::TapDirection::kReceive);
  rig->features = net::kFeatureMergeableBuffers;
  offer(60, 1530);
  for (int i = 0; i < 4; ++i) rig->arrive(9000);
  receive();
}

TEST_F(LoggedCard, MarksPacketsWithTheShortHeader) {
  make(worker::TapDirection::kReceive);
  rig->legacy = true;
  offer(8, 1530);
  rig->arrive(600);
  rig->arrive(60);
  receive();
}

// It was read into a buffer, and into one too small: the buffer goes back with what was written.
TEST_F(LoggedCard, MarksBuffersThatArePutBackChanged) {
  make(worker::TapDirection::kReceive);
  offer(4, 200);
  rig->arrive(1000);
  rig->arrive(60);
  rig->arrive(60);
  receive();
}

TEST_F(LoggedCard, MarksOnlyTheUsedRingOfWhatIsSent) {
  make(worker::TapDirection::kTransmit);
  for (int i = 0; i < 5; ++i) ASSERT_TRUE(rig->send({}, 700));
  (void)rig->ring.publish();
  log->remember();
  EXPECT_EQ(rig->transmit(), WorkerExit::kStopped);
  expect_all_marked();
  const std::uint64_t used = rig->ring.used_addr().value;
  for (const std::uint64_t page : log->marked()) {
    EXPECT_GE(page, used / kPage);
    EXPECT_LE(page, (used + 6 + 64 * 8) / kPage);
  }
}

class Agreeable final : public worker::ControlLink {
 public:
  [[nodiscard]] bool ask(const common::ipc::NetControl&) noexcept override { return true; }
};

TEST_F(LoggedCard, MarksTheAnswerToAControlCommand) {
  make(worker::TapDirection::kReceive);
  rig->features = net::kFeatureCtrlVq;
  const auto command = rig->ram.alloc(2, kPage);
  const auto answer = rig->ram.alloc(1, kPage);
  rig->ram.put(answer, std::uint8_t{0xaa});
  const std::array<fakes::Buffer, 2> buffers = {fakes::Buffer{command, 2, false},
                                                fakes::Buffer{answer, 1, true}};
  ASSERT_TRUE(rig->ring.add(buffers));
  (void)rig->ring.publish();
  log->remember();
  Agreeable link;
  EXPECT_EQ(worker::NetControl::create(rig->parts(), link)->run(), WorkerExit::kStopped);
  expect_all_marked();
  EXPECT_THAT(log->marked(), Contains(answer.value / kPage));
}

}  // namespace
